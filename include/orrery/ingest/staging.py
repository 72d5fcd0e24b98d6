"""Puts the records of a file into a staging table, as text and as fast as COPY goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, cast

from psycopg2.sql import SQL, Composable, Identifier, Literal

from orrery.config.ingest import Files
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.records import LINES, Dialect, Records, read_header
from orrery.ingest.target import POSTGRESQL, Cursor
from orrery.ingest.text import BLOCK, Hashing, Part, text_blocks

_STAGE, _LINES, _JSON = (Identifier(f"_orrery_{name}") for name in ("stage", "lines", "json"))


@dataclass(frozen=True)
class Section:
    """A part of a file: the bytes from `start` up to `end`, of which the first is on `line`."""

    start: int
    end: int
    line: int


@dataclass(frozen=True)
class Into:
    """The table into which rows are staged: one of the transaction, or an unlogged one that stays."""

    relation: Composable
    stays: bool = False

    def create(self, definition: Composable, query: Composable | None = None) -> Composable:
        """The statement that makes it, from the definition of its columns or from a query."""
        return SQL("create {} table {} {} {} {}").format(
            SQL("unlogged" if self.stays else "temp"),
            self.relation,
            definition,
            SQL("" if self.stays else "on commit drop"),
            SQL("as {}").format(query) if query else SQL(""),
        )


@dataclass(frozen=True)
class Staged:
    """A staged file, or a section of one: `_row`, `_line`, `_reason` and `c1`, `c2`, ... for `columns`.

    `relation` is what stands behind FROM, `content_hash` the digest of all that was read.
    """

    relation: Composable
    columns: tuple[str, ...]
    rows: int
    content_hash: str


def stage(
    cursor: Cursor,
    zone: LandingZone,
    file: LandingFile,
    spec: Files,
    declared: Sequence[str],
    *,
    section: Section | None = None,
    into: Into | None = None,
) -> Staged:
    """Stage a file, or a section of it, in a table that is made for it: by default a temporary one.

    :param declared: the columns of a CSV file without a header
    Raises FileError.
    """
    into = into or Into(_STAGE)
    with zone.open(file) as raw:
        staging = _Staging(cursor, file, raw, spec, section=section, into=into)
        if spec.file_format == "parquet":
            columns, rows = staging.parquet()
        elif spec.file_format == "jsonl":
            columns, rows = staging.jsonl()
        else:
            columns, rows = staging.csv(declared)
        content_hash = staging.content_hash()
    zone.check_unchanged(file)
    return Staged(into.relation, tuple(columns), rows, content_hash)


def clear(cursor: Cursor) -> None:
    """Remove the temporary tables, so that the transaction can stage another file."""
    for relation in (_STAGE, _LINES, _JSON):
        cursor.execute(SQL("drop table if exists {}.{}").format(Identifier("pg_temp"), relation))


class _Staging:
    """One file on its way; each format gives the names of the columns and the number of rows."""

    def __init__(
        self,
        cursor: Cursor,
        file: LandingFile,
        raw: IO[bytes],
        spec: Files,
        *,
        section: Section | None,
        into: Into,
    ) -> None:
        self._cursor, self._file, self._raw, self._spec, self._into = cursor, file, raw, spec, into
        self._section = section
        self._stream = Hashing(raw)

    def content_hash(self) -> str:
        """The digest of all that there was to read."""
        while self._stream.read(BLOCK):
            pass
        return self._stream.hexdigest

    def csv(self, columns: Sequence[str]) -> tuple[Sequence[str], int]:
        """Stage CSV; `columns` are those of a file without a header."""
        dialect, name, header = Dialect.of(self._spec.csv), self._file.name, self._spec.csv.header
        if header and not self._from_start:
            above = text_blocks(name, Hashing(self._raw), encoding=self._spec.csv.encoding)
            columns, _, _ = read_header(name, above, dialect, limits=POSTGRESQL)
        text, line = self._text()
        if header and self._from_start:
            columns, text, line = read_header(name, text, dialect, limits=POSTGRESQL)
        if not columns:
            raise FileError(name, "has no header, and the source has no columns", "Declare its columns.")
        records = Records(name, dialect, len(columns), first_line=line)
        _create(self._cursor, self._into, len(columns))
        _copy(self._cursor, self._into, dialect, records.copy_blocks(text))
        return columns, records.rows

    def jsonl(self) -> tuple[Sequence[str], int]:
        """Stage JSON lines, with a column for each key that any of them has."""
        text, line = self._text()
        records, lines = Records(self._file.name, LINES, 1, first_line=line), Into(_LINES)
        _create(self._cursor, lines, 1)
        _copy(self._cursor, lines, LINES, records.copy_blocks(text))
        return _columns_of_json(self._cursor, self._into, self._file.name), records.rows

    def parquet(self) -> tuple[Sequence[str], int]:
        """Stage Parquet."""
        # A large library, which most loads do without.
        from orrery.ingest.parquet import DIALECT, ParquetRecords

        records = ParquetRecords(self._file.name, self._raw, POSTGRESQL)
        _create(self._cursor, self._into, len(records.columns))
        _copy(self._cursor, self._into, DIALECT, records.copy_blocks())
        self._raw.seek(0)
        return records.columns, records.rows

    @property
    def _from_start(self) -> bool:
        return self._section is None or self._section.start == 0

    def _text(self) -> tuple[Iterator[bytes], int]:
        """The text, and the line of the file with which it begins."""
        line = 1
        if self._section:
            self._stream = Hashing(Part(self._raw, self._section.start, self._section.end))
            line = self._section.line
        encoding = self._spec.csv.encoding
        return text_blocks(
            self._file.name, self._stream, encoding=encoding, from_start=self._from_start
        ), line


def _columns_of_json(cursor: Cursor, into: Into, file: str) -> list[str]:
    """Turn staged lines into columns, one for each key that any of them has. Raises FileError."""
    cursor.execute(
        SQL(
            "create temp table {parsed} on commit drop as select _row, _line, _reason, c1,"
            " case when _reason is null and pg_input_is_valid(c1, 'jsonb') then c1::jsonb end as j"
            " from {lines}"
        ).format(parsed=_JSON, lines=_LINES)
    )
    cursor.execute(
        SQL(
            "select distinct jsonb_object_keys(j) from {} where jsonb_typeof(j) = 'object'"
            " order by 1 limit {}"
        ).format(_JSON, Literal(POSTGRESQL.columns + 1))
    )
    keys = [key for (key,) in cursor.fetchall()]
    POSTGRESQL.check_columns(file, keys)
    # One call takes all values of a line apart, in a time that grows with their number alone. What is not
    # a name in SQL, it cannot be asked for.
    names = dict.fromkeys(key for key in keys if key and not POSTGRESQL.is_longer(key, POSTGRESQL.name))
    record = SQL(
        "left join lateral jsonb_to_record(case when jsonb_typeof(j) = 'object' then j end) as r({}) on true"
    ).format(SQL(", ").join(SQL("{} text").format(Identifier(key)) for key in names))
    values: list[Composable] = [
        SQL("r.{}").format(Identifier(key)) if key in names else SQL("j ->> {}").format(Literal(key))
        for key in keys
    ]
    # A rejected line shows its text in the first column; a file of such lines alone has no other.
    first, *others = values or [cast("Composable", SQL("c1"))]
    values = [SQL("case when jsonb_typeof(j) = 'object' then {} else c1 end").format(first), *others]
    columns = [
        SQL("{} as {}").format(value, Identifier(f"c{number}"))
        for number, value in enumerate(values, start=1)
    ]
    query = SQL(
        "select _row, _line, coalesce(_reason, case"
        " when j is null then 'is not valid JSON: ' || (pg_input_error_info(c1, 'jsonb')).message"
        " when jsonb_typeof(j) <> 'object' then 'is not a JSON object' end) as _reason, {columns}"
        " from {parsed} {record}"
    ).format(columns=SQL(", ").join(columns), parsed=_JSON, record=record if names else SQL(""))
    cursor.execute(into.create(SQL(""), query))
    return keys


def _create(cursor: Cursor, into: Into, columns: int) -> None:
    fields = [SQL("{} text").format(Identifier(f"c{number}")) for number in range(1, columns + 1)]
    definition = SQL("(_row bigint, _line bigint, _reason text, {})").format(SQL(", ").join(fields))
    cursor.execute(into.create(definition))


def _copy(cursor: Cursor, into: Into, dialect: Dialect, text: Iterator[bytes]) -> None:
    options = SQL("format csv, delimiter {}, quote {}, escape {}, null '', encoding 'UTF8'").format(
        Literal(dialect.delimiter), Literal(dialect.quote), Literal(dialect.escape)
    )
    source = _Source(text)
    try:
        cursor.copy_expert(
            SQL("copy {} from stdin ({})").format(into.relation, options), cast("IO[bytes]", source)
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
