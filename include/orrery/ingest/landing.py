"""The landing zone: which files are there, whether they are complete, and what becomes of loaded ones."""

from __future__ import annotations

import glob
import hashlib
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from airflow.sdk import ObjectStoragePath

from orrery.ingest.errors import FileError

ARCHIVE = "_archive"


@dataclass(frozen=True)
class LandingFile:
    """A file in a landing zone.

    `name` is relative to the zone; `version` changes with every change of the file (its size with its
    time of change and its inode, or with the object store's ETag); `modified` is in seconds since the
    epoch, and None in object stores, where an object appears as a whole.
    """

    name: str
    size: int
    version: str
    modified: float | None
    path: str

    def source_id(self, source: str) -> str:
        """The digest of source and name, the same for all versions of the file."""
        return hashlib.sha256(f"{source}\0{self.name}".encode()).hexdigest()[:16]


class LandingZone:
    """The files below a URI such as `file:///data/landing` or `s3://aws_default@bucket/landing`.

    A connection of Airflow may stand before the bucket, as in all of Airflow's object storage.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri.rstrip("/")
        root = ObjectStoragePath(self.uri)
        self._fs: Any = root.fs
        self._root = str(root.path).rstrip("/")
        self._local = root.protocol == "file"

    def find(self, pattern: str) -> list[LandingFile]:
        """The files that match, by name; what is no file, such as a pipe, is left out.

        Raises FileError for a link that leads out of the zone, and for a name that is not UTF-8.
        """
        self._fs.invalidate_cache()
        found = self._fs.glob(f"{glob.escape(self._root)}/{pattern}", detail=True)
        files = (self._file(path, info) for path, info in found.items())
        return sorted(
            (file for file in files if file and PurePosixPath(file.name).parts[0] != ARCHIVE),
            key=lambda file: file.name,
        )

    def known(self, name: str, version: str) -> LandingFile:
        """A version of a file that was found before; its size is not known."""
        return LandingFile(name, 0, version, None, f"{self._root}/{name}")

    def complete(
        self, files: list[LandingFile], *, settle: timedelta, done_marker: str | None
    ) -> list[LandingFile]:
        """Those of `files` that nobody writes any more."""
        if done_marker is not None:
            return [file for file in files if self._fs.exists(file.path + done_marker)]
        latest = time.time() - settle.total_seconds()
        return [file for file in files if file.modified is None or file.modified <= latest]

    def look(
        self, pattern: str, *, settle: timedelta, done_marker: str | None
    ) -> tuple[list[LandingFile], bool]:
        """The files that match and are complete, and whether none of the others is still written."""
        found = self.find(pattern)
        complete = self.complete(found, settle=settle, done_marker=done_marker)
        return complete, done_marker is not None or len(complete) == len(found)

    def open(self, file: LandingFile) -> IO[bytes]:
        """The content of a file. Raises FileError when it is gone."""
        try:
            return cast("IO[bytes]", self._fs.open(file.path, "rb"))
        except FileNotFoundError:
            raise _vanished(file) from None
        except OSError as error:
            raise FileError(
                file.name, f"cannot be read: {error.strerror or error}", "Check its permissions."
            ) from None

    def check_unchanged(self, file: LandingFile) -> None:
        """Raise FileError when the file has changed since it was found."""
        try:
            self._fs.invalidate_cache()
            now = self._file(file.path, self._fs.info(file.path))
        except FileNotFoundError:
            raise _vanished(file) from None
        if now is None or now.version != file.version:
            raise FileError(
                file.name,
                "changed while it was read",
                "Write it under another name and rename it, use a done_marker, or a longer settle.",
            )

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
            with suppress(FileNotFoundError):
                self._fs.rm_file(file.path + done_marker)
        with suppress(FileNotFoundError):
            if after_load == "archive":
                # The version, because a corrected file has the name of the first.
                target = f"{self._root}/{ARCHIVE}/{file.name}.{file.version}"
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                if self._local:
                    self._fs.mv(file.path, target)
                    return
                # Object stores move whatever a name matches as a pattern.
                self._fs.cp_file(file.path, target)
            self._fs.rm_file(file.path)

    def _file(self, path: str, info: dict[str, Any]) -> LandingFile | None:
        name = path.removeprefix(self._root).lstrip("/")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise FileError(ascii(name), "the name is not valid UTF-8", "Rename the file.") from None
        if self._local:
            return self._local_file(name, Path(path))
        if info["type"] == "directory":
            return None
        tag = info.get("ETag") or info.get("etag") or info.get("generation")
        return LandingFile(name, int(info["size"] or 0), _version(info["size"], tag), None, path)

    def _local_file(self, name: str, path: Path) -> LandingFile | None:
        # The listing of fsspec tells of a link where its info tells of what that leads to.
        if not path.is_file():
            return None
        if not path.resolve().is_relative_to(Path(self._root).resolve()):
            raise FileError(name, "is a link that leads out of the landing zone", "Copy the file instead.")
        status = path.stat()
        version = _version(status.st_size, status.st_mtime_ns, status.st_ino)
        return LandingFile(name, status.st_size, version, status.st_mtime, str(path))


def _vanished(file: LandingFile) -> FileError:
    return FileError(file.name, "has vanished while it was to be loaded", "Nothing of it is loaded.")


def _version(*parts: object) -> str:
    return hashlib.sha256("-".join(map(str, parts)).encode()).hexdigest()[:16]
