"""Puts the records of a file into a staging table of BigQuery: as text, by one load job of Parquet.

BigQuery's own reader of CSV has other rules than PostgreSQL's COPY, such as for quotes and nulls. A file
has to mean the same in both, so that it is the same code which reads it here.
"""

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
from orrery.ingest.bigquery_target import BIGQUERY
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.parquet import ParquetRecords
from orrery.ingest.records import LINES, Dialect, Records, fields, read_header
from orrery.ingest.text import BLOCK, Hashing, text_blocks

# Rows that are in memory at once, and how many bytes and values of them.
_BATCH, _BATCH_BYTES = 20_000, 32 << 20
# Number, line, why it is none (or None), and values.
Row = tuple[int, int | None, str | None, Sequence[str | None]]


@dataclass(frozen=True)
class Staged:
    """A staged file: `table` has `_row`, `_line`, `_reason` and `c1`, `c2`, ... for `columns`."""

    table: str
    columns: tuple[str, ...]
    rows: int
    content_hash: str


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
        # A rejected line shows its text in the first column; a file of such lines alone has no other.
        texts = [f"c{number}" for number in range(1, max(len(columns), 1) + 1)]
        count = _write(rows, texts, staged)
        while stream.read(BLOCK):
            pass
        zone.check_unchanged(file)
        kinds = {"_row": "INT64", "_line": "INT64", "_reason": "STRING"} | dict.fromkeys(texts, "STRING")
        warehouse.load(staged, dataset, table, kinds)
    return Staged(table, tuple(columns), count, stream.hexdigest)


def _read(
    file: str, raw: IO[bytes], stream: Hashing, spec: Files, declared: Sequence[str]
) -> tuple[Sequence[str], Iterable[Row]]:
    """The columns of a file, and its rows."""
    if spec.file_format == "parquet":
        source = ParquetRecords(file, raw, BIGQUERY)
        return source.columns, _of_parquet(source, raw)
    encoding = spec.csv.encoding
    if spec.file_format == "jsonl":
        # Once for the keys that there are, and once for their values.
        first = _Rows(file, LINES, 1).of(text_blocks(file, Hashing(raw), encoding=encoding))
        keys = _keys(file, first)
        raw.seek(0)
        again = _Rows(file, LINES, 1).of(text_blocks(file, stream, encoding=encoding))
        return keys, (_of_json(row, keys) for row in again)
    text, dialect, line = text_blocks(file, stream, encoding=encoding), Dialect.of(spec.csv), 1
    if spec.csv.header:
        declared, text, line = read_header(file, text, dialect, limits=BIGQUERY)
    if not declared:
        raise FileError(file, "has no header, and the source has no columns", "Declare its columns.")
    return declared, _Rows(file, dialect, len(declared), first_line=line).of(text)


def _write(rows: Iterable[Row], texts: Sequence[str], to: IO[bytes]) -> int:
    """Write rows as Parquet, their values in the columns `texts`; returns how many there are."""
    places = [("_row", pa.int64()), ("_line", pa.int64()), ("_reason", pa.string())]
    schema = pa.schema([*places, *((text, pa.string()) for text in texts)])
    count = 0
    with parquet.ParquetWriter(to, schema) as writer:
        for batch in _batches(rows):
            columns = zip(*((*place, *values) for *place, values in batch), strict=True)
            arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.table(arrays, schema))
            count += len(batch)
        if not count:
            writer.write_table(schema.empty_table())
    return count


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch, size = list[Row](), 0
    for row in rows:
        batch.append(row)
        # With what a reference to a value takes.
        size += sum(map(len, filter(None, row[3]))) + 8 * len(row[3])
        if len(batch) == _BATCH or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _keys(file: str, rows: Iterable[Row]) -> list[str]:
    """The keys of all lines of JSON."""
    keys = set[str]()
    for row in rows:
        keys.update(_object(row)[1] or ())
        BIGQUERY.check_columns(file, [*keys] if len(keys) > BIGQUERY.columns else [])
    return sorted(keys)


class _Rows(Records):
    """The records of a text as rows instead of as the text of a COPY; what is a record stays the same."""

    def __init__(self, name: str, dialect: Dialect, count: int, *, first_line: int = 1) -> None:
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
            return self._take(None, [text])
        if self._quote in record:
            return self._take(None, cast("list[str | None]", fields(text, self._dialect)))
        return self._take(None, [field or None for field in text.split(self._dialect.delimiter)])

    def _bad(self, record: bytes, reason: str) -> bytes:
        shown = record.decode("utf-8", "backslashreplace").replace("\0", "\\x00")
        return self._take(reason, [shown, *[None] * (self._fields - 1)])

    def _take(self, reason: str | None, values: Sequence[str | None]) -> bytes:
        self.rows += 1
        self._found.append((self.rows, self._line, reason, values))
        return b""


def _of_parquet(source: ParquetRecords, raw: IO[bytes]) -> Iterator[Row]:
    for row, (reason, values) in enumerate(source.values(), start=1):
        yield row, None, reason, values
    # What was read in any order is read once more, for its digest.
    raw.seek(0)


def _of_json(row: Row, keys: Sequence[str]) -> Row:
    """A line as a row, with a column for each of `keys`."""
    number, line, _, (text,) = row
    reason, values = _object(row)
    if values is None:
        return number, line, reason, [text, *[None] * (len(keys) - 1)]
    return number, line, None, [values.get(key) for key in keys] or [None]


def _object(row: Row) -> tuple[str | None, dict[str, str | None] | None]:
    """Why a line is no JSON object, or its values as text."""
    _, _, reason, (line,) = row
    if reason is not None:
        return reason, None
    try:
        found = json.loads(str(line), parse_float=_Number, parse_int=_Number, parse_constant=_refuse)
        if not isinstance(found, dict):
            return "is not a JSON object", None
        values = {key: _as_text(value) for key, value in found.items()}
        # Half of a surrogate pair is JSON, but no text.
        "".join([*values, *(value or "" for value in values.values())]).encode()
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
