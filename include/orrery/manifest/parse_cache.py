"""dbt's partial parses, which the commands of a project share.

A command begins from the parse of the build, and dbt parses what has changed in files and vars since
(orrery.manifest.var_parsing). Where that is everything, because the profile is another one or a variable
counts for all files, the result is kept for the next command that needs the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from orrery.config.project import Project
from orrery.manifest import var_parsing
from orrery.manifest.lock import exclusively
from orrery.manifest.profile import ProfileError, read_profile
from orrery.manifest.store import PARTIAL_PARSE, ManifestStore, write_whole
from orrery.manifest.watched_vars import digests

# How many are kept; each has the size of manifest.json.
KEPT = 10
_INDEX = "index.json"


class ParseCache:
    """The partial parses for a set of vars.

    :param variables: dbt's `--vars`
    :param base: the parse of a build, without vars; by default that of the last good one
    """

    def __init__(
        self, project: Project, variables: Mapping[str, Any] | None = None, base: Path | None = None
    ) -> None:
        self._project, self._digests = project, digests(variables or {})
        self._base = base or ManifestStore(project).partial_parse
        self._folder = project.manifest_dir / "parses"

    def learn(self) -> None:
        """Note what the parse of a build is good for, after dbt has made it."""
        self._write_index(var_parsing.read_by_many(self._base), self._key(()))

    @contextmanager
    def parsing(self, target: Path) -> Iterator[None]:
        """While dbt parses in a target folder, beginning from the best parse there is.

        Of several commands that need one that is not there yet, one makes it and the others wait.
        """
        if target in (self._project.target_dir, ManifestStore(self._project).parse_dir):
            # dbt keeps a parse there for whoever comes next.
            yield
            return
        with ExitStack() as stack:
            path = self._path()
            if path and not path.exists():
                # Where nobody may write, such as in a pod, everyone parses. Few files serve many values, of
                # which most come once.
                with suppress(OSError):
                    stack.enter_context(exclusively(self._folder / f"{path.name[:2]}.lock", lambda: None))
            self._bring(path, target)
            brought = _written(target)
            yield
            if _written(target) != brought:
                with suppress(OSError):
                    self._keep(target / PARTIAL_PARSE)

    def _bring(self, path: Path | None, target: Path) -> None:
        target.mkdir(parents=True, exist_ok=True)
        for best in (path, self._base):
            with suppress(FileNotFoundError):
                if best:
                    shutil.copyfile(best, target / PARTIAL_PARSE)
                    # Those that are used stay.
                    with suppress(OSError):
                        os.utime(best)
                    return

    def _keep(self, made: Path) -> None:
        """Keep what dbt has parsed, if others can use it."""
        index = self._index()
        if index is None:
            return
        known, names = index["names"], var_parsing.read_by_many(made)
        if known is not None and (names is None or not names <= set(known)):
            # Now it is known that these count for all files, too.
            self._write_index(None if names is None else names | set(known), index["build"])
        if path := self._path():
            write_whole(path, made.read_bytes())
            self._forget()

    def _path(self) -> Path | None:
        """The file of a parse that is not the build's; None where the build's will do."""
        index = self._index()
        key = self._key(index["names"]) if index else None
        return None if index is None or key == index["build"] else self._folder / f"{key}.msgpack"

    def _key(self, names: Any) -> str:
        """What a parse is good for: the profile, and those of its vars that count for all files."""
        try:
            profile = read_profile(self._project)
            about = [profile.name, profile.target, profile.file.read_text(encoding="utf-8")]
        except (ProfileError, OSError):
            about = []
        values = {name: value for name, value in self._digests.items() if names is None or name in names}
        text = json.dumps([about, values], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()

    def _index(self) -> Any:
        """`names` of variables that count for all files, or None; the key of the `build`'s parse."""
        try:
            return json.loads((self._folder / _INDEX).read_bytes())
        except (OSError, ValueError):
            return None

    def _write_index(self, names: Collection[str] | None, build: str) -> None:
        index = {"names": None if names is None else sorted(names), "build": build}
        write_whole(self._folder / _INDEX, json.dumps(index).encode())

    def _forget(self) -> None:
        files = sorted(self._folder.glob("*.msgpack"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[KEPT:]:
            path.unlink(missing_ok=True)


def _written(target: Path) -> int:
    try:
        return (target / PARTIAL_PARSE).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
