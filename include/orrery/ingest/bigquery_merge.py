"""From a staging table of BigQuery into the table of a source: the SQL, and what of it is known before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orrery.config.ingest import Csv, Files
from orrery.ingest.bigquery import BigQuery
from orrery.ingest.bigquery_staging import Staged
from orrery.ingest.bigquery_target import BIGQUERY, META, Tables, literal, name
from orrery.ingest.landing import LandingFile
from orrery.ingest.matching import (
    LONGEST_REASON,
    NO_NUMBER,
    NO_TIME,
    NUMBER_WORDS,
    SHOWN,
    TIME_WORDS,
    is_allowed,
    match_columns,
    too_many,
)
from orrery.ingest.target import LOADED_AT, SOURCE_ID

_TRUE = "('t', 'true', 'y', 'yes', 'on', '1')"
_FALSE = "('f', 'false', 'n', 'no', 'off', '0')"
_EXACT = ("NUMERIC", "BIGNUMERIC")
_NUMBERS = (*_EXACT, "FLOAT64")
_TIMES = ("TIMESTAMP", "DATETIME", "TIME")


@dataclass(frozen=True)
class Field:
    """A staged column on its way into a column of the table: `text` is its value as text, in SQL."""

    column: str
    kind: str
    text: str

    @property
    def value(self) -> str:
        """The value in SQL, null where the text does not fit."""
        if self.kind == "STRING":
            return self.text
        if self.kind == "BOOL":
            plain = f"lower(trim({self.text}))"
            return f"case when {plain} in {_TRUE} then true when {plain} in {_FALSE} then false end"
        if self.kind == "JSON":
            return f"safe.parse_json({self.text})"
        return f"safe_cast({self.text} as {self.kind})"

    def complaints(self, *, is_key: bool) -> list[str]:
        """What may be wrong with the value, as branches of a `case`."""
        found = []
        if self.kind.startswith((*_TIMES, "DATE", "INTERVAL")):
            found.append(self._words(TIME_WORDS, NO_TIME))
        elif self.kind.startswith(_EXACT):
            found.append(self._words(NUMBER_WORDS, NO_NUMBER))
        if self.kind != "STRING":
            told = literal(f"{self.column}: no valid {self.kind}: ")
            found.append(
                f"when {self.text} is not null and {self.value} is null"
                f" then concat({told}, to_json_string({self.text}))"
            )
        if is_key:
            found.append(f"when {self.text} is null then {literal(f'{self.column}: the key is empty')}")
        return found

    def _words(self, pattern: str, why: str) -> str:
        """What PostgreSQL takes silently is a bad value here, too."""
        told = f"concat({literal(f'{self.column}: ')}, to_json_string({self.text}), {literal(f' {why}')})"
        return f"when regexp_contains(lower({self.text}), {literal(pattern)}) then {told}"


class FileMerge:
    """One staged file: its rows with types, and the statements that move them in a transaction.

    `prepare` makes `table`, which its caller removes; its columns are `_row`, `_line`, `_why` (None for good
    rows), `_content` and the values `v1`, `v2`, ...
    """

    def __init__(
        self,
        warehouse: BigQuery,
        tables: Tables,
        spec: Files,
        file: LandingFile,
        staged: Staged,
        *,
        run_id: str,
    ) -> None:
        self._warehouse, self._tables, self._spec, self._file = warehouse, tables, spec, file
        self._staged, self._run_id = staged, run_id
        self._source_id = literal(file.source_id(tables.target.source))
        self.table = f"{staged.table}_typed"
        self._typed = warehouse.sql_name(tables.target.schema, self.table)
        self._fields: list[Field] = []
        self._kinds: Mapping[str, str] = {}
        self.rejected = 0

    def prepare(self) -> None:
        """Give the rows their types; raises FileError when more of them are bad than the source allows."""
        existing = self._tables.columns()
        names, new = match_columns(
            self._file, self._staged.columns, self._tables.target, existing, self._spec, limits=BIGQUERY
        )
        self._kinds = existing | dict.fromkeys(new, "STRING")
        self._tables.add_columns(dict.fromkeys(new, "STRING"))
        self._fields = self._as_fields(names)
        self._warehouse.run(self._create_typed())
        bad = self._warehouse.run(
            f"select count(*) over () as bad, coalesce(_line, _row), substr(_why, 1, {LONGEST_REASON})"
            f" from {self._typed} where _why is not null order by _row limit {SHOWN}"
        )
        self.rejected = bad[0][0] if bad else 0
        if not is_allowed(self._spec, self.rejected, self._staged.rows):
            shown = [(line, why) for _, line, why in bad]
            raise too_many(self._file, self._spec, self.rejected, self._staged.rows, shown)

    def statements(self, loaded_at: str, *, replaces: bool) -> list[str]:
        """What is done in the transaction, after the line in the ledger."""
        move = self._upsert if self._tables.target.key else self._append
        return [
            f"delete from {self._tables.rejected} where {SOURCE_ID} = {self._source_id}",
            *([self._reject(loaded_at)] if self.rejected else []),
            *move(loaded_at, replaces=replaces),
        ]

    def inserted(self) -> str:
        """How many rows the table gets, in SQL; with a key, those whose key it does not have yet."""
        if not self._tables.target.key:
            return str(self._staged.rows - self.rejected)
        return (
            f"(select count(*) from {self._good} s"
            f" where not exists (select 1 from {self._tables.relation} t where {self._same}))"
        )

    def _as_fields(self, names: Sequence[str | None]) -> list[Field]:
        # What a value looks like is not open in the other formats.
        csv = self._spec.csv if self._spec.file_format == "csv" else Csv()
        fields = [
            Field(column, self._kinds[column], _text(number, self._kinds[column], csv))
            for number, column in enumerate(names, start=1)
            if column is not None
        ]
        # A file of JSON lines may lack the key in all of them.
        absent = [column for column in self._tables.target.key if column not in names]
        return [*fields, *(Field(column, self._kinds[column], "cast(null as STRING)") for column in absent)]

    def _create_typed(self) -> str:
        """The statement that makes the table of the rows with types."""
        key = self._tables.target.key
        complaints = [each for field in self._fields for each in field.complaints(is_key=field.column in key)]
        why = f"case when _reason is not null then _reason {' '.join(complaints)} end"
        values = [f"{field.value} as v{number}" for number, field in enumerate(self._fields, start=1)]
        columns = ["_row", "_line", f"{why} as _why", f"{self._content} as _content", *values]
        stage = self._warehouse.sql_name(self._tables.target.schema, self._staged.table)
        return (
            f"create or replace table {self._typed}"
            " options (expiration_timestamp = timestamp_add(current_timestamp(), interval 1 day))"
            f" as select {', '.join(columns)} from {stage}"
        )

    @property
    def _content(self) -> str:
        """A bad row as JSON, in SQL; a record that is none as it is."""
        parts = [
            f"{literal(f'{json_name} : ')}, coalesce(to_json_string(c{number}), 'null')"
            for number, json_name in enumerate(map(literal, self._staged.columns), start=1)
        ]
        entries = ", ', ', ".join(parts)
        whole = f"concat('{{', {entries}, '}}')" if parts else "c1"
        return f"case when _reason is not null then c1 else {whole} end"

    def _reject(self, loaded_at: str) -> str:
        return (
            f"insert into {self._tables.rejected} (_source_file, _source_id, _row_number, _line, reason,"
            " content, _rejected_at, run_id)"
            f" select {literal(self._file.name)}, {self._source_id}, _row, _line, _why, _content,"
            f" {loaded_at}, {literal(self._run_id)} from {self._typed} where _why is not null"
        )

    @property
    def _good(self) -> str:
        """The rows that go into the table; of those with the same key the last."""
        rows = f"select * from {self._typed} where _why is null"
        key = ", ".join(self._key.values())
        last = f" qualify row_number() over (partition by {key} order by _row desc) = 1" if key else ""
        return f"({rows}{last})"

    @property
    def _key(self) -> dict[str, str]:
        """The columns of the key, with where they are in the rows with types."""
        values = {field.column: f"v{number}" for number, field in enumerate(self._fields, start=1)}
        return {column: values[column] for column in self._tables.target.key}

    @property
    def _same(self) -> str:
        return " and ".join(f"t.{name(column)} = s.{value}" for column, value in self._key.items())

    def _values(self, loaded_at: str) -> dict[str, str]:
        """What the columns of the table get. One that the file lacks becomes null, as in a new row."""
        values = {column: f"cast(null as {kind})" for column, kind in self._kinds.items()}
        values |= {field.column: f"s.v{number}" for number, field in enumerate(self._fields, start=1)}
        meta = (loaded_at, literal(self._file.name), self._source_id, "s._row")
        return values | dict(zip(META, meta, strict=True))

    def _append(self, loaded_at: str, *, replaces: bool) -> list[str]:
        relation, values = self._tables.relation, self._values(loaded_at)
        return [
            *([f"delete from {relation} where {SOURCE_ID} = {self._source_id}"] if replaces else []),
            f"insert into {relation} ({', '.join(map(name, values))})"
            f" select {', '.join(values.values())} from {self._good} s",
        ]

    def _upsert(self, loaded_at: str, *, replaces: bool) -> list[str]:
        relation, values = self._tables.relation, self._values(loaded_at)
        updates = ", ".join(
            f"{name(column)} = {value}" for column, value in values.items() if column not in self._key
        )
        statements = [
            f"merge {relation} t using {self._good} s on {self._same}"
            f" when matched then update set {updates}"
            f" when not matched then insert ({', '.join(map(name, values))})"
            f" values ({', '.join(values.values())})"
        ]
        if replaces:
            # What the new version has is stamped anew; the rest is what it no longer has.
            statements.append(
                f"delete from {relation} where {SOURCE_ID} = {self._source_id} and {LOADED_AT} <> {loaded_at}"
            )
        return statements


def _text(number: int, kind: str, csv: Csv) -> str:
    """The value of a staged column as text, in SQL: null where the file means it, and a point in numbers."""
    text = f"c{number}"
    if csv.null_values:
        text = f"if({text} in ({', '.join(map(literal, csv.null_values))}), null, {text})"
    if kind != "STRING":
        text = f"nullif({text}, '')"
    if kind in _TIMES:
        # Parquet has nanoseconds.
        text = f"regexp_replace({text}, r'([.][0-9]{{6}})[0-9]+', r'\\1')"
    if csv.decimal == "," and kind.startswith(_NUMBERS):
        # A point may only stand between thousands: 1.234,5 but not 1.5, which would become 15.
        text = (
            f"case when not regexp_contains({text}, r'[.]') then replace({text}, ',', '.')"
            f" when regexp_contains({text}, r'^[-+]?[0-9]{{1,3}}([.][0-9]{{3}})+(,[0-9]*)?$')"
            f" then replace(replace({text}, '.', ''), ',', '.')"
            f" else concat({text}, ' (with a decimal comma)') end"
        )
    return text
