"""From the bytes of a file to lines of UTF-8: decompression, decoding, byte order marks."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import zlib
from collections.abc import Iterator
from typing import IO, cast

from orrery.ingest.errors import FileError

BLOCK = 1 << 20
# More than any text that somebody means: gzip cannot do better than 1,032.
MOST_EXPANSION = 500
EXPANSION_FROM = 64 << 20


class Hashing:
    """A binary stream that digests what is read from it."""

    def __init__(self, stream: IO[bytes] | Part) -> None:
        self._stream = stream
        self._digest = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        self._digest.update(block)
        self.size += len(block)
        return block

    @property
    def hexdigest(self) -> str:
        """The digest of what has been read."""
        return self._digest.hexdigest()


class Part:
    """The bytes of a binary stream from `start` up to `end`."""

    def __init__(self, stream: IO[bytes], start: int, end: int) -> None:
        stream.seek(start)
        self._stream, self._left = stream, end - start

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(block)
        return block


def text_blocks(name: str, stream: Hashing, *, encoding: str, from_start: bool = True) -> Iterator[bytes]:
    """The text of a file in UTF-8, in blocks; what is not valid UTF-8 passes through.

    :param name: the file's name, after whose ending it is decompressed
    :param from_start: whether a byte order mark may stand first
    Raises FileError for a damaged or suspicious archive, and for what is not of the encoding.
    """
    raw = _unzipped(name, stream) if name.lower().endswith(".gz") else _plain(stream)
    if encoding == "utf-8":
        return _without_mark(name, raw) if from_start else raw
    return _decoded(name, raw, encoding)


def _plain(stream: Hashing) -> Iterator[bytes]:
    while block := stream.read(BLOCK):
        yield block


def _unzipped(name: str, stream: Hashing) -> Iterator[bytes]:
    expanded = 0
    unzip = gzip.GzipFile(fileobj=cast("IO[bytes]", stream), mode="rb")
    try:
        while block := unzip.read(BLOCK):
            expanded += len(block)
            if expanded > EXPANSION_FROM and expanded > MOST_EXPANSION * stream.size:
                raise FileError(
                    name, f"expands to more than {MOST_EXPANSION} times its size", "Land it uncompressed."
                )
            yield block
    except EOFError:
        raise FileError(name, "the gzip archive ends too early", "Land the whole file.") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FileError(name, f"is no valid gzip archive: {error}", "Land it again.") from None


def _without_mark(name: str, raw: Iterator[bytes]) -> Iterator[bytes]:
    first = next(raw, b"")
    while 0 < len(first) < 4 and (more := next(raw, b"")):
        first += more
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise FileError(name, "is utf-16, not utf-8", "Set csv: {encoding: utf-16}.")
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from raw


def _decoded(name: str, raw: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    first = True
    try:
        for block in raw:
            text = decoder.decode(block)
            yield (text.removeprefix("\ufeff") if first else text).encode("utf-8", "surrogatepass")
            first = first and not text
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        raise FileError(name, f"is not {encoding}: {error}", "Set csv: encoding, or land it again.") from None
