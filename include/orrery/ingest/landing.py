"""The landing zone: which files are there, whether they are complete, and what becomes of loaded ones."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import timedelta
from typing import IO

from orrery.ingest.errors import FileError
from orrery.ingest.stores import LandingFile, open_store

__all__ = ["ARCHIVE", "LandingFile", "LandingZone"]

ARCHIVE = "_archive"


class LandingZone:
    """The files below a URI such as `file:///data/landing` or `s3://aws_default@bucket/landing`.

    An Airflow connection may stand before the bucket; without one the rights of the machine count.
    All methods raise IngestError when the store does not let them.
    """

    def __init__(self, uri: str) -> None:
        self._store = open_store(uri)
        self.uri = self._store.place.uri

    def find(self, pattern: str) -> list[LandingFile]:
        """The files that match, by name; what is no file, such as a pipe, is left out.

        Raises FileError for a link that leads out of the zone, and for a name that is not UTF-8.
        """
        return sorted(self._store.glob(pattern, without=ARCHIVE), key=lambda file: file.name)

    def again(self, name: str, version: str) -> LandingFile:
        """A file that was found before, in this version. Raises FileError when it has changed or is gone."""
        return self._store.again(name, version)

    def complete(
        self, files: list[LandingFile], *, settle: timedelta, done_marker: str | None
    ) -> list[LandingFile]:
        """Those of `files` that nobody writes any more."""
        if done_marker is not None:
            # A question per file would take long in a store.
            folders = {file.name.rpartition("/")[0] for file in files}
            there = {name for folder in folders for name in self._store.names(folder)}
            return [file for file in files if file.name + done_marker in there]
        latest = time.time() - settle.total_seconds()
        return [file for file in files if file.modified is None or file.modified <= latest]

    def look(
        self, pattern: str, *, settle: timedelta, done_marker: str | None, only: str | None = None
    ) -> tuple[list[LandingFile], bool]:
        """The files that match and are complete, and whether none of the others is still written.

        :param only: the name of the one file that counts
        """
        found = [file for file in self.find(pattern) if only in (None, file.name)]
        complete = self.complete(found, settle=settle, done_marker=done_marker)
        return complete, done_marker is not None or len(complete) == len(found)

    def open(self, file: LandingFile) -> IO[bytes]:
        """The content of a file, in a store that of this very version. Raises FileError when it is gone."""
        return self._store.open(file)

    def check_unchanged(self, file: LandingFile) -> None:
        """Raise FileError when the file has changed since it was found."""
        self.again(file.name, file.version)

    def put_away(self, file: LandingFile, after_load: str, done_marker: str | None) -> None:
        """Archive or delete a loaded file and its marker; one that is gone already is no error.

        A file that has changed since it was found stays: what is in it now is not loaded.
        """
        try:
            self.check_unchanged(file)
        except FileError:
            return
        if done_marker is not None:
            # Before the file: it would say of the next one of this name that it is complete.
            self._store.delete(file.name + done_marker)
        if after_load == "delete":
            self._store.delete(file.name)
            return
        # It may change until the very moment.
        with suppress(FileError):
            # The version, because a corrected file has the name of the first.
            self._store.move(file, f"{ARCHIVE}/{file.name}.{file.version}")
