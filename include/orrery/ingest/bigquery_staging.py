"""Puts the records of a file into a staging table of BigQuery: as text, by one load job."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Any, cast

import pyarrow as pa
from pyarrow import parquet

from orrery.config.ingest import Files
from orrery.ingest.bigquery import BigQuery
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.records import LINES, Dialect, Records, fields, read_header
from orrery.ingest.text import BLOCK, Hashing, text_blocks

# Rows that are in memory at once.
_BATCH = 20_000

Values = Sequence[str | None]


@dataclass(frozen=True)
class Staged:
    """A staged file: `table` has `_row`, `_line`, `_reason` and `c1`, `c2`, ... for `columns`."""

    table: str
    columns: tuple[str, ...]
    rows: int
    content_hash: str


@dataclass(frozen=True)
class Row:
    """A record: where it stands, why it is none (or None), and its values."""

    row: int
    line: int | None
    reason: str | None
    values: Values


class _Rows(Records):
    """The records of a file as rows; all else is as in a load into PostgreSQL."""

    def __init__(self, name: str, dialect: Dialect, count: int, *, first_line: int) -> None:
        super().__init__(name, dialect, count, first_line=first_line)
        self._dialect = dialect
        self._found: list[Row] = []

    def of(self, text: Iterator[bytes]) -> Iterator[Row]:
        """The rows of `text`."""
        for _ in self.copy_blocks(text):
            yield from self._found
            self._found.clear()

    def _good(self, record: bytes) -> bytes:
        text = record.decode()
        if self._one_line:
            values: Values = [text]
        elif self._quote in record:
            values = cast("list[str | None]", fields(text, self._dialect))
        else:
            values = [field or None for field in text.split(self._dialect.delimiter)]
        return self._take(None, values)

    def _bad(self, record: bytes, reason: str) -> bytes:
        shown = record.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
        return self._take(reason, [shown, *[None] * (self._fields - 1)])

    def _take(self, reason: str | None, values: Values) -> bytes:
        self.rows += 1
        self._found.append(Row(self.rows, self._line, reason, values))
        return b""


def stage(
    warehouse: BigQuery,
    zone: LandingZone,
    file: LandingFile,
    spec: Files,
    declared: Sequence[str],
    *,
    dataset: str,
    table: str,
) -> Staged:
    """Stage a file in a table that is made for it. Raises FileError.

    :param declared: the columns of a CSV file without a header
    """
    with zone.open(file) as raw, tempfile.TemporaryFile(prefix="orrery-") as staged:
        stream = Hashing(raw)
        columns, rows = _read(file.name, raw, stream, spec, declared)
        texts = [f"c{number}" for number in range(1, max(len(columns), 1) + 1)]
        count = _write(rows, texts, staged)
        while stream.read(BLOCK):
            pass
        zone.check_unchanged(file)
        staged.seek(0)
        kinds = {"_row": "INT64", "_line": "INT64", "_reason": "STRING"} | dict.fromkeys(texts, "STRING")
        warehouse.load(staged, dataset, table, kinds)
    return Staged(table, tuple(columns), count, stream.hexdigest)


def _read(
    file: str, raw: IO[bytes], stream: Hashing, spec: Files, declared: Sequence[str]
) -> tuple[Sequence[str], Iterable[Row]]:
    """The columns of a file, and its rows."""
    if spec.file_format == "parquet":
        from orrery.ingest.parquet import ParquetRecords

        source = ParquetRecords(file, raw)
        return source.columns, _of_parquet(source, raw)
    text = text_blocks(file, stream, encoding=spec.csv.encoding)
    if spec.file_format == "jsonl":
        return _of_json(file, text)
    dialect, line = Dialect.of(spec.csv), 1
    if spec.csv.header:
        declared, text, line = read_header(file, text, dialect)
    if not declared:
        raise FileError(file, "has no header, and the source has no columns", "Declare its columns.")
    return declared, _Rows(file, dialect, len(declared), first_line=line).of(text)


def _of_parquet(source: Any, raw: IO[bytes]) -> Iterator[Row]:
    for row, values in enumerate(source.values(), start=1):
        yield Row(row, None, None, values)
    # What was read in any order is read once more, for its digest.
    raw.seek(0)


def _of_json(file: str, text: Iterator[bytes]) -> tuple[list[str], list[Row]]:
    """JSON lines, with a column for each key that any of them has; all of them are in memory."""
    lines = [(row, *_parsed(row)) for row in _Rows(file, LINES, 1, first_line=1).of(text)]
    keys = sorted({key for _, _, found in lines for key in found or ()})
    return keys, [
        Row(
            row.row,
            row.line,
            reason,
            [found.get(key) for key in keys] or [None]
            if found is not None
            else [row.values[0], *[None] * (len(keys) - 1)],
        )
        for row, reason, found in lines
    ]


def _parsed(row: Row) -> tuple[str | None, dict[str, str | None] | None]:
    """Why a line is no JSON object, or its values as text."""
    if row.reason is not None:
        return row.reason, None
    try:
        found = json.loads(str(row.values[0]), parse_float=_Number, parse_int=_Number, parse_constant=_refuse)
        if not isinstance(found, dict):
            return "is not a JSON object", None
        values = {key: _as_text(value) for key, value in found.items()}
        "".join(value or "" for value in values.values()).encode()
    except (ValueError, RecursionError) as error:
        return f"is not valid JSON: {error}", None
    return None, values


class _Number(str):
    """A number in JSON, as it is written."""


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no value")


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(_numbers(value), ensure_ascii=False)


def _numbers(value: Any) -> Any:
    """A value with its numbers as numbers."""
    if isinstance(value, _Number):
        return json.loads(value)
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return {key: _numbers(each) for key, each in value.items()} if isinstance(value, dict) else value


def _write(rows: Iterable[Row], texts: list[str], to: IO[bytes]) -> int:
    """Write rows as Parquet, their values in the columns `texts`; returns how many there are."""
    values = [(text, pa.string()) for text in texts]
    schema = pa.schema([("_row", pa.int64()), ("_line", pa.int64()), ("_reason", pa.string()), *values])
    count, batch = 0, list[Row]()
    with parquet.ParquetWriter(to, schema) as writer:

        def flush() -> None:
            places = ([row.row for row in batch], [row.line for row in batch], [row.reason for row in batch])
            values = zip(*(row.values for row in batch), strict=True)
            arrays = [
                pa.array(column, field.type) for column, field in zip((*places, *values), schema, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema))
            batch.clear()

        for row in rows:
            batch.append(row)
            count += 1
            if len(batch) == _BATCH:
                flush()
        if batch:
            flush()
        elif not count:
            writer.write_table(schema.empty_table())
    return count
