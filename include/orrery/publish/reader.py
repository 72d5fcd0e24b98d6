"""What the runs of a pipeline have published, for those who show it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orrery.config.stores import Place
from orrery.ingest.stores import LandingFile, open_store
from orrery.publish.target import ARTIFACTS, CONTENT_TYPES, DOCS, ELEMENTARY, LATEST, RUN_NAME

# Nothing else is shown, whatever lies beside it.
FILES = (DOCS, ELEMENTARY, *ARTIFACTS)
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Content:
    """A published file: its size in bytes, its type, and the bytes in blocks."""

    size: int
    content_type: str
    blocks: Iterator[bytes]


class PublishedFiles:
    """The files at a place. All methods raise IngestError."""

    def __init__(self, place: Place) -> None:
        self._store = open_store(place)

    def latest(self) -> frozenset[str]:
        """The names of the files of the latest run."""
        found = self._store.names(LATEST)
        return frozenset(name for name in FILES if f"{LATEST}/{name}" in found)

    def of_runs(self) -> Mapping[str, frozenset[str]]:
        """The names of the files of each run, by the name of its folder."""
        found: dict[str, set[str]] = defaultdict(set)
        for file in self._store.glob("runs/*/*"):
            _, run, name = file.name.split("/")
            if name in FILES and RUN_NAME.fullmatch(run):
                found[run].add(name)
        return {run: frozenset(names) for run, names in found.items()}

    def read(self, folder: str, name: str) -> Content | None:
        """A file of the latest run, or of the folder of a run; None when there is none of this name."""
        if name not in FILES:
            return None
        if folder == LATEST:
            path = f"{LATEST}/{name}"
        elif RUN_NAME.fullmatch(folder):
            path = f"runs/{folder}/{name}"
        else:
            return None
        file = self._store.stat(path)
        if file is None:
            return None
        return Content(file.size, CONTENT_TYPES[name.rpartition(".")[2]], self._blocks(file))

    def _blocks(self, file: LandingFile) -> Iterator[bytes]:
        with self._store.open(file) as stream:
            while block := stream.read(_BLOCK):
                yield block
