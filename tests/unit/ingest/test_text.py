"""From the bytes of a file to UTF-8."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import random
import zlib
from collections import deque
from io import BytesIO

import pytest

from orrery.ingest import text
from orrery.ingest.errors import FileError
from orrery.ingest.text import Hashing, text_blocks

TEXT = "id,name\n1,Zoë €\n2,北京 😀\n"


def read(content: bytes, name: str = "a.csv", encoding: str = "utf-8") -> bytes:
    return b"".join(text_blocks(name, Hashing(BytesIO(content)), encoding=encoding))


@pytest.fixture(autouse=True, params=[1, 3, 1 << 20])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs with blocks that end anywhere, too."""
    monkeypatch.setattr(text, "BLOCK", request.param)


@pytest.mark.parametrize("content", [b"", b"a", TEXT.encode(), b"\xff\0\xfe", b"\r\n"])
def test_utf_8_passes_through(content: bytes) -> None:
    assert read(content) == content


def test_a_byte_order_mark_is_left_out_once() -> None:
    assert read(codecs.BOM_UTF8 + TEXT.encode()) == TEXT.encode()
    assert read(codecs.BOM_UTF8) == b""
    assert read(b"a" + codecs.BOM_UTF8) == b"a" + codecs.BOM_UTF8


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_undeclared_utf_16(mark: bytes) -> None:
    with pytest.raises(FileError, match=r"^a.csv: is utf-16, not utf-8\n  Set csv: {encoding: utf-16}\.$"):
        read(mark + b"i\0d\0")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig", "gb18030"])
def test_declared_encodings(encoding: str) -> None:
    assert read(TEXT.encode(encoding), encoding=encoding) == TEXT.encode()


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_mark_in_a_declared_encoding_is_left_out(encoding: str) -> None:
    assert read(("\ufeff" + TEXT).encode(encoding), encoding=encoding) == TEXT.encode()


def test_latin_1() -> None:
    assert read("prénom;naïve".encode("latin-1"), encoding="iso8859-1") == "prénom;naïve".encode()


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (b"\xff", "ascii"),
        (b"id\n\x81", "cp1252"),
        (b"\xff\xfei", "utf-16"),
        (b"\xff\xfe\x00\xd8i\0", "utf-16"),
        (b"\xff\xfeabc", "utf-32"),
    ],
)
def test_what_is_not_of_the_encoding(content: bytes, encoding: str) -> None:
    expected = rf"^a.csv: is not {encoding}: .*\n  Set csv: encoding, or land it again\.$"
    with pytest.raises(FileError, match=expected):
        read(content, encoding=encoding)


def test_gzip() -> None:
    assert read(gzip.compress(TEXT.encode()), "a.csv.gz") == TEXT.encode()
    assert read(gzip.compress(TEXT.encode("utf-16")), "A.CSV.GZ", "utf-16") == TEXT.encode()


def test_gzip_of_nothing_and_with_many_members() -> None:
    assert read(gzip.compress(b""), "a.gz") == b""
    assert read(gzip.compress(b"a,") + gzip.compress(b"") + gzip.compress(b"b\n"), "a.gz") == b"a,b\n"


def test_gzip_with_padding() -> None:
    assert read(gzip.compress(b"a") + b"\0" * 512, "a.gz") == b"a"


def test_every_truncated_archive_is_an_error() -> None:
    whole = gzip.compress(TEXT.encode())
    for size in range(1, len(whole)):
        with pytest.raises(FileError, match=r"^a.csv.gz: (the gzip archive ends too early|is no valid gzip)"):
            read(whole[:size], "a.csv.gz")


@pytest.mark.parametrize("content", [b"id,name\n", b"PK\x03\x04", gzip.compress(b"a", mtime=0) + b"rest"])
def test_what_is_no_archive(content: bytes) -> None:
    with pytest.raises(FileError, match=r"^a.gz: is no valid gzip archive: .*\n  Land it again\.$"):
        read(content, "a.gz")


def test_a_damaged_archive() -> None:
    whole = bytearray(gzip.compress(random.Random(1).randbytes(500)))
    whole[-6] ^= 1
    with pytest.raises(FileError, match=r"is no valid gzip archive: CRC check failed"):
        read(bytes(whole), "a.gz")


@pytest.mark.parametrize("block", [1 << 20], indirect=True)
def test_a_bomb() -> None:
    bomb = zlib.compressobj(9, wbits=31)
    content = b"".join([*(bomb.compress(b"1,a\n" * 250_000) for _ in range(100)), bomb.flush()])
    stream = BytesIO(content)
    with pytest.raises(FileError, match=r"^a.gz: expands to more than 500 times its size\n"):
        deque(text_blocks("a.gz", Hashing(stream), encoding="utf-8"), maxlen=0)
    assert stream.tell() < len(content)


@pytest.mark.parametrize("block", [1 << 20], indirect=True)
def test_a_small_file_that_expands_much_is_no_bomb() -> None:
    assert len(read(gzip.compress(b"1,a\n" * 1_000_000), "a.gz")) == 4_000_000


def test_the_digest_is_that_of_the_bytes_read() -> None:
    content = gzip.compress(TEXT.encode())
    stream = Hashing(BytesIO(content))
    assert b"".join(text_blocks("a.gz", stream, encoding="utf-8")) == TEXT.encode()
    assert (stream.hexdigest, stream.size) == (hashlib.sha256(content).hexdigest(), len(content))
