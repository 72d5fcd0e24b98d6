"""A file that is cut has the records of the whole, wherever it is cut and whatever is in it."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from orrery.config.ingest import Csv, Files
from orrery.ingest import records
from orrery.ingest.cut import Cutter, can_cut, cut
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingZone
from orrery.ingest.records import LINES, Dialect, Quotes, Records
from orrery.ingest.split import MOST_CHUNKS, split

COMMA = Dialect.of(Csv())
BACKSLASH = Dialect.of(Csv(escape="\\"))
Starts = list[tuple[int, int]]


def starts(
    text: bytes, size: int = 1, dialect: Dialect = COMMA, *, header: bool = False, block: int = 7
) -> Starts:
    """Where the parts begin of a text that comes in blocks."""
    cutter = Cutter(Quotes(dialect), size, header=header, longest=records.LONGEST)
    for begin in range(0, len(text), block):
        cutter.feed(text[begin : begin + block])
    return cutter.finish()


def parts(text: bytes, of: Starts) -> list[bytes]:
    """The parts that begin at offsets."""
    ends = [*(offset for offset, _ in of[1:]), len(text)]
    return [text[begin:end] for (begin, _), end in zip(of, ends, strict=True)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1,a\n2,b\n", [b"1,a\n", b"2,b\n"]),
        (b"1,a\r\n2,b", [b"1,a\r\n", b"2,b"]),
        (b"1,a", [b"1,a"]),
        (b"", [b""]),
        (b'1,"a\n\nb"\n2,"c""\n"\n3,d\n', [b'1,"a\n\nb"\n', b'2,"c""\n"\n', b"3,d\n"]),
        (b'1,"a\r\n"\r\n2,b\r\n', [b'1,"a\r\n"\r\n', b"2,b\r\n"]),
        (b"\n1,a\n\n2,b\n", [b"\n", b"1,a\n", b"\n", b"2,b\n"]),
        # Who opens a quote and does not close it has all that follows.
        (b'1,a\n2,"b\n3,c\n4,d\n', [b"1,a\n", b'2,"b\n3,c\n4,d\n']),
        (b'1,5" pipe\n2,b\n3,"c"\n', [b'1,5" pipe\n2,b\n3,"c"\n']),
    ],
)
@pytest.mark.parametrize("block", [1, 2, 5, 1000])
def test_parts_hold_whole_records(text: bytes, expected: list[bytes], block: int) -> None:
    found = starts(text, block=block)
    assert parts(text, found) == expected
    assert [line for _, line in found] == [1 + text[:offset].count(b"\n") for offset, _ in found]


def test_parts_are_about_as_long_as_asked_for() -> None:
    text = b"".join(b"%d,aaaa\n" % number for number in range(10_000, 20_000))
    for size in (1, 11, 12, 13, 1000, 50_000, 10**6):
        lengths = [len(part) for part in parts(text, starts(text, size, block=4096))]
        assert all(size <= length < size + 11 for length in lengths[:-1])
        assert sum(lengths) == len(text)


def test_an_escape_character() -> None:
    text = b'1,"a\\"\n\\\\"\n2,"b\\\n"\n3,C:\\"c\nd"\n'
    assert parts(text, starts(text, dialect=BACKSLASH)) == [
        b'1,"a\\"\n\\\\"\n',
        b'2,"b\\\n"\n',
        b'3,C:\\"c\nd"\n',
    ]


def test_json_lines_have_no_quotes() -> None:
    text = b'{"a": "\\""}\n{"a": "\n{}\n'
    assert parts(text, starts(text, dialect=LINES)) == [b'{"a": "\\""}\n', b'{"a": "\n', b"{}\n"]


@pytest.mark.parametrize("before", [b"", b"\n\r\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n\n"])
@pytest.mark.parametrize("block", [1, 3, 1000])
def test_no_part_begins_before_the_header_ends(before: bytes, block: int) -> None:
    text = before + b'"id",name\n1,a\n2,b\n'
    found = starts(text, header=True, block=block)
    assert parts(text, found) == [before + b'"id",name\n1,a\n', b"2,b\n"]
    assert starts(before + b"id,name\n", header=True, block=block) == [(0, 1)]
    assert starts(before + b"id,name", header=True, block=block) == [(0, 1)]
    assert starts(before, header=True, block=block) == [(0, 1)]


def test_behind_a_record_that_is_too_long_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST", 100)
    good = b"1,a\n" * 50
    for damage in (b'2,"' + b"b\n" * 99, b"2," + b"b" * 500, b'2,"' + b"b" * 300 + b'"\n'):
        for block in (10, 64):
            found = starts(good + damage + b'\n"\n' + good, size=20, block=block)
            assert 2 < len(found) <= 11
            assert max(found)[0] <= len(good)


def read(text: bytes, dialect: Dialect, first_line: int = 1) -> tuple[list[bytes], int]:
    """The copied records without their numbers, and how many there are."""
    reader = Records("a.csv", dialect, 2, first_line=first_line)
    blocks = (text[begin : begin + 50] for begin in range(0, len(text), 50))
    copied = b"".join(reader.copy_blocks(blocks))
    delimiter = dialect.delimiter.encode()
    numbered, number = copied, 1
    found = []
    while number <= reader.rows:
        mark, following = b"%d" % number + delimiter, b"\n%d" % (number + 1) + delimiter
        assert numbered.startswith(mark)
        end = numbered.find(following) + 1 if number < reader.rows else len(numbered)
        found.append(numbered[len(mark) : end])
        numbered, number = numbered[end:], number + 1
    return found, reader.rows


@pytest.mark.parametrize("dialect", [COMMA, BACKSLASH, LINES], ids=["comma", "backslash", "lines"])
@pytest.mark.parametrize("longest", [60, 1 << 20])
def test_random_text_has_the_same_records(
    dialect: Dialect, longest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "LONGEST", longest)
    chance, several = random.Random(longest), 0
    for _ in range(400):
        often = chance.choice([0.2, 1, 3])
        letters = 'xy,"\\\n\r\x00é'
        text = "".join(chance.choices(letters, (6, 6, 3, often, often, 3, 0.3, 0.05, 0.3), k=400)).encode()
        try:
            whole = read(text, dialect)
        except FileError:
            continue
        found = starts(text, chance.choice([1, 20, 100]), dialect, block=chance.choice([1, 16, 33, 1000]))
        cut_up: list[bytes] = []
        for part, (_, line) in zip(parts(text, found), found, strict=True):
            cut_up += read(part, dialect, line)[0]
        assert cut_up == whole[0]
        several += len(found) > 3
    assert several > 150


@pytest.mark.parametrize(
    ("name", "block", "expected"),
    [
        ("a.csv", {}, True),
        ("a.jsonl", {"files": "*.jsonl"}, True),
        ("a.csv.gz", {"files": "*.csv.gz"}, False),
        ("A.CSV.GZ", {}, False),
        ("a.parquet", {"files": "*.parquet"}, False),
        *(("a.csv", {"csv": {"encoding": name}}, True) for name in ("latin-1", "cp1252", "koi8-r", "ascii")),
        *(
            ("a.csv", {"csv": {"encoding": name}}, False)
            for name in (
                "utf-16",
                "utf-16-le",
                "utf-32",
                "utf-7",
                "shift_jis",
                "gb18030",
                "cp037",
                "iso2022_jp",
            )
        ),
    ],
)
def test_what_can_be_cut(name: str, block: dict[str, object], expected: bool) -> None:
    assert can_cut(name, Files.model_validate({"files": "*.csv", **block})) is expected


def test_a_file_in_a_zone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("id;näme\n1;é\n2;'\n'\n".encode("latin-1"))
    spec = Files(files="*.csv", csv=Csv(delimiter=";", quote="'", encoding="latin-1"))
    zone = LandingZone(f"file://{tmp_path}")
    (file,) = zone.find("*.csv")
    found, digest = cut(zone, file, spec, 1)
    assert found == [(0, 1), (12, 3)]
    assert len(digest) == 64
    path.write_bytes(b"id\n")
    with pytest.raises(FileError, match="changed while it was read"):
        cut(zone, file, spec, 1)


def test_which_files_are_split(tmp_path: Path) -> None:
    zone = LandingZone(f"file://{tmp_path}")
    for name, size in {"b.csv": 4000, "c.csv": 1000, "d.csv.gz": 5000, "a.csv": 1001}.items():
        (tmp_path / name).write_bytes(b"123456789\n" * (size // 10) + b"1" * (size % 10))
    spec = Files(files="*", format="csv", chunk_size=1000, settle=timedelta(0))
    chunks = [*split(zone, zone.find("*"), spec)]
    assert [(chunk.file, chunk.number, chunk.of) for chunk in chunks] == [
        ("a.csv", 1, 2),
        ("a.csv", 2, 2),
        *(("b.csv", number, 4) for number in (1, 2, 3, 4)),
        ("d.csv.gz", 1, 1),
    ]
    assert [(chunk.start, chunk.end, chunk.line) for chunk in chunks[:2]] == [(0, 510, 1), (510, 1001, 52)]
    # One that has vanished is left to who loads it.
    files = zone.find("*")
    (tmp_path / "b.csv").unlink()
    assert {chunk.file for chunk in split(zone, files, spec)} == {"a.csv", "d.csv.gz"}


def test_more_files_than_chunks(tmp_path: Path) -> None:
    zone = LandingZone(f"file://{tmp_path}")
    for number in range(MOST_CHUNKS + 10):
        (tmp_path / f"{number:04}.csv").write_bytes(b"1\n2\n3\n")
    chunks = [*split(zone, zone.find("*"), Files(files="*.csv", chunk_size=3))]
    assert [chunk.file for chunk in chunks] == [f"{number:04}.csv" for number in range(MOST_CHUNKS)]
