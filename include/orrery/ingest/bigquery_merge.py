"""The SQL that moves the rows of a staged file into the table of a source, in BigQuery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orrery.config.ingest import Csv, Files
from orrery.ingest.bigquery import literal, name
from orrery.ingest.bigquery_staging import Staged
from orrery.ingest.bigquery_tables import META, Tables
from orrery.ingest.landing import LandingFile
from orrery.ingest.merge import LONGEST_REASON
from orrery.ingest.target import LOADED_AT, ROW_NUMBER, SOURCE_FILE, SOURCE_ID

# The time of the load, and what became of the rows of the file at hand. Not called like columns, which would
# come first.
DECLARED = (
    "declare load_time TIMESTAMP",
    "declare inserted_rows, rejected_rows INT64 default 0",
)
_TRUE = "('t', 'true', 'y', 'yes', 'on', '1')"
_FALSE = "('f', 'false', 'n', 'no', 'off', '0')"
_NUMBERS = ("NUMERIC", "BIGNUMERIC", "FLOAT64")


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

    @property
    def complaints(self) -> list[str]:
        """What may be wrong with the value, as branches of a `case`."""
        if self.kind == "STRING":
            return []
        told = f"concat({literal(f'{self.column}: is no {self.kind}: ')}, {self.text})"
        return [f"when {self.text} is not null and {self.value} is null then {told}"]

    @property
    def missing(self) -> list[str]:
        """The same of a column of the key that is empty."""
        return [f"when {self.text} is null then {literal(f'{self.column}: the key is empty')}"]


class FileMerge:
    """The statements for one staged file, of a script with the variables of DECLARED.

    :param kinds: the columns of the table with their types
    :param names: for each staged column the one of the table, or None
    """

    def __init__(
        self,
        tables: Tables,
        spec: Files,
        file: LandingFile,
        staged: Staged,
        *,
        names: Sequence[str | None],
        kinds: Mapping[str, str],
    ) -> None:
        self._tables, self._spec, self._file, self._staged, self._kinds = tables, spec, file, staged, kinds
        self._source_id = literal(file.source_id(tables.target.source))
        self._stage = name(tables.target.schema, staged.table)
        csv = spec.csv if spec.file_format == "csv" else Csv()
        self._fields = [
            Field(column, kinds[column], _text(number, kinds[column], csv))
            for number, column in enumerate(names, start=1)
            if column is not None
        ]
        # A file of JSON lines may lack the key in all of them.
        self._fields += [
            Field(key, kinds[key], "cast(null as STRING)") for key in tables.target.key if key not in names
        ]

    @property
    def _checked(self) -> str:
        """The staged rows with what is wrong with each, in `_why`."""
        key = self._tables.target.key
        complaints = [each for field in self._fields for each in field.complaints]
        complaints += [each for field in self._fields if field.column in key for each in field.missing]
        return (
            f"(select *, case when _reason is not null then _reason {' '.join(complaints)} end as _why"
            f" from {self._stage})"
        )

    @property
    def _good(self) -> str:
        """The rows that go into the table, with its columns; the last one of a key."""
        values = [f"{field.value} as {name(field.column)}" for field in self._fields]
        rows = (
            f"select {', '.join(values)}, _row as {name(ROW_NUMBER)} from {self._checked} where _why is null"
        )
        key = self._tables.target.key
        if not key:
            return f"({rows})"
        by = ", ".join(map(name, key))
        ranked = f"select *, row_number() over (partition by {by} order by {ROW_NUMBER} desc) as _last from ({rows})"
        return f"(select * except (_last) from ({ranked}) where _last = 1)"

    def bad(self, most: int) -> str:
        """A query of the number of bad rows, and of line and reason of the first ones."""
        return (
            f"select count(*) over () as bad, coalesce(_line, _row) as line, substr(_why, 1, {LONGEST_REASON})"
            " as reason"
            f" from {self._checked} where _why is not null order by _row limit {most}"
        )

    def statements(self, *, replaces: bool, run_id: str) -> list[str]:
        """What is done in the transaction."""
        return [
            f"delete from {self._tables.rejected} where _source_id = {self._source_id}",
            self._reject(run_id),
            f"set rejected_rows = (select count(*) from {self._tables.rejected} where _source_id = {self._source_id})",
            *(
                self._upsert(replaces=replaces)
                if self._tables.target.key
                else self._append(replaces=replaces)
            ),
        ]

    def _reject(self, run_id: str) -> str:
        content = ", ".join(
            f"c{number} as {name(column)}" for number, column in enumerate(self._staged.columns, start=1)
        )
        whole = f"to_json_string(struct({content}))" if content else "c1"
        return (
            f"insert into {self._tables.rejected} (_source_file, _source_id, _row_number, _line, reason, content,"
            f" _rejected_at, run_id) select {literal(self._file.name)}, {self._source_id}, _row, _line, _why,"
            f" case when _reason is not null then c1 else {whole} end, load_time, {literal(run_id)}"
            f" from {self._checked} where _why is not null"
        )

    def _append(self, *, replaces: bool) -> list[str]:
        relation, columns = self._tables.relation, [field.column for field in self._fields]
        earlier = [f"delete from {relation} where {SOURCE_ID} = {self._source_id}"] if replaces else []
        return [
            *earlier,
            f"insert into {relation} ({', '.join(map(name, [*columns, *META]))})"
            f" select {', '.join(map(name, columns))}, {self._meta} from {self._good}",
            f"set inserted_rows = (select count(*) from {relation} where {SOURCE_ID} = {self._source_id}"
            f" and {LOADED_AT} = load_time)",
        ]

    def _upsert(self, *, replaces: bool) -> list[str]:
        relation, key = self._tables.relation, self._tables.target.key
        same = " and ".join(f"t.{name(column)} = s.{name(column)}" for column in key)
        own = {field.column for field in self._fields} | set(META)
        # A column that the file lacks becomes null, as in a new row.
        values = {
            column: f"s.{name(column)}" if column in own else f"cast(null as {kind})"
            for column, kind in {**self._kinds, **META}.items()
        }
        updates = ", ".join(
            f"{name(column)} = {value}" for column, value in values.items() if column not in key
        )
        good = f"(select *, {self._meta_as} from {self._good})"
        statements = [
            f"set inserted_rows = (select count(*) from {self._good} s where not exists"
            f" (select 1 from {relation} t where {same}))",
            f"merge {relation} t using {good} s on {same} when matched then update set {updates}"
            f" when not matched then insert ({', '.join(map(name, values))}) values ({', '.join(values.values())})",
        ]
        if replaces:
            # What the new version has is stamped anew; the rest is what it no longer has.
            statements.append(
                f"delete from {relation} where {SOURCE_ID} = {self._source_id} and {LOADED_AT} <> load_time"
            )
        return statements

    @property
    def _meta(self) -> str:
        return f"load_time, {literal(self._file.name)}, {self._source_id}, {ROW_NUMBER}"

    @property
    def _meta_as(self) -> str:
        """The same for rows that have their number already."""
        return (
            f"load_time as {LOADED_AT}, {literal(self._file.name)} as {SOURCE_FILE},"
            f" {self._source_id} as {SOURCE_ID}"
        )


def _text(number: int, kind: str, csv: Csv) -> str:
    """The value of a staged column as text, in SQL: null where the file means it, and a point in numbers."""
    text = f"c{number}"
    if csv.null_values:
        text = f"if({text} in ({', '.join(map(literal, csv.null_values))}), null, {text})"
    if kind != "STRING":
        text = f"nullif({text}, '')"
    if csv.decimal == "," and kind.startswith(_NUMBERS):
        # A point may only stand between thousands: 1.234,5 but not 1.5, which would become 15.
        text = (
            f"case when not regexp_contains({text}, r'[.]') then replace({text}, ',', '.')"
            rf" when regexp_contains({text}, r'^[-+]?[0-9]{{1,3}}([.][0-9]{{3}})+(,[0-9]*)?$')"
            f" then replace(replace({text}, '.', ''), ',', '.') else concat({text}, ' (with a decimal comma)') end"
        )
    return text
