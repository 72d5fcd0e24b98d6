"""Places that hold files, whichever kind of store they are in: what all of them can do."""

from __future__ import annotations

import hashlib
import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

from fsspec.utils import glob_translate

from orrery.config.stores import Place
from orrery.ingest.errors import FileError, IngestError, SetupError

# What is read or sent at once; a multiple of what both stores ask for.
BLOCK = 8 << 20
# How often a block is asked for anew when its answer breaks off.
ATTEMPTS = 3


@dataclass(frozen=True)
class LandingFile:
    """A file, or an object of a store.

    `name` is relative to its place; `version` changes with every change of the file (its size with its
    time of change and its inode, or with the object store's ETag or generation); `modified` is in seconds
    since the epoch, and None in object stores, where an object appears as a whole. `tag` is the store's own
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
            raise changed(self._file)
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

    @abstractmethod
    def open(self, file: LandingFile) -> IO[bytes]:
        """The content of a file, seekable."""

    @abstractmethod
    def move(self, file: LandingFile, name: str) -> None:
        """Give a file another name; one that is gone is no error."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Remove a file; one that is gone is no error."""

    @abstractmethod
    def write(self, name: str, source: Digesting, size: int, note: str) -> bool:
        """Make a file of what `source` gives, which is there as a whole or not at all.

        :param note: kept with the file, see `note`
        Tells whether the store's own checksum has confirmed the content.
        """

    @abstractmethod
    def note(self, file: LandingFile) -> str | None:
        """The note with which this version of a file was written."""


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


class Bucket(Store):
    """What object stores have in common. `path` of a file is its key."""

    @abstractmethod
    def pages(self, prefix: str, *, deep: bool) -> Iterator[tuple[list[LandingFile], list[str]]]:
        """The objects whose keys begin with `prefix`, and unless `deep` the folders below it, in pages."""

    def key(self, name: str) -> str:
        """The key of an object."""
        return f"{self.place.path}/{name}" if self.place.path else name

    def glob(self, pattern: str, *, without: str | None = None) -> list[LandingFile]:
        wildcard = re.search(r"[*?\[]", pattern)
        begin = pattern[: wildcard.start()] if wildcard else pattern
        deep = "/" in pattern[len(begin) :] or "**" in pattern
        found = []
        # What is left out may be much more than the rest: it is no part of what is asked for.
        apart = deep and "/" not in begin and without is not None
        below: list[str] = []
        for files, folders in self.pages(self.key(begin), deep=deep and not apart):
            found += files
            below += folders
        for folder in below if apart else ():
            if folder != self.key(f"{without}/"):
                for files, _ in self.pages(folder, deep=True):
                    found += files
        matches = matching(pattern)
        # A key with a slash at its end stands for a folder.
        fine = (file for file in found if matches(file.name) and not file.name.endswith("/"))
        return [file for file in fine if file.name.partition("/")[0] != without]

    def names(self, folder: str) -> set[str]:
        prefix = self.key(f"{folder}/" if folder else "")
        return {file.name for files, _ in self.pages(prefix, deep=False) for file in files}

    def file(self, key: str, size: int, tag: str, md5: str | None) -> LandingFile:
        """The file of an object."""
        name = key.removeprefix(f"{self.place.path}/") if self.place.path else key
        return LandingFile(name, size, version(size, tag), None, key, tag, md5)

    @property
    def who(self) -> str:
        """By whom the store is asked, for messages."""
        name = self.place.connection
        return f"the Airflow connection {name!r}" if name else "this machine, as the URI names no connection"

    def no_bucket(self) -> SetupError:
        return SetupError(
            f"{self.place.uri}: there is no bucket {self.place.bucket!r}.\n  Create it, or correct the URI."
        )

    def refused(self, said: object) -> SetupError:
        return SetupError(
            f"{self.place.uri}: the store refuses access ({said}).\n"
            f"  It is asked by {self.who}: correct its credentials, or grant it rights on the bucket."
        )

    def unreachable(self, said: object) -> IngestError:
        return IngestError(
            f"{self.place.uri}: the store does not answer as it should ({said}).\n"
            f"  Try again; it is asked by {self.who}: check its endpoint and region."
        )


class Ranges(io.RawIOBase):
    """The bytes of an object, by requests for ranges; use it behind a buffer of BLOCK bytes.

    :param fetch: gives the bytes from a position up to another one, which is not in it any more
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch, self._size, self._at = fetch, size, 0

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if self._at >= end:
            return 0
        block = self._fetch(self._at, end)
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def matching(pattern: str) -> Callable[[str], object]:
    """Tells whether a name matches a pattern, as a shell would."""
    return re.compile(str(glob_translate(pattern))).match  # type: ignore[no-untyped-call]


def version(*parts: object) -> str:
    """The digest of what makes a version of a file."""
    return hashlib.sha256("-".join(map(str, parts)).encode()).hexdigest()[:16]


def vanished(file: LandingFile) -> FileError:
    return FileError(file.name, "has vanished while it was to be loaded", "Nothing of it is loaded.")


def changed(file: LandingFile) -> FileError:
    return FileError(
        file.name,
        "changed while it was read",
        "Write it under another name and rename it, use a done_marker, or a longer settle.",
    )
