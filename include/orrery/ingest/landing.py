"""The landing zone: which files are there, whether they are complete, and what becomes of loaded ones."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import IO

from orrery.ingest.errors import ChangedError
from orrery.ingest.settle import Look, Watch
from orrery.ingest.stores import LandingFile, open_store, write_bytes

__all__ = ["ARCHIVE", "LandingFile", "LandingZone", "Watch"]

ARCHIVE = "_archive"
# The name of a file in its folder, in bytes.
_LONGEST_PART = 255


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

    def look(
        self,
        pattern: str,
        *,
        settle: timedelta,
        done_marker: str | None,
        only: str | None = None,
        watch: Watch | None = None,
    ) -> Look:
        """The files that match, those that are complete apart from those that somebody still writes.

        A file without its done marker is neither.

        :param only: the name of the one file that counts
        :param watch: remembers what earlier looks have seen
        """
        found = [file for file in self.find(pattern) if only in (None, file.name)]
        if done_marker is not None:
            # A question per file would take long in a store.
            folders = {file.name.rpartition("/")[0] for file in found}
            there = {name for folder in folders for name in self._store.names(folder)}
            return Look([file for file in found if file.name + done_marker in there], [])
        latest = time.time() - settle.total_seconds()
        young = [file for file in found if file.modified is not None and file.modified > latest]
        settled = (watch or Watch()).find_settled(young, settle)
        unsettled = [file for file in young if file.name not in settled]
        names = {file.name for file in unsettled}
        return Look([file for file in found if file.name not in names], unsettled)

    def open(self, file: LandingFile) -> IO[bytes]:
        """The content of a file, in a store that of this very version. Raises FileError when it is gone."""
        return self._store.open(file)

    def check_unchanged(self, file: LandingFile) -> None:
        """Raise FileError when the file has changed since it was found."""
        self.again(file.name, file.version)

    def check_put_away(self, files: Iterable[LandingFile], after_load: str) -> None:
        """Raise FileError or SetupError where it is known that a file could not be put away afterwards."""
        for file in files if after_load != "keep" else ():
            self._store.check_move(file, archived(file) if after_load == "archive" else None)

    def put_away(self, file: LandingFile, after_load: str, done_marker: str | None) -> None:
        """Archive or delete a loaded file and its marker; one that is gone already is no error.

        Another version that has taken its place stays with its marker: it is not loaded yet.
        """
        store = self._store
        # Before the look at the file: the marker of a later version comes behind that.
        marker = store.stat(file.name + done_marker) if done_marker is not None else None
        with suppress(ChangedError):
            self.check_unchanged(file)
            if marker:
                # Before the file: it would say of the next one of this name that it is complete.
                store.remove(marker)
            try:
                if after_load == "delete":
                    store.remove(file)
                else:
                    store.move(file, archived(file))
            except ChangedError:
                if marker and not store.unique_tags and store.stat(file.name) and not store.stat(marker.name):
                    # It may have been the one of the version that is there now.
                    write_bytes(store, marker.name, b"", "application/octet-stream")
                raise


def archived(file: LandingFile) -> str:
    """The name of a file in the archive, with its version: a corrected file has the name of the first."""
    folder, slash, name = file.name.rpartition("/")
    ending = f".{file.version}"
    room = _LONGEST_PART - len(ending)
    if len(name.encode()) > room:
        # A file system takes no more. The digest tells apart what begins alike.
        ending = f"~{hashlib.sha256(name.encode()).hexdigest()[:8]}{ending}"
        name = name.encode()[: _LONGEST_PART - len(ending)].decode(errors="ignore")
    return f"{ARCHIVE}/{folder}{slash}{name}{ending}"
