"""Places that hold files, whichever kind of store they are in: what all of them can do."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from orrery.config.stores import Place
from orrery.ingest.errors import ChangedError, FileError, SetupError

# What is read or sent at once; a multiple of what both stores ask for.
BLOCK = 8 << 20


@dataclass(frozen=True)
class LandingFile:
    """A file, or an object of a store.

    `name` is relative to its place; `version` changes with every change of the file (its size with its
    time of change and its inode, or with the object store's ETag or generation); `modified` is in seconds
    since the epoch by the clock of the folder's file system, and None in object stores, where an object
    appears as a whole. `tag` is the store's own
    name of the version, `md5` (hexadecimal) the store's checksum, where it has one for the whole content.
    """

    name: str
    size: int
    version: str
    modified: float | None
    path: str
    tag: str | None = None
    md5: str | None = None

    def source_id(self, source: str) -> str:
        """The digest of source and name, the same for all versions of the file."""
        return hashlib.sha256(f"{source}\0{self.name}".encode()).hexdigest()[:16]


class Digesting:
    """A binary stream of known length that digests what is read from it.

    :param md5: the checksum that the content must have
    :param verify: called when the last byte is read, before anybody can take the content for complete
    Reading raises FileError when there is less or more than announced, or something else.
    """

    def __init__(
        self, stream: IO[bytes], file: LandingFile, *, md5: str | None, verify: Callable[[], None]
    ) -> None:
        self._stream, self._file, self._expected, self._verify = stream, file, md5, verify
        self.md5, self.sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self.md5.update(block)
        self.sha256.update(block)
        self.size += len(block)
        short = self.size < self._file.size and (size < 0 or not block)
        if short or self.size > self._file.size:
            raise changed(self._file.name)
        if self.size == self._file.size:
            if self._expected not in (None, self.md5.hexdigest()):
                raise FileError(
                    self._file.name, "arrives with other content than the store has", "Try again."
                )
            self._verify()
        return block

    def tell(self) -> int:
        return self.size


class Store(ABC):
    """The files of a place. All methods raise IngestError, and FileError for what is wrong with one file."""

    # Whether an open file is one version, whatever happens to it in the meantime.
    steady = True
    # Whether the content has the `md5` of its file for certain; else it says only which are the same.
    exact = True
    # Whether two versions of a file always differ in their tags, also when their content is the same.
    unique_tags = True

    def __init__(self, place: Place) -> None:
        self.place = place

    @abstractmethod
    def glob(self, pattern: str, *, without: str | None = None) -> list[LandingFile]:
        """The files whose names match, in no order; those in the folder `without` at the top are left out."""

    @abstractmethod
    def names(self, folder: str) -> set[str]:
        """The names of all that is in a folder (`""` is the place itself)."""

    @abstractmethod
    def stat(self, name: str) -> LandingFile | None:
        """The file of this name as it is now; None when there is none."""

    def again(self, name: str, version: str) -> LandingFile:
        """A file that was found before, in this version. Raises FileError when it has changed or is gone."""
        now = self.stat(name)
        if now is None:
            raise vanished(name)
        if now.version != version:
            raise changed(name)
        return now

    @abstractmethod
    def open(self, file: LandingFile) -> IO[bytes]:
        """The content of a file, seekable."""

    @abstractmethod
    def check_move(self, file: LandingFile, name: str | None) -> None:
        """Raise FileError or SetupError where it is known that the file cannot be moved, or removed.

        :param name: where it is to go; None when it is to be removed
        """

    @abstractmethod
    def move(self, file: LandingFile, name: str) -> None:
        """Give this version of a file another name.

        Raises ChangedError when another version has taken its place, which then stays, or when it is gone.
        """

    @abstractmethod
    def remove(self, file: LandingFile) -> None:
        """Remove this version of a file; raises ChangedError as `move` does."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove what has this name, whichever version it is; one that is gone is no error."""

    @abstractmethod
    def write(
        self, name: str, source: Digesting, size: int, note: str | None, content_type: str | None = None
    ) -> bool:
        """Make a file of what `source` gives, which is there as a whole or not at all.

        :param note: kept with the file, see `note`
        :param content_type: what a bucket tells browsers that the file is
        Tells whether the store's own checksum has confirmed the content.
        """

    @abstractmethod
    def note(self, file: LandingFile) -> str | None:
        """The note with which this version of a file was written."""


def write_bytes(store: Store, name: str, content: bytes, content_type: str) -> None:
    """Make a file, or replace it. Raises IngestError."""
    file = LandingFile(name, len(content), "", None, name)
    source = Digesting(io.BytesIO(content), file, md5=None, verify=lambda: None)
    store.write(name, source, len(content), None, content_type)


def open_store(uri: str | Place) -> Store:
    """The store of a place. Raises SetupError when the URI or its connection is none."""
    try:
        place = uri if isinstance(uri, Place) else Place.parse(uri)
    except ValueError as error:
        raise SetupError(f"{error}\n  Correct the URI.") from None
    # Each brings a library that nobody else has to wait for.
    if place.scheme == "s3":
        from orrery.ingest.s3 import S3Store

        return S3Store(place)
    if place.scheme == "gs":
        from orrery.ingest.gcs import GcsStore

        return GcsStore(place)
    from orrery.ingest.folder import FolderStore

    return FolderStore(place)


def version(*parts: object) -> str:
    """The digest of what makes a version of a file."""
    return hashlib.sha256("-".join(map(str, parts)).encode()).hexdigest()[:16]


def vanished(name: str) -> ChangedError:
    return ChangedError(name, "has vanished while it was to be loaded", "Nothing of it is loaded.")


def changed(name: str) -> ChangedError:
    return ChangedError(
        name,
        "changed while it was read",
        "Write it under another name and rename it, use a done_marker, or a longer settle.",
    )
