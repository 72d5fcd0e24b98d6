"""What loading files has in common in all warehouses: which ones are loaded, and what becomes of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orrery.config.ingest import Files
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.matching import Merged
from orrery.ingest.target import Target


@dataclass(frozen=True)
class Loaded:
    """A file that was loaded: its rows, and what became of them."""

    file: str
    rows: int
    merged: Merged


class FileLoader(ABC):
    """Loads files of a landing zone into the table of a source.

    :param run_id: what the ledger says about who has loaded a file
    """

    def __init__(self, target: Target, spec: Files, zone: LandingZone, run_id: str) -> None:
        self._target, self._spec, self._zone, self._run_id = target, spec, zone, run_id

    @abstractmethod
    def prepare(self) -> None:
        """Create what is missing of the tables. Raises IngestError."""

    def load(self, files: list[LandingFile]) -> Iterator[Loaded]:
        """Load files in their order, each in a transaction; raises FileError for the first that is bad.

        What comes after a bad file has to wait: it may hold newer rows of the same keys. Nothing is loaded
        that could not be put away afterwards.
        """
        self._zone.check_put_away(files, self._spec.after_load)
        yield from self._load_all(files)

    @abstractmethod
    def _load_all(self, files: list[LandingFile]) -> Iterator[Loaded]:
        """Load files as `load` says."""

    @abstractmethod
    def _versions(self) -> Mapping[str, str]:
        """The version of each file that was loaded last, by its name."""

    def pending(self, files: list[LandingFile]) -> list[LandingFile]:
        """Those of `files` that are not loaded yet, or not as they are now; to replace, all or none."""
        loaded = self._versions()
        pending = [file for file in files if loaded.get(file.name) != file.version]
        if self._spec.load_mode != "replace":
            return pending
        gone = self._spec.after_load == "keep" and loaded.keys() - {file.name for file in files}
        return files if pending or gone else []

    def put_away(self, files: list[LandingFile]) -> None:
        """Do with loaded files what the source says."""
        if self._spec.after_load == "keep":
            return
        pending = {file.name for file in self.pending(files)}
        for file in files:
            if file.name not in pending:
                self._zone.put_away(file, self._spec.after_load, self._spec.done_marker)

    @abstractmethod
    def clear_chunks(self) -> None:
        """Remove the chunks of this run that are left, such as those of files that another run has loaded."""
