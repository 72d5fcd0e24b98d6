"""dbt's vars, which note who reads them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict, dataclass
from pprint import pformat
from typing import Any

# In place of a file: whatever is read outside of single files, such as in dbt_project.yml.
OUTSIDE = ""
# In place of a name: all of the vars were read.
ALL = "*"


class WatchedVars(dict[str, Any]):
    """Vars, and the names that were read, by the id of the file that was being parsed.

    A file that was parsed and has read nothing has an empty set.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        super().__init__(values)
        self.read: dict[str, set[str]] = {}
        self._file: str | None = OUTSIDE

    @contextmanager
    def parsing(self, file_id: str | None) -> Iterator[None]:
        """What is read now is read by this file; None: by somebody who does not count."""
        before, self._file = self._file, file_id
        if file_id is not None:
            self.read.setdefault(file_id, set())
        try:
            yield
        finally:
            self._file = before

    def stop(self) -> None:
        """Take nothing down any more."""
        self._file = None

    def unwatched(self) -> dict[str, Any]:
        """A copy, which nobody watches."""
        return dict(dict.items(self))

    def note(self, name: str) -> None:
        """Take down that a variable was read."""
        if self._file is not None:
            self.read.setdefault(self._file, set()).add(name)

    def __contains__(self, name: object) -> bool:
        self.note(str(name))
        return super().__contains__(name)

    def __getitem__(self, name: str) -> Any:
        self.note(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """As of any mapping."""
        self.note(name)
        return super().get(name, default)

    def __eq__(self, other: object) -> bool:
        # dbt compares all its settings with texts.
        if not isinstance(other, str):
            self.note(ALL)
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None

    def __deepcopy__(self, memo: Any) -> dict[str, Any]:
        # dbt's check of its own flags, and unit tests when they run: neither is about parsing.
        return deepcopy(self.unwatched(), memo)


def _reads_all(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    def noted(self: WatchedVars, *args: Any, **kwargs: Any) -> Any:
        self.note(ALL)
        return method(self, *args, **kwargs)

    return noted


for _name in (
    *("__iter__", "__len__", "__or__", "__repr__", "__reversed__", "__ror__"),
    *("copy", "items", "keys", "pop", "popitem", "setdefault", "values"),
):
    setattr(WatchedVars, _name, _reads_all(_name))


@dataclass(frozen=True)
class Reads:
    """What is known of the vars of a parse.

    :param beside: what the parse depends on beside vars
    :param values: each variable's digest
    :param files: the names that each file has read, or nobody in particular (OUTSIDE)
    """

    beside: str
    values: Mapping[str, str]
    files: Mapping[str, frozenset[str]]

    @classmethod
    def load(cls, text: str) -> Reads:
        """What `dump` has written."""
        kept = json.loads(text)
        files = {file_id: frozenset(names) for file_id, names in kept["files"].items()}
        return cls(kept["beside"], kept["values"], files)

    def dump(self) -> str:
        """All of it as text."""
        files = {file_id: sorted(names) for file_id, names in self.files.items()}
        return json.dumps({**asdict(self), "files": files})

    @property
    def outside(self) -> frozenset[str]:
        """The names that count for all files."""
        return self.files.get(OUTSIDE, frozenset())

    def changed(self, now: Mapping[str, str]) -> frozenset[str]:
        """The names that have another value now, in the shape of `values`; with ALL if there are any."""
        names = {name for name in {*now, *self.values} if now.get(name) != self.values.get(name)}
        return frozenset(names | {ALL} if names else names)

    def readers(self, names: frozenset[str]) -> frozenset[str]:
        """The files that have read one of the names, and OUTSIDE."""
        return frozenset(file_id for file_id, read in self.files.items() if not read.isdisjoint(names))


def digests(variables: Mapping[str, Any]) -> dict[str, str]:
    """A digest of each value, the same for mappings with their keys in another order."""
    return {
        name: hashlib.blake2b(pformat(value).encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
        for name, value in variables.items()
    }
