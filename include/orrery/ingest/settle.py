"""Which files nobody writes any more, and which of them need not wait for the others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from orrery.ingest.stores import LandingFile


class Watch:
    """Files that are looked at again and again: which of them stay the same.

    Time is measured by a clock that nobody sets. A time of change may lie in the future: the file was copied
    with a wrong one, or the clock of this machine is behind that of the file system.

    :param settled: what another watch has found, see `settled`
    """

    def __init__(self, settled: Mapping[str, str] | None = None) -> None:
        self._settled = dict(settled or {})
        self._since: dict[str, tuple[str, float]] = {}

    @property
    def settled(self) -> dict[str, str]:
        """The versions of files that have stayed the same for long enough, by name."""
        return self._settled

    def find_settled(self, files: Iterable[LandingFile], settle: timedelta) -> set[str]:
        """The names of those of `files` that have not changed for so long; called with every look."""
        now = time.monotonic()
        seen = {}
        for file in files:
            version, since = self._since.get(file.name, (None, now))
            if version != file.version:
                since = now
            seen[file.name] = file.version, since
            if now - since >= settle.total_seconds():
                self._settled[file.name] = file.version
        self._since = seen
        return {name for name, (version, _) in seen.items() if self._settled.get(name) == version}


@dataclass(frozen=True)
class Look:
    """The files of a landing zone: those that are complete, and those that are still written."""

    complete: list[LandingFile]
    unsettled: list[LandingFile]

    def free(self, load_mode: str) -> list[LandingFile]:
        """The complete files that can be loaded before the others are complete.

        With a key, those that come first in the order of their names: what is behind an unsettled file may
        hold newer rows of its keys. What replaces a table are all files, or none.
        """
        if not self.unsettled or load_mode == "append":
            return self.complete
        if load_mode == "replace":
            return []
        first = min(file.name for file in self.unsettled)
        return [file for file in self.complete if file.name < first]
