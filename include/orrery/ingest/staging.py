"""Puts the records of a file into a staging table, as text and as fast as COPY goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import IO, Any, cast

from psycopg2.sql import SQL, Composable, Identifier, Literal

from orrery.config.ingest import Files
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.records import LINES, Dialect, Records, read_header
from orrery.ingest.target import Cursor
from orrery.ingest.text import Hashing, text_blocks

# Rows of a Parquet file that are in memory at once.
_BATCH = 10_000
_STAGE, _LINES, _JSON = (Identifier(f"_orrery_{name}") for name in ("stage", "lines", "json"))


@dataclass(frozen=True)
class Staged:
    """A staged file: its table with `_row`, `_line`, `_reason` and `c1`, `c2`, ... for `columns`."""

    relation: Composable
    columns: tuple[str, ...]
    rows: int
    content_hash: str


def stage(
    cursor: Cursor, zone: LandingZone, file: LandingFile, spec: Files, declared: Sequence[str]
) -> Staged:
    """Stage a file in a temporary table of the transaction.

    :param declared: the columns of a CSV file without a header
    Raises FileError.
    """
    with zone.open(file) as raw:
        stream = Hashing(raw)
        if spec.file_format == "parquet":
            columns, rows = _stage_parquet(cursor, file, raw)
            raw.seek(0)
        elif spec.file_format == "jsonl":
            columns, rows = _stage_jsonl(cursor, file, stream, spec)
        else:
            columns, rows = _stage_csv(cursor, file, stream, spec, declared)
        while stream.read(1 << 20):
            pass
    zone.check_unchanged(file)
    return Staged(_STAGE, tuple(columns), rows, stream.hexdigest)


def clear(cursor: Cursor) -> None:
    """Remove the temporary tables, so that the transaction can stage another file."""
    for relation in (_STAGE, _LINES, _JSON):
        cursor.execute(SQL("drop table if exists {}.{}").format(Identifier("pg_temp"), relation))


def _stage_csv(
    cursor: Cursor, file: LandingFile, stream: Hashing, spec: Files, declared: Sequence[str]
) -> tuple[Sequence[str], int]:
    dialect = Dialect.of(spec.csv)
    text, columns, line = text_blocks(file.name, stream, encoding=spec.csv.encoding), declared, 1
    if spec.csv.header:
        columns, text, line = read_header(file.name, text, dialect)
    elif not declared:
        raise FileError(file.name, "has no header, and the source has no columns", "Declare its columns.")
    records = Records(file.name, dialect, len(columns), first_line=line)
    _create(cursor, _STAGE, len(columns))
    _copy(cursor, _STAGE, dialect, records.copy_blocks(text))
    return columns, records.rows


def _stage_jsonl(
    cursor: Cursor, file: LandingFile, stream: Hashing, spec: Files
) -> tuple[Sequence[str], int]:
    text = text_blocks(file.name, stream, encoding=spec.csv.encoding)
    records = Records(file.name, LINES, 1, first_line=1)
    _create(cursor, _LINES, 1)
    _copy(cursor, _LINES, LINES, records.copy_blocks(text))
    columns = _columns_of_json(cursor)
    return columns, records.rows


def _columns_of_json(cursor: Cursor) -> list[str]:
    """Turn staged lines into columns, one for each key that any of them has."""
    cursor.execute(
        SQL(
            "create temp table {parsed} on commit drop as select _row, _line, _reason, c1,"
            " case when _reason is null and pg_input_is_valid(c1, 'jsonb') then c1::jsonb end as j"
            " from {lines}"
        ).format(parsed=_JSON, lines=_LINES)
    )
    cursor.execute(
        SQL(
            "select distinct jsonb_object_keys(j) from {} where jsonb_typeof(j) = 'object' order by 1"
        ).format(_JSON)
    )
    keys = [key for (key,) in cursor.fetchall()]
    # A rejected line shows its text in the first column; a file of such lines alone has no other.
    values: list[Composable] = [
        SQL("case when jsonb_typeof(j) = 'object' then j ->> {} {} end as {}").format(
            Literal(key), SQL("else c1" if number == 1 else ""), Identifier(f"c{number}")
        )
        for number, key in enumerate(keys, start=1)
    ] or [SQL("c1")]
    cursor.execute(
        SQL(
            "create temp table {stage} on commit drop as select _row, _line, coalesce(_reason, case"
            " when j is null then 'is not valid JSON: ' || (pg_input_error_info(c1, 'jsonb')).message"
            " when jsonb_typeof(j) <> 'object' then 'is not a JSON object' end) as _reason, {values}"
            " from {parsed}"
        ).format(stage=_STAGE, values=SQL(", ").join(values), parsed=_JSON)
    )
    return keys


def _stage_parquet(cursor: Cursor, file: LandingFile, raw: IO[bytes]) -> tuple[Sequence[str], int]:
    import pyarrow as pa
    from pyarrow import csv, parquet

    try:
        source = parquet.ParquetFile(raw)
        columns = source.schema_arrow.names
        _create(cursor, _STAGE, len(columns))
        rows = 0

        def text() -> Iterator[bytes]:
            nonlocal rows
            for batch in source.iter_batches(batch_size=_BATCH):
                numbers = pa.array(range(rows + 1, rows + 1 + len(batch)))
                empty = pa.nulls(len(batch), pa.string())
                arrays = [numbers, empty, empty, *(_as_text(column) for column in batch.columns)]
                names = [str(number) for number in range(len(arrays))]
                out = BytesIO()
                options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
                csv.write_csv(pa.table(dict(zip(names, arrays, strict=True))), out, options)
                rows += len(batch)
                yield out.getvalue()

        _copy(cursor, _STAGE, Dialect(",", '"', '"'), text())
    except (pa.ArrowException, OSError) as error:
        raise FileError(file.name, f"is no valid Parquet file: {error}", "Land it again.") from None
    return columns, rows


def _as_text(column: Any) -> Any:
    """An Arrow array as strings that PostgreSQL reads back."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_nested(kind):
        return pa.array(
            [None if value is None else json.dumps(value, default=str) for value in column.to_pylist()],
            pa.string(),
        )
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.array([None if value is None else "\\x" + value.hex() for value in column.to_pylist()])
    return column.cast(pa.string())


def _create(cursor: Cursor, relation: Composable, columns: int) -> None:
    fields = [SQL("{} text").format(Identifier(f"c{number}")) for number in range(1, columns + 1)]
    cursor.execute(
        SQL("create temp table {} (_row bigint, _line bigint, _reason text, {}) on commit drop").format(
            relation, SQL(", ").join(fields)
        )
    )


def _copy(cursor: Cursor, relation: Composable, dialect: Dialect, text: Iterator[bytes]) -> None:
    options = SQL("format csv, delimiter {}, quote {}, escape {}, null '', encoding 'UTF8'").format(
        Literal(dialect.delimiter), Literal(dialect.quote), Literal(dialect.escape)
    )
    source = _Source(text)
    try:
        cursor.copy_expert(
            SQL("copy {} from stdin ({})").format(relation, options), cast("IO[bytes]", source)
        )
    finally:
        if source.error is not None:
            raise source.error


class _Source:
    """Blocks of bytes as psycopg2 wants them; it would lose the errors of their iterator."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks = blocks
        self.error: BaseException | None = None

    def read(self, _size: int) -> bytes:
        try:
            return next((block for block in self._blocks if block), b"")
        except BaseException as error:
            self.error = error
            raise
