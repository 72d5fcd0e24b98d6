"""Files that nobody should land, and what becomes of each."""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import pyarrow as pa
from pyarrow import parquet

PAIR = {"id": "integer", "name": "text"}
KEYED = {"key": ["id"]}
UNCLOSED = "opens a quote that is never closed"
LARGE = "x" * (1 << 20)
MANY_LINES = "line\r\n" * 300_000


@dataclass(frozen=True)
class Case:
    """A file with either the rows and the rejected lines that come of it, or the error's beginning."""

    name: str
    content: str | bytes
    rows: Sequence[tuple[Any, ...]] = ()
    rejected: Sequence[tuple[int, str]] = ()
    error: str | None = None
    file: str = "a.csv"
    block: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=lambda: PAIR)
    table: str = ""  # the SQL for a table that is there already, with the rows in `before`
    before: Sequence[tuple[Any, ...]] = ()


def bomb() -> bytes:
    """100 MB of rows in 0.2 MB."""
    pack = zlib.compressobj(9, wbits=31)
    return b"".join([*(pack.compress((b"1," + b"a" * 997 + b"\n") * 1000) for _ in range(100)), pack.flush()])


def parquet_file(options: Mapping[str, Any] | None = None, **columns: Any) -> bytes:
    """A Parquet file, written with options of Arrow."""
    out = BytesIO()
    parquet.write_table(pa.table(columns), out, **(options or {}))
    return out.getvalue()


def csv_of(kind: str, *values: str, **more: Any) -> dict[str, Any]:
    """A file with the columns id and v of a type."""
    lines = (f"{number},{value}\n" for number, value in enumerate(values, start=1))
    return {"content": "id,v\n" + "".join(lines), "columns": {"id": "integer", "v": kind}, **more}


def invalid(kind: str, value: str) -> str:
    """What PostgreSQL says of a value."""
    return f'v: invalid input syntax for type {kind}: "{value}"'


ENCODINGS = [
    Case("byte order mark", codecs.BOM_UTF8 + "id,name\n1,Zoë\n".encode(), [(1, "Zoë")]),
    Case("byte order mark before a quote", codecs.BOM_UTF8 + b'"id","name"\n1,a\n', [(1, "a")]),
    Case(
        "latin-1, declared",
        "id,name\n1,Zoë\n".encode("latin-1"),
        [(1, "Zoë")],
        block={"csv": {"encoding": "latin-1"}},
    ),
    Case(
        "latin-1, undeclared",
        "id,name\n1,Zoë\n2,a\n".encode("latin-1"),
        [(2, "a")],
        [(2, "is not valid UTF-8")],
    ),
    Case(
        "latin-1 in the header, undeclared",
        "id,näme\n1,a\n".encode("latin-1"),
        error="a.csv:1: the header is not valid UTF-8\n  Set csv: encoding.",
    ),
    Case(
        "utf-16, declared",
        "id,name\n1,北京\n".encode("utf-16"),
        [(1, "北京")],
        block={"csv": {"encoding": "utf-16"}},
    ),
    Case(
        "utf-16, undeclared",
        "id,name\n1,a\n".encode("utf-16"),
        error="a.csv: is utf-16, not utf-8\n  Set csv: {encoding: utf-16}.",
    ),
    Case(
        "utf-16 without a mark, undeclared",
        "id,name\n1,a\n".encode("utf-16-le"),
        error="a.csv:1: the header is no record of one line\n  Check quotes and line ends.",
    ),
    Case(
        "not of the declared encoding",
        b"id,name\n1,\x81\n",
        error="a.csv: is not cp1252: ",
        block={"csv": {"encoding": "cp1252"}},
    ),
    Case(
        "NUL bytes",
        b"id,name\n1,a\0b\n2,c\n\0\n",
        [(2, "c")],
        [(2, "holds a NUL byte"), (4, "holds a NUL byte")],
    ),
]
LINES = [
    Case("CRLF", "id,name\r\n1,a\r\n2,b\r\n", [(1, "a"), (2, "b")]),
    Case("mixed line ends", 'id,name\n1,a\r\n2,"b"\n3,c\r\n', [(1, "a"), (2, "b"), (3, "c")]),
    Case(
        "carriage returns only",
        "id,name\r1,a\r2,b\r",
        error="a.csv:1: the header is no record of one line\n  Check quotes and line ends.",
    ),
    Case(
        "carriage returns behind the header",
        "id,name\n1,a\r2,b\r",
        rejected=[(2, "holds a carriage return outside of quotes")],
    ),
    Case("quoted newlines", 'id,name\n1,"a\n\nb"\n2,"\n"\n', [(1, "a\n\nb"), (2, "\n")]),
    Case("quoted CRLF", 'id,name\r\n1,"a\r\nb"\r\n2,c\r\n', [(1, "a\r\nb"), (2, "c")]),
    Case(
        "quoted CRLF over megabytes",
        f'id,name\r\n1,"{MANY_LINES}"\r\n2,c\r\n',
        [(1, MANY_LINES), (2, "c")],
    ),
    Case("an unclosed quote", 'id,name\n1,"a\n2,b\n3,c', [(2, "b"), (3, "c")], [(2, UNCLOSED)]),
    Case("a stray quote", 'id,name\n1,5" pipe\n2,"b"\n', [(2, "b")], [(2, UNCLOSED)]),
    Case(
        "ragged rows",
        "id,name\n1\n2,b\n3,c,d\n,,,\n",
        [(2, "b")],
        [
            (2, "has 1 fields instead of 2"),
            (4, "has 3 fields instead of 2"),
            (5, "has 4 fields instead of 2"),
        ],
    ),
    Case("a large field", f'id,name\n1,{LARGE}\n2,"{LARGE}"\n', [(1, LARGE), (2, LARGE)]),
    Case(
        "a line that never ends",
        b"id,name\n1,a\n2," + b"b" * (18 << 20),
        error="a.csv:3: a line is longer than 16 MB\n  Check line ends.",
    ),
    Case("header only", "id,name\n"),
    Case("header only, without end", "id,name"),
    Case("an empty file", "", error="a.csv: the file is empty\n  Land a file with at least a header."),
    Case("nothing but lines", "\n\r\n\n", error="a.csv: the file is empty\n"),
    Case("blank lines", "\n\nid,name\n\n1,a\n\r\n\n2,b\n\n", [(1, "a"), (2, "b")]),
    Case(
        "backslash and point",
        "id,name\n1,\\.\n\\.\n2,b\n",
        [(1, "\\."), (2, "b")],
        [(3, "has 1 fields instead of 2")],
    ),
    Case(
        "backslash and point in quotes", 'id,name\n1,"a\n\\.\nb"\n2,"\\."\n', [(1, "a\n\\.\nb"), (2, "\\.")]
    ),
    Case("backslash and point alone", "name\n\\.\na\n", [("\\.",), ("a",)], columns={"name": "text"}),
    Case(
        "tabs",
        'id\tname\n1\ta,b\n2\t"c\td"\n',
        [(1, "a,b"), (2, "c\td")],
        file="a.tsv",
        block={"files": "*.tsv"},
    ),
    Case(
        "backslash escapes",
        'id,name\n1,"a \\" b"\n2,C:\\dir\\\n3,"c\\\\"\n4,"\\n"\n',
        [(1, 'a " b'), (2, "C:\\dir\\"), (3, "c\\"), (4, "\\n")],
        block={"csv": {"escape": "\\"}},
    ),
    Case(
        "a backslash before a quoted part",
        'id,name\n1,C:\\"a\nb"\n2,c\n',
        [(1, "C:\\a\nb"), (2, "c")],
        block={"csv": {"escape": "\\"}},
    ),
    Case(
        "other quotes",
        "id;name\n1;'a;\"b'\n2;'c''d'\n",
        [(1, 'a;"b'), (2, "c'd")],
        block={"csv": {"delimiter": ";", "quote": "'"}},
    ),
]
HEADERS = [
    Case(
        "a column twice",
        "id,name,id\n1,a,2\n",
        error="a.csv:1: has the column 'id' twice\n  Land it with different names.",
    ),
    Case("a column twice in two cases", "id,name,ID\n1,a,2\n", error="a.csv:1: has the column 'id' twice\n"),
    Case("a header in another case", "Id,NAME\n1,a\n", [(1, "a")]),
    Case("a padded header", ' id , "name"\n1,a\n', [(1, "a")]),
    Case("columns in another order", "name,id\na,1\n", [(1, "a")]),
    Case(
        "a new column",
        "id,name,extra\n1,a,b\n",
        error="a.csv:1: has a column that the source does not: 'extra'\n"
        "  Declare it in the source, or set on_new_column: add or ignore.",
    ),
    Case("a new column to add", "id,extra,name\n1,b,a\n", [(1, "a", "b")], block={"on_new_column": "add"}),
    Case("a new column to ignore", "id,extra,name\n1,b,a\n", [(1, "a")], block={"on_new_column": "ignore"}),
    Case(
        "a missing column",
        "id\n1\n",
        error="a.csv:1: has no column 'name'\n  Land it with all declared columns.",
    ),
    Case(
        "SQL in the header",
        'id,name,"x"" text); drop table events; --"\n1,a,b\n',
        [(1, "a", "b")],
        block={"on_new_column": "add"},
    ),
    Case(
        "per cent and braces",
        'id,name,%s {} {0} %(a)s\n1,%s {},"%%\\{0}"\nx,%s {},b\n',
        [(1, "%s {}", "%%\\{0}")],
        [(3, 'id: invalid input syntax for type integer: "x"')],
        block={"on_new_column": "add"},
    ),
    Case(
        "a header of 64 bytes",
        f"id,name,{'é' * 32}\n1,a,b\n",
        error=f"a.csv: the column name '{'é' * 32}' is too long.\n  PostgreSQL allows 63 bytes.",
        block={"on_new_column": "add"},
    ),
    Case(
        "a header of 63 bytes",
        f"id,name,{'x' * 63}\n1,a,b\n",
        [(1, "a", "b")],
        block={"on_new_column": "add"},
    ),
    Case(
        "a reserved header",
        "id,name,_loaded_at\n1,a,2026-01-01\n",
        error="a.csv: the column name '_loaded_at' is reserved.\n  Call the column otherwise.",
        block={"on_new_column": "add"},
    ),
    Case(
        "a reserved header to ignore",
        "id,name,_source_id\n1,a,b\n",
        [(1, "a")],
        block={"on_new_column": "ignore"},
    ),
    Case(
        "a column without a name",
        "id,name,\n1,a,\n",
        error="a.csv: a column has no name.\n  Name it.",
        block={"on_new_column": "add"},
    ),
    Case(
        "more columns than PostgreSQL has",
        "id,name," + ",".join(f"c{number}" for number in range(1700)) + "\n",
        error="a.csv:1: has more than 1,597 columns, and PostgreSQL takes no more\n",
        block={"on_new_column": "ignore"},
    ),
    Case("no header", "1,a\n2,b\n", [(1, "a"), (2, "b")], block={"csv": {"header": False}}),
    Case(
        "no header, no columns",
        "1,a\n",
        error="a.csv: has no header, and the source has no columns\n  Declare its columns.",
        block={"csv": {"header": False}},
        columns={},
    ),
    Case("no header, empty", "", block={"csv": {"header": False}}),
]
KEYS = [
    Case(
        "a key twice: the last wins",
        "id,name\n1,a\n2,b\n1,c\n1,x\n2,\n",
        [(1, "x"), (2, None)],
        block=KEYED,
    ),
    Case(
        "a key twice, the last of them rejected",
        "id,name,n\n1,a,1\n1,b,x\n",
        [(1, "a", 1)],
        [(3, 'n: invalid input syntax for type integer: "x"')],
        block=KEYED,
        columns={**PAIR, "n": "integer"},
    ),
    Case(
        "keys that are equal but not the same",
        "id,name\n1.0,a\n1.00,b\n",
        [(Decimal("1.00"), "b")],
        block=KEYED,
        columns={"id": "numeric", "name": "text"},
    ),
    Case(
        "an empty key",
        'id,name\n,a\n"",b\n3,c\n',
        [(3, "c")],
        [(2, "id: the key is empty"), (3, "id: the key is empty")],
        block=KEYED,
    ),
    Case(
        "a key too long for an index",
        "id,name\n" + "".join(f"{number}" for number in range(20_000)) + ",a\n",
        error="a.csv: PostgreSQL does not take it: index row ",
        block=KEYED,
        columns={"id": "text", "name": "text"},
    ),
    Case(
        "a table without the unique key",
        "id,name\n1,new\n2,b\n",
        [(1, "new"), (2, "b")],
        block=KEYED,
        table="create table events (id integer, name text)",
        before=[(1, "old")],
    ),
    Case(
        "an index that is no key",
        "id,name\n1,new\n2,b\n",
        [(1, "new"), (2, "b")],
        block=KEYED,
        table="create table events (id integer, name text);"
        " create unique index on events (id, (name || 'x'))",
    ),
    Case(
        "a table whose key is not unique",
        "id,name\n1,a\n",
        error="source trial.events: the key is not unique in the table: could not create unique index",
        block=KEYED,
        table="create table events (id integer, name text)",
        before=[(1, "a"), (1, "b")],
    ),
    Case(
        "a table with columns of its own",
        "id,name\n1,a\n",
        [(1, "a", 7, 2)],
        block=KEYED,
        table="create table events (id integer primary key, name text, own integer default 7,"
        " twice integer generated always as (id * 2) stored)",
    ),
    Case(
        "a table with NOT NULL",
        "id,name\n1,a\n2,\n",
        error='a.csv: PostgreSQL does not take it: null value in column "name" of relation "events" violates'
        " not-null constraint\n  Correct the file or the source; nothing of the file is loaded.",
        table="create table events (id integer, name text not null)",
    ),
    Case(
        "a table with CHECK",
        "id,name\n1,a\n2,b\n",
        error='a.csv: PostgreSQL does not take it: new row for relation "events" violates check constraint',
        table="create table events (id integer check (id < 2), name text)",
    ),
    Case(
        "a table of another type",
        "id,name\n1,a\n",
        error="source trial.events: column 'id' is bigint in the table, but declared as integer.\n"
        "  Alter the table, or drop it: its files are then loaded again.",
        table="create table events (id bigint, name text)",
    ),
    Case(
        "a table without a declared column",
        "id,name\n1,a\n",
        [(1, "a")],
        table="create table events (id integer)",
    ),
]
VALUES = [
    Case("SQL in values", "id,name\n1,'); drop table events; --\n", [(1, "'); drop table events; --")]),
    Case(
        "integers",
        **csv_of("integer", "1", " 2 ", "-3", "x", "1.5", "2147483648", "0x1F", "1e3", "", '""'),
        rows=[(1, 1), (2, 2), (3, -3), (7, 31), (9, None), (10, None)],
        rejected=[
            (5, invalid("integer", "x")),
            (6, invalid("integer", "1.5")),
            (7, 'v: value "2147483648" is out of range for type integer'),
            (9, invalid("integer", "1e3")),
        ],
    ),
    Case(
        "a numeric that overflows",
        **csv_of("numeric(5,2)", "999.994", "999.995", "-1000", "1e400"),
        rows=[(1, Decimal("999.99"))],
        rejected=[(line, "v: numeric field overflow") for line in (3, 4, 5)],
    ),
    Case(
        "dates",
        **csv_of("date", "2026-02-28", "2026-02-29", "28.02.2026", "13/01/2026", "20260228", "x"),
        rows=[(1, date(2026, 2, 28)), (5, date(2026, 2, 28))],
        rejected=[
            (3, 'v: date/time field value out of range: "2026-02-29"'),
            (4, 'v: date/time field value out of range: "28.02.2026"'),
            (5, 'v: date/time field value out of range: "13/01/2026"'),
            (7, invalid("date", "x")),
        ],
    ),
    Case(
        "times",
        **csv_of("timestamp(0)", "2026-01-01T12:00:00.6", "2026-01-01 25:00"),
        rows=[(1, datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC).replace(tzinfo=None))],
        rejected=[(3, 'v: date/time field value out of range: "2026-01-01 25:00"')],
    ),
    Case(
        "booleans",
        **csv_of("boolean", "true", "f", "YES", "0", "2", "ja"),
        rows=[(1, True), (2, False), (3, True), (4, False)],
        rejected=[(6, invalid("boolean", "2")), (7, invalid("boolean", "ja"))],
    ),
    Case(
        "JSON",
        **csv_of("jsonb", '"{""a"": [1, null]}"', "{", '"""\\u0000"""', "null", ""),
        rows=[(1, {"a": [1, None]}), (4, None), (5, None)],
        rejected=[
            (3, "v: invalid input syntax for type json"),
            (4, "v: unsupported Unicode escape sequence"),
        ],
    ),
    Case(
        "a varchar that is too long",
        **csv_of("varchar(3)", "abc", "abcd", "äöü", "abc  "),
        rows=[(1, "abc"), (3, "äöü"), (4, "abc")],
        rejected=[(3, "v: value too long for type character varying(3)")],
    ),
    Case(
        "decimal commas",
        **csv_of(
            "numeric", '"1,5"', '"1.234.567,89"', "1.5", "1.234", '"1,234.5"', "7", '"-1.000,"', '"1,2,3"'
        ),
        block={"csv": {"decimal": ","}},
        rows=[
            (1, Decimal("1.5")),
            (2, Decimal("1234567.89")),
            (4, Decimal(1234)),
            (6, Decimal(7)),
            (7, Decimal(-1000)),
        ],
        rejected=[
            (4, invalid("numeric", "1.5 (with a decimal comma)")),
            (6, invalid("numeric", "1,234.5 (with a decimal comma)")),
            (9, invalid("numeric", "1.2.3")),
        ],
    ),
    Case(
        "thousands without a decimal comma",
        **csv_of("numeric", '"1,234.5"', "1.234"),
        rows=[(2, Decimal("1.234"))],
        rejected=[(2, invalid("numeric", "1,234.5"))],
    ),
    Case(
        "null markers",
        'id,name\n1,NULL\n2,\\N\n3,\n4,null\n5,"NULL"\nNULL,x\n',
        [(1, None), (2, None), (3, None), (4, "null"), (5, None), (None, "x")],
        block={"csv": {"null_values": ["NULL", "\\N"]}},
    ),
    Case("an empty text is no null", 'id,name\n1,""\n2,\n"",a\n', [(1, ""), (2, None), (None, "a")]),
    Case(
        "a long value that does not fit",
        f"id,name\n{'x' * 100_000},a\n",
        error="a.csv:2: 1 of 1 rows are bad, and max_rejected allows 0:\n"
        f'    line 2: id: invalid input syntax for type integer: "{"x" * 240}',
        block={"max_rejected": 0},
    ),
]
ARCHIVES = [
    Case(
        "gzip",
        gzip.compress(b"id,name\n1,a\n") + gzip.compress(b"2,b\n"),
        [(1, "a"), (2, "b")],
        file="a.csv.gz",
        block={"files": "*.gz", "format": "csv"},
    ),
    Case(
        "a truncated archive",
        gzip.compress(b"id,name\n" + b"1,a\n" * 100)[:-9],
        error="a.csv.gz: the gzip archive ends too early\n  Land the whole file.",
        file="a.csv.gz",
        block={"files": "*.csv.gz"},
    ),
    Case(
        "no archive",
        "id,name\n1,a\n",
        error="a.csv.gz: is no valid gzip archive: ",
        file="a.csv.gz",
        block={"files": "*.csv.gz"},
    ),
    Case(
        "a bomb",
        bomb(),
        error="a.csv.gz: expands to more than 500 times its size\n  Land it uncompressed.",
        file="a.csv.gz",
        block={"files": "*.csv.gz", "csv": {"header": False}},
    ),
]
JSONL: dict[str, Any] = {"file": "a.jsonl", "block": {"files": "*.jsonl"}}
JSON_LINES = [
    Case(
        "JSON lines",
        '{"id": 1, "name": "a"}\r\n\r\n{"name": "Zo\\u00eb\\n", "id": "2"}\n{"id": 3}\n{}\n',
        [(1, "a"), (2, "Zoë\n"), (3, None), (None, None)],
        **JSONL,
    ),
    Case(
        "JSON that is no object",
        '[1]\n1\nnull\n"a"\n{"id": 1}\n{"id": 2\n{id: 3}\n{"id": 4} x\n',
        [(1, None)],
        [
            *((line, "is not a JSON object") for line in (1, 2, 3, 4)),
            *((line, "is not valid JSON: invalid input syntax for type json") for line in (6, 7, 8)),
        ],
        **JSONL,
    ),
    Case("a key twice in JSON", '{"id": 1, "id": 2, "name": ""}\n', [(2, "")], **JSONL),
    Case(
        "NUL in JSON",
        b'{"id": 1, "name": "a\\u0000"}\n{"id": 2, "name": "\0"}\n{"id": 3}\n',
        [(3, None)],
        [(1, "is not valid JSON: unsupported Unicode escape sequence"), (2, "holds a NUL byte")],
        **JSONL,
    ),
    Case(
        "nested JSON",
        '{"id": 1, "v": {"a": [1, "x"]}}\n{"id": 2, "v": [null]}\n{"id": 3, "v": "\\"x\\""}\n'
        '{"id": 4, "v": null}\n',
        [(1, {"a": [1, "x"]}), (2, [None]), (3, "x"), (4, None)],
        columns={"id": "integer", "v": "jsonb"},
        **JSONL,
    ),
    Case(
        "JSON values that do not fit",
        '{"id": 1.5}\n{"id": true}\n{"id": [1]}\n{"id": ""}\n{"id": 1e2}\n',
        [(None, None), (100, None)],
        [
            (line, f'id: invalid input syntax for type integer: "{value}"')
            for line, value in ((1, "1.5"), (2, "true"), (3, "[1]"))
        ],
        **JSONL,
    ),
    Case(
        "JSON without the key",
        '{"name": "a"}\n{"name": "b"}\n',
        rejected=[(1, "id: the key is empty"), (2, "id: the key is empty")],
        file="a.jsonl",
        block={"files": "*.jsonl", **KEYED},
    ),
    Case(
        "JSON without a part of the key",
        '{"id": 1}\n{"id": 1}\n',
        rejected=[(1, "name: the key is empty"), (2, "name: the key is empty")],
        file="a.jsonl",
        block={"files": "*.jsonl", "key": ["id", "name"]},
    ),
    Case("JSON lines, empty", "", **JSONL),
    Case(
        "JSON lines, all broken",
        "{\n",
        rejected=[(1, "is not valid JSON: invalid input syntax for type json")],
        **JSONL,
    ),
    Case(
        "control characters in JSON",
        '{"id": 1}\x1e\n{"id": 2}\n{"id": 3\x1f}\n{"id": "\x1e"}\n',
        [(2, None)],
        [(line, "holds a control character") for line in (1, 3, 4)],
        **JSONL,
    ),
    Case(
        "JSON without a bottom",
        '{"id": 1}\n' + "[" * 1_000_000 + "\n" + '{"id": 3, "name": ' + "[" * 499 + "]" * 499 + "}\n",
        [(1, None), (3, "[" * 499 + "]" * 499)],
        [(2, "is nested more than 500 levels deep")],
        **JSONL,
    ),
    Case(
        "JSON with a key in each line",
        "".join(f'{{"id": 1, "key {number}": 1}}\n' for number in range(1600)),
        error="a.jsonl: has more than 1,597 columns, and PostgreSQL takes no more\n",
        file="a.jsonl",
        block={"files": "*.jsonl", "on_new_column": "ignore"},
    ),
    Case(
        "JSON keys that are no names",
        f'{{"id": 1, "": 2, "{"é" * 32}": 3, "name": {{"b": [1.50, true]}}}}\n{{"id": "x", "": 7}}\n',
        [(1, '{"b": [1.50, true]}')],
        [(2, 'id: invalid input syntax for type integer: "x"')],
        file="a.jsonl",
        block={"files": "*.jsonl", "on_new_column": "ignore"},
    ),
    Case(
        "JSON with a decimal comma in the CSV files of the source",
        '{"id": 1, "v": 1.234}\n{"id": 2, "v": 1.5}\n',
        [(1, Decimal("1.234")), (2, Decimal("1.5"))],
        file="a.jsonl",
        block={"files": "*.jsonl", "csv": {"decimal": ","}},
        columns={"id": "integer", "v": "numeric"},
    ),
]
PARQUET: dict[str, Any] = {"file": "a.parquet", "block": {"files": "*.parquet"}}
NOON = datetime(2026, 3, 29, 12, 0, 0, 250, tzinfo=UTC)
NEW_YEAR, END = datetime(1970, 1, 1), datetime(9999, 12, 31)  # noqa: DTZ001
# Per column its type in PostgreSQL, its values in Arrow, and what is loaded.
TYPES: dict[str, tuple[str, pa.Array, list[Any]]] = {
    "id": ("bigint", pa.array([1, 2, None], pa.uint8()), [1, 2, None]),
    "words": ("text", pa.array(['a,"b"\n', "", None]), ['a,"b"\n', "", None]),
    "amount": (
        "numeric(8,2)",
        pa.array([Decimal("1.50"), Decimal("-2.00"), None], pa.decimal128(8, 2)),
        [Decimal("1.50"), Decimal("-2.00"), None],
    ),
    "double": ("double precision", pa.array([0.1, float("inf"), None]), [0.1, float("inf"), None]),
    "flag": ("boolean", pa.array([True, False, None]), [True, False, None]),
    "day": (
        "date",
        pa.array([date(2026, 1, 2), date(1, 1, 1), None]),
        [date(2026, 1, 2), date(1, 1, 1), None],
    ),
    "clock": ("time", pa.array([NOON.time(), None, None]), [NOON.time(), None, None]),
    "local": (
        "timestamp",
        pa.array([NOON.replace(tzinfo=None), None, None], pa.timestamp("ns")),
        [NOON.replace(tzinfo=None), None, None],
    ),
    "instant": (
        "timestamptz",
        pa.array([NOON, None, None], pa.timestamp("us", "Europe/Berlin")),
        [NOON, None, None],
    ),
    "bytes": ("bytea", pa.array([b"\0\xff", b"", None]), [b"\0\xff", b"", None]),
    "word": ("text", pa.array(["x", "y", None]).dictionary_encode(), ["x", "y", None]),
    "tree": ("jsonb", pa.array([{"a": [1, None]}, {"a": []}, None]), [{"a": [1, None]}, {"a": []}, None]),
    "numbers": ("jsonb", pa.array([[1, 2], [], None]), [[1, 2], [], None]),
    "nothing": ("text", pa.nulls(3), [None] * 3),
}
THOUSAND = parquet_file(id=pa.array(range(1000)), name=pa.array(["a"] * 1000))
PARQUETS = [
    Case(
        "Parquet",
        parquet_file(**{name: values for name, (_, values, _) in TYPES.items()}),
        [*zip(*(loaded for _, _, loaded in TYPES.values()), strict=True)],
        columns={name: kind for name, (kind, _, _) in TYPES.items()},
        **PARQUET,
    ),
    Case(
        "Parquet without rows",
        parquet_file(id=pa.array([], pa.int32()), name=pa.array([], pa.string())),
        **PARQUET,
    ),
    Case(
        "Parquet values that do not fit",
        parquet_file(id=pa.array([1, 1 << 40]), name=pa.array(["a", "b"])),
        [(1, "a")],
        [(2, 'id: value "1099511627776" is out of range for type integer')],
        **PARQUET,
    ),
    Case(
        "Parquet with a NUL",
        parquet_file(id=pa.array([1, 2]), name=pa.array(["a\0b", "c"])),
        error='a.parquet: PostgreSQL does not take it: invalid byte sequence for encoding "UTF8": 0x00\n',
        **PARQUET,
    ),
    Case(
        "Parquet without a column",
        parquet_file(id=pa.array([1])),
        error="a.parquet: has no column 'name'\n  Land it with all declared columns.",
        **PARQUET,
    ),
    Case(
        "Parquet with dates that no calendar has",
        parquet_file(
            id=pa.array([1, 2, 3, 4]),
            at=pa.array([0, 1 << 62, None, 0], pa.timestamp("us")),
            v=pa.array([[0], None, [1 << 62], []], pa.list_(pa.timestamp("us"))),
        ),
        [(1, NEW_YEAR, ["1970-01-01 00:00:00.000000"]), (4, NEW_YEAR, [])],
        [(2, "at: a date or a time is out of range"), (3, "v: a date or a time is out of range")],
        columns={"id": "integer", "at": "timestamp", "v": "jsonb"},
        **PARQUET,
    ),
    Case(
        "Parquet with dates and bytes inside of others",
        parquet_file(
            id=pa.array([1]),
            v=pa.array(
                [{"d": NOON, "b": [b"\0\xff"], "m": [("k", NOON.date())], "n": Decimal("1.50"), "t": "a"}],
                pa.struct(
                    {
                        "d": pa.timestamp("us", "UTC"),
                        "b": pa.list_(pa.binary()),
                        "m": pa.map_(pa.string(), pa.date32()),
                        "n": pa.decimal128(5, 2),
                        "t": pa.string(),
                    }
                ),
            ),
        ),
        [
            (
                1,
                {
                    "d": "2026-03-29 12:00:00.000250Z",
                    "b": ["\\x00ff"],
                    "m": [["k", "2026-03-29"]],
                    "n": "1.50",
                    "t": "a",
                },
            )
        ],
        columns={"id": "integer", "v": "jsonb"},
        **PARQUET,
    ),
    Case(
        "Parquet with times in 96 bits, as Spark writes them",
        parquet_file({"use_deprecated_int96_timestamps": True}, id=[1], at=[END]),
        [(1, END)],
        columns={"id": "integer", "at": "timestamp"},
        **PARQUET,
    ),
    Case("Parquet without columns", parquet_file(), error="a.parquet: has no columns\n", **PARQUET),
    Case(
        "Parquet with more columns than PostgreSQL has",
        parquet_file(**{f"c{number}": pa.array([1], pa.int8()) for number in range(1600)}),
        error="a.parquet: has more than 1,597 columns, and PostgreSQL takes no more\n",
        **PARQUET,
    ),
    Case(
        "Parquet with a column whose name is no text",
        parquet_file(**{"id": pa.array([1]), "name": pa.array(["a"]), "a\0b": pa.array([1])}),
        error="a.parquet: has a column whose name is no text: 'a\\x00b'\n",
        file="a.parquet",
        block={"files": "*.parquet", "on_new_column": "ignore"},
    ),
    Case(
        "Parquet with a row of many megabytes",
        parquet_file(id=pa.array([1, 2, 3]), name=pa.array(["a", "b" * (17 << 20), "c"])),
        error="a.parquet: row 2 is longer than 16 MB\n",
        **PARQUET,
    ),
    Case(
        "Parquet that expands without an end",
        parquet_file(
            {"compression": "zstd", "use_dictionary": False}, id=range(100), name=["a" * (1 << 20)] * 100
        ),
        error="a.parquet: expands to more than 500 times its size\n",
        **PARQUET,
    ),
    Case("no Parquet", "PAR1 or not", error="a.parquet: is no valid Parquet file: ", **PARQUET),
    Case(
        "half of a Parquet file",
        THOUSAND[:2000],
        error="a.parquet: is no valid Parquet file: ",
        **PARQUET,
    ),
    Case(
        "a damaged Parquet file",
        THOUSAND[:20] + b"\xff" * 200 + THOUSAND[220:],
        error="a.parquet: is no valid Parquet file: ",
        **PARQUET,
    ),
]
NAMES = [
    Case(f"a file called {name!r}", "id,name\n1,a\n", [(1, "a")], file=name)
    for name in (
        'it\'s "quoted".csv',
        "'); drop table events; --.csv",
        "new\nline.csv",
        "北京 😀 é.csv",
        "[a]*?{b}.csv",
        "%s {} {0}.csv",
        "back\\slash.csv",
        " .csv",
        "~$#&|;.csv",
    )
]
CASES = [*ENCODINGS, *LINES, *HEADERS, *KEYS, *VALUES, *ARCHIVES, *JSON_LINES, *PARQUETS, *NAMES]
