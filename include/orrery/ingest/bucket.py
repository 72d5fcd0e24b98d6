"""What object stores have in common: listings by pattern, reading by ranges, and their errors."""

from __future__ import annotations

import io
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from orrery.config.stores import matching, without_wildcards
from orrery.ingest.errors import FileError, IngestError, SetupError
from orrery.ingest.stores import LandingFile, Store, version

# In S3 and in Google Cloud Storage alike.
_LONGEST_KEY = 1024


class Bucket(Store):
    """The objects below a prefix of a bucket. `path` of a file is its key."""

    @abstractmethod
    def pages(self, prefix: str, *, deep: bool) -> Iterator[tuple[list[LandingFile], list[str]]]:
        """The objects whose keys begin with `prefix`, and unless `deep` the folders below it, in pages."""

    def key(self, name: str) -> str:
        """The key of an object."""
        return f"{self.place.path}/{name}" if self.place.path else name

    def glob(self, pattern: str, *, without: str | None = None) -> list[LandingFile]:
        begin = without_wildcards(pattern)
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

    def check_move(self, file: LandingFile, name: str | None) -> None:
        if name is not None and len(self.key(name).encode()) > _LONGEST_KEY:
            raise FileError(
                file.name,
                f"the name is too long to be archived: a key has at most {_LONGEST_KEY:,} bytes",
                "Land it under a shorter name, or set after_load: keep or delete; nothing of it is loaded.",
            )

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
