"""Text becomes records with numbers and lines, however it is cut, and bad ones do no harm to the others."""

from __future__ import annotations

import csv
import random
import time
from collections.abc import Iterable, Iterator
from io import StringIO

import pytest

from orrery.config.ingest import Csv
from orrery.ingest import records
from orrery.ingest.errors import FileError
from orrery.ingest.records import LINES, Dialect, Records, read_header
from orrery.ingest.target import POSTGRESQL

COMMA = Dialect.of(Csv())
BACKSLASH = Dialect.of(Csv(escape="\\"))
UNCLOSED = "opens a quote that is never closed"
Record = tuple[int, int, str, *tuple[str, ...]]


def parse(text: bytes | Iterable[bytes], fields: int = 2, dialect: Dialect = COMMA) -> list[Record]:
    """Row, line, reason and fields of the records, of a bad one only its text."""
    blocks = [text] if isinstance(text, bytes) else text
    reader = Records("a.csv", dialect, fields, first_line=1)
    copied = b"".join(reader.copy_blocks(iter(blocks))).decode()
    same = dialect.quote == dialect.escape
    rows = csv.reader(
        StringIO(copied, newline=""),
        delimiter=dialect.delimiter,
        quotechar=dialect.quote,
        doublequote=same,
        escapechar=None if same else dialect.escape,
    )
    found = [(int(row), int(line), reason, *values) for row, line, reason, *values in rows]
    assert [row for row, *_ in found] == [*range(1, reader.rows + 1)]
    assert all(len(record) == 3 + fields for record in found)
    return [record[:4] if record[2] else record for record in found]


def cut(text: bytes, size: int) -> Iterator[bytes]:
    return (text[at : at + size] for at in range(0, len(text), size))


def header(text: bytes | Iterable[bytes], dialect: Dialect = COMMA) -> tuple[list[str], bytes, int]:
    blocks = [text] if isinstance(text, bytes) else text
    names, rest, line = read_header("a.csv", iter(blocks), dialect, limits=POSTGRESQL)
    return names, b"".join(rest), line


def test_rows_and_lines_are_counted_from_one() -> None:
    assert parse(b"1,a\n2,b\n") == [(1, 1, "", "1", "a"), (2, 2, "", "2", "b")]


def test_the_last_line_needs_no_end() -> None:
    assert parse(b"1,a\n2,b") == parse(b"1,a\n2,b\n")


def test_a_quoted_field_may_hold_lines_which_count() -> None:
    assert parse(b'1,"a\nb\n\nc"\n2,d\n') == [(1, 1, "", "1", "a\nb\n\nc"), (2, 5, "", "2", "d")]


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n", b"\n\r\n\n"])
def test_blank_lines_are_no_records(text: bytes) -> None:
    assert parse(text) == []


def test_blank_lines_count_as_lines() -> None:
    assert parse(b"\n1,a\n\n\r\n2,b\n\n") == [(1, 2, "", "1", "a"), (2, 5, "", "2", "b")]


def test_line_ends_may_be_mixed() -> None:
    expected = [(1, 1, "", "1", "a"), (2, 2, "", "2", 'b"'), (3, 3, "", "3", "c")]
    assert parse(b'1,a\r\n2,"b"""\n3,c\r\n') == expected
    assert parse(b'1,a\n2,"b"""\r\n3,c\r') == expected


def test_carriage_returns_stay_in_quotes() -> None:
    assert parse(b'1,"a\r\nb"\r\n2,"c\rd"\r\n') == [(1, 1, "", "1", "a\r\nb"), (2, 3, "", "2", "c\rd")]


def test_carriage_returns_alone_end_no_line() -> None:
    ((row, line, reason, text),) = parse(b"1,a\r2,b\r")
    assert (row, line, reason, text) == (1, 1, "holds a carriage return outside of quotes", "1,a\r2,b")


@pytest.mark.parametrize(
    ("line", "reason", "shown"),
    [
        (b"1", "has 1 fields instead of 2", "1"),
        (b"1,a,b", "has 3 fields instead of 2", "1,a,b"),
        (b'1,"a","b,c"', "has 3 fields instead of 2", '1,"a","b,c"'),
        (b"1,a\0b", "holds a NUL byte", "1,a\\x00b"),
        (b'1,"a\0b"', "holds a NUL byte", '1,"a\\x00b"'),
        (b"1,\xff\xfe", "is not valid UTF-8", "1,\\xff\\xfe"),
        (b"1,\xed\xa0\x80", "is not valid UTF-8", "1,\\xed\\xa0\\x80"),
        (b'1,"a', UNCLOSED, '1,"a'),
        (b'1,a"', UNCLOSED, '1,a"'),
    ],
)
def test_a_bad_line_is_the_only_one_rejected(line: bytes, reason: str, shown: str) -> None:
    assert parse(b"0,x\n" + line + b"\n2,b\n3,c\n") == [
        (1, 1, "", "0", "x"),
        (2, 2, reason, shown),
        (3, 3, "", "2", "b"),
        (4, 4, "", "3", "c"),
    ]


def test_an_unclosed_quote_at_the_end_rejects_one_line() -> None:
    assert parse(b'1,a\n2,"b') == [(1, 1, "", "1", "a"), (2, 2, UNCLOSED, '2,"b')]


def test_what_follows_an_unclosed_quote_may_be_bad_and_blank() -> None:
    assert parse(b'1,"a\n\n2\n"3","b"\r\n') == [
        (1, 1, UNCLOSED, '1,"a'),
        (2, 3, "has 1 fields instead of 2", "2"),
        (3, 4, "", "3", "b"),
    ]


def test_a_bad_record_of_many_lines_is_one() -> None:
    assert parse(b'1,"a\nb",c\n2,d\n') == [
        (1, 1, "has 3 fields instead of 2", '1,"a\nb",c'),
        (2, 3, "", "2", "d"),
    ]


def test_one_field_is_a_record() -> None:
    assert parse(b'a\n"b\nc"\n\n\\.\n', fields=1) == [
        (1, 1, "", "a"),
        (2, 2, "", "b\nc"),
        (3, 5, "", "\\."),
    ]


def test_an_escape_protects_a_quote_inside_of_quotes() -> None:
    text = b'1,"a \\" b"\n2,"c \\\\"\n3,"d \\" \n e"\n'
    assert parse(text, dialect=BACKSLASH) == [
        (1, 1, "", "1", 'a " b'),
        (2, 2, "", "2", "c \\"),
        (3, 3, "", "3", 'd " \n e'),
    ]


def test_an_escape_means_nothing_outside_of_quotes() -> None:
    # COPY ends the field that the quote begins; what stands before it is a backslash.
    reader = Records("a.csv", BACKSLASH, 2, first_line=1)
    copied = b"".join(reader.copy_blocks(iter([b'1,C:\\"x"\n2,b\n'])))
    assert copied == b'1,1,,1,C:\\"x"\n2,2,,2,b\n'


def test_an_escape_at_the_end_of_a_line_protects_nothing() -> None:
    reader = Records("a.csv", BACKSLASH, 2, first_line=1)
    assert b"".join(reader.copy_blocks(iter([b'1,"a\\\n"\n2,b\n']))) == b'1,1,,1,"a\\\n"\n2,3,,2,b\n'


def test_unclosed_quotes_with_escapes_are_found_in_one_pass() -> None:
    # None of these lines closes what one before it has opened, but each opens a quote of its own.
    lines = 20_000
    found = parse(b'a\\"b\n' * lines, dialect=BACKSLASH, fields=1)
    assert [record[1:3] for record in found] == [(line, UNCLOSED) for line in range(1, lines + 1)]


def test_json_lines_never_open_quotes() -> None:
    found = parse(b'{"a":\x1e1}\n{"b":1}\n{"c":\x1e1}\n{"d":\x1f1}\n', fields=1, dialect=LINES)
    assert [record[1:3] for record in found] == [
        (1, "holds a control character"),
        (2, ""),
        (3, "holds a control character"),
        (4, "holds a control character"),
    ]


TRICKY = (
    b'1,a\r\n2,"b\r\n""c"""\r\n\n3,\xc3\xa9\n4,"d,\n\n"\n5\n6,\xff\n'
    b'"7","\xe2\x82\xac"\r\n8,\0\n9,"e"f"g"\n10,"h\n11,i\n'
)


@pytest.mark.parametrize("size", range(1, len(TRICKY) + 1))
def test_where_the_text_is_cut_makes_no_difference(size: int) -> None:
    assert parse(cut(TRICKY, size)) == parse(TRICKY)


def test_random_text_is_the_same_however_it_is_cut() -> None:
    chance = random.Random(1)
    for dialect in (COMMA, BACKSLASH):
        for _ in range(300):
            text = bytes(chance.choices(b'ab,"\\\r\n\0\xff', (5, 5, 4, 3, 2, 1, 4, 0.1, 0.1), k=60))

            def copied(size: int, text: bytes = text, dialect: Dialect = dialect) -> bytes:
                reader = Records("a.csv", dialect, 2, first_line=1)
                return b"".join(reader.copy_blocks(cut(text, size)))

            assert {copied(size) for size in (1, 2, 3, 7, 60)} == {copied(61)}


def test_files_after_rfc_4180_are_read_as_python_reads_them() -> None:
    chance = random.Random(2)
    alphabet = ["a", "b", " ", ",", '"', "\n", "\r\n", "\r", "é", "€", "\\", "\\.", ""]
    for _ in range(200):
        rows = [["".join(chance.choices(alphabet, k=5)) for _ in range(3)] for _ in range(8)]
        out = StringIO(newline="")
        # Without CRLF the writer would leave a lone carriage return unquoted, which the RFC does not.
        style = chance.choice([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)])
        csv.writer(out, lineterminator=style[0], quoting=style[1]).writerows(rows)
        found = parse(out.getvalue().encode(), fields=3)
        assert [[*record[3:]] for record in found] == rows


def test_lines_of_records_are_those_of_the_file() -> None:
    text = 'x,1\n"a\nb",2\n\n"c\r\n\r\nd",3\ny,4\n'
    for _, line, _, value, number in parse(text.encode()):
        assert text.split("\n")[line - 1].startswith((f'"{value[0]}', value[0])), number


def test_a_line_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST", 100)
    with pytest.raises(FileError, match=r"^a.csv:2: a line is longer than 0 MB\n  Check line ends\.$"):
        parse(cut(b"1,a\n2," + b"b" * 200, 10))


def test_the_line_of_an_endless_one_counts_those_of_the_open_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST", 100)
    with pytest.raises(FileError, match=r"^a.csv:4: "):
        parse(cut(b'1,a\n2,"b\nc\n' + b"d" * 200, 10))


def test_a_quote_that_stays_open_for_long_rejects_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "LONGEST", 100)
    found = parse(cut(b'1,"a\n' + b"2,b\n" * 100, 10))
    assert found[0] == (1, 1, UNCLOSED, '1,"a')
    assert found[1:] == [(number, number, "", "2", "b") for number in range(2, 102)]


def test_a_header() -> None:
    assert header(b"id,name\n1,a\n") == (["id", "name"], b"1,a\n", 2)
    assert header(b"id") == (["id"], b"", 2)


def test_a_header_may_be_quoted_and_padded() -> None:
    assert header(b'"id", "a ""b"",c" ,d\r\n1,2,3') == (["id", 'a "b",c', "d"], b"1,2,3", 2)
    assert header(b'"a\\"b";"c\\\\"\n', Dialect(";", '"', "\\"))[0] == ['a"b', "c\\"]


def test_a_header_may_name_a_column_twice() -> None:
    # Which is for those to judge who know the table.
    assert header(b"a,a,\n")[0] == ["a", "a", ""]


def test_blank_lines_before_a_header_count() -> None:
    assert header(b"\n\r\n\nid,name\n1,a\n") == (["id", "name"], b"1,a\n", 5)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_a_header_is_the_same_however_it_is_cut(size: int) -> None:
    text = b'\r\n\n"id",n\xc3\xa4me\r\n1,a\n2,b\n'
    assert header(cut(text, size)) == header(text)


@pytest.mark.parametrize("text", [b"", b"\n", b"\r\n\n"])
def test_no_header(text: bytes) -> None:
    with pytest.raises(
        FileError, match=r"^a.csv: the file is empty\n  Land a file with at least a header\.$"
    ):
        header(text)


@pytest.mark.parametrize(
    "text", [b'id,"name\n1,a\n', b"id,name\r1,a\r2,b\r", b"\0id\0,\0a\n", b'id,"a\nb"\n']
)
def test_what_is_no_header(text: bytes) -> None:
    with pytest.raises(FileError, match=r"^a.csv:3: the header is no record of one line\n  Check quotes"):
        header(b"\n\n" + text)


def test_a_header_in_another_encoding() -> None:
    with pytest.raises(FileError, match=r"^a.csv:1: the header is not valid UTF-8\n  Set csv: encoding\.$"):
        header("prénom,name\n".encode("latin-1"))


def test_a_header_with_more_columns_than_there_can_be_is_refused_at_once() -> None:
    """Before anything is made of a million of names; those that fit are not in doubt."""
    names = [f"c{number}" for number in range(POSTGRESQL.columns)]
    assert header(",".join(names).encode() + b"\n")[0] == names
    began = time.process_time()
    for many in (",".join([*names, "x"]), ",".join(map(str, range(1_000_000)))):
        with pytest.raises(
            FileError, match=r"^a\.csv:1: has more than 1,597 columns, and PostgreSQL takes no"
        ):
            header(many.encode() + b"\n1\n")
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("line", "deep"),
    [
        (b"[" * 500 + b"]" * 500, False),
        (b"[" * 501 + b"]" * 501, True),
        (b'{"a":' * 501 + b"1" + b"}" * 501, True),
        (b"[" + b"[]," * 1000 + b"[]]", False),
        # What stands in a text is no level, also behind an escaped quote.
        (b'{"a": "' + b"[" * 5000 + b'\\"' + b"{" * 5000 + b'"}', False),
        # A text that is not closed is no JSON anyway.
        (b'{"a": "' + b"[" * 5000, False),
        (b"[" * 1_000_000, True),
    ],
)
def test_json_that_is_nested_too_deeply_is_a_bad_row(line: bytes, deep: bool) -> None:
    records = Records("a.jsonl", LINES, 1, first_line=1)
    text = b"".join(records.copy_blocks(iter([b"{}\n" + line + b"\n{}\n"])))
    reason = b"is nested more than 500 levels deep"
    assert (reason in text) == deep
    assert records.rows == 3
