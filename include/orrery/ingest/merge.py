"""From a staging table into the table of a source, in the transaction of the caller."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.sql import SQL, Composable, Identifier, Literal

from orrery.config.ingest import Csv, Files
from orrery.ingest.landing import LandingFile
from orrery.ingest.matching import (
    LONGEST_REASON,
    NO_NUMBER,
    NO_TIME,
    NUMBER_WORDS,
    SHOWN,
    TIME_WORDS,
    Merged,
    is_allowed,
    match_columns,
    too_many,
)
from orrery.ingest.staging import Staged
from orrery.ingest.target import (
    LOADED_AT,
    META,
    POSTGRESQL,
    ROW_NUMBER,
    SOURCE_FILE,
    SOURCE_ID,
    Cursor,
    Target,
    add_columns,
    base_type,
    column_types,
)

_TEXT = re.compile(r"text|character varying(\(\d+\))?|character\(\d+\)|citext|name")
_FREE_TEXT = ("text", "character varying", "citext")
_NUMBERS = re.compile(r"numeric(\(.*\))?|real|double precision")
# With arrays and ranges of them.
_TIMES = re.compile("date|time|interval|tsrange|tsmulti|tstz")
_EXACT = re.compile(r"num(eric|range|multirange)")
# The type of PostgreSQL's own names cuts what is longer.
_LONGEST_NAME = 63


@dataclass(frozen=True)
class _Field:
    """A staged column on its way into a column of the table: `text` is its value as text, in SQL.

    `base` is what the type is made of, where it is a domain.
    """

    name: str
    kind: str
    base: str
    text: Composable

    @property
    def value(self) -> Composable:
        return self.text if self.kind == "text" else SQL("({})::{}").format(self.text, SQL(self.kind))

    def checks(self, *, is_key: bool) -> Iterator[tuple[Composable, Composable]]:
        """The conditions under which the value does not fit, in SQL, each with what is wrong then."""
        if self.kind not in _FREE_TEXT:
            yield (
                SQL("pg_input_is_valid({}, {}) is false").format(self.text, Literal(self.kind)),
                SQL("{} || (pg_input_error_info({}, {})).message").format(
                    Literal(f"{self.name}: "), self.text, Literal(self.kind)
                ),
            )
            if found := self._is_taken_silently():
                condition, why = found
                shown = SQL("{} || to_json(left({}, 100)) || {}").format(
                    Literal(f"{self.name}: "), self.text, Literal(f" {why}")
                )
                yield condition, shown
        if is_key:
            yield SQL("{} is null").format(self.text), Literal(f"{self.name}: the key is empty")

    def _is_taken_silently(self) -> tuple[Composable, str] | None:
        """The condition under which PostgreSQL makes something else of the text, and what to say of it."""
        if self.base == "name":
            condition = SQL("octet_length({}) > {}").format(self.text, Literal(_LONGEST_NAME))
            return condition, f"is longer than {_LONGEST_NAME} bytes"
        # Patterns are slow: next to no value has a letter, and most of those that have, only T and Z.
        letters = SQL('lower({0} collate "C") <> upper({0} collate "C")').format(self.text)
        if _TIMES.match(self.base):
            words = SQL("{0} and {1} ~ '[A-SU-Ya-su-y]' and {1} ~* {2}")
            return words.format(letters, self.text, Literal(TIME_WORDS)), NO_TIME
        if _EXACT.match(self.base):
            return SQL("{} and {} ~* {}").format(letters, self.text, Literal(NUMBER_WORDS)), NO_NUMBER
        return None


class Merge:
    """Moves the rows of one staged file into the table, and the bad ones into that of the rejected rows.

    :param replaces: whether an earlier version of the file is in the table; its rows are replaced
    """

    def __init__(
        self,
        cursor: Cursor,
        target: Target,
        spec: Files,
        file: LandingFile,
        staged: Staged,
        *,
        run_id: str,
        loaded_at: datetime,
        replaces: bool,
    ) -> None:
        self._cursor, self._target, self._spec, self._file, self._staged = cursor, target, spec, file, staged
        self._run_id, self._loaded_at, self._replaces = run_id, loaded_at, replaces
        self._source_id = file.source_id(target.source)

    def execute(self) -> Merged:
        """Move the rows; raises FileError when more of them are bad than the source allows."""
        fields = self._fields()
        key = [field for field in fields if field.name in self._target.key]
        rejected = self._reject(fields)
        self._check_rejected(rejected)
        if self._replaces and not key:
            self._delete_earlier(SQL("true"))
        inserted = self._inserted()
        self._cursor.execute(self._insert(fields, key, some_rejected=rejected > 0))
        inserted = self._inserted() - inserted
        if self._replaces and key:
            # What the new version has is stamped anew; the rest is what it no longer has.
            self._delete_earlier(SQL("{} <> {}").format(Identifier(LOADED_AT), Literal(self._loaded_at)))
        return Merged(inserted, self._staged.rows - rejected - inserted, rejected)

    def _fields(self) -> list[_Field]:
        existing = column_types(self._cursor, self._target)
        names, new = match_columns(
            self._file, self._staged.columns, self._target, existing, self._spec, limits=POSTGRESQL
        )
        add_columns(self._cursor, self._target, new)
        types = existing | new
        # What a value looks like is not open in the other formats.
        csv = self._spec.csv if self._spec.file_format == "csv" else Csv()
        fields = [
            self._field(name, types[name], _text(number, types[name], csv))
            for number, name in enumerate(names, start=1)
            if name is not None
        ]
        # A file of JSON lines may lack the key in all of them.
        absent = [name for name in self._target.key if name not in names]
        return [*fields, *(self._field(name, types[name], SQL("null::text")) for name in absent)]

    def _field(self, name: str, kind: str, text: Composable) -> _Field:
        return _Field(name, kind, base_type(self._cursor, kind), text)

    def _reject(self, fields: list[_Field]) -> int:
        """Write the bad rows of the file, in place of those of its earlier version; returns their number."""
        rejected = self._target.rejected
        self._cursor.execute(
            SQL("delete from {} where _source_id = {}").format(rejected, Literal(self._source_id))
        )
        conditions: list[Composable] = [SQL("_reason is not null")]
        complaints: list[Composable] = []
        for field in fields:
            for condition, complaint in field.checks(is_key=field.name in self._target.key):
                conditions.append(condition)
                complaints.append(SQL("when {} then {}").format(condition, complaint))
        self._cursor.execute(
            SQL(
                "insert into {rejected} (_source_file, _source_id, _row_number, _line, reason, content,"
                " _rejected_at, run_id) select {file}, {source_id}, _row, _line,"
                " case when _reason is not null then _reason {complaints} end,"
                " case when _reason is not null then c1 else {content} end, {now}, {run_id}"
                " from {stage} where {bad}"
            ).format(
                rejected=rejected,
                file=Literal(self._file.name),
                source_id=Literal(self._source_id),
                complaints=SQL(" ").join(complaints),
                content=self._content(),
                now=Literal(self._loaded_at),
                run_id=Literal(self._run_id),
                stage=self._staged.relation,
                bad=SQL(" or ").join(conditions),
            )
        )
        return int(self._cursor.rowcount)

    def _content(self) -> Composable:
        """A staged row as JSON, in SQL."""
        columns = self._staged.columns
        return SQL("json_object(array[{}]::text[], array[{}]::text[])::text").format(
            SQL(", ").join(map(Literal, columns)),
            SQL(", ").join(Identifier(f"c{number}") for number in range(1, len(columns) + 1)),
        )

    def _check_rejected(self, rejected: int) -> None:
        if is_allowed(self._spec, rejected, self._staged.rows):
            return
        self._cursor.execute(
            SQL(
                "select coalesce(_line, _row_number), left(reason, {longest}) from {rejected}"
                " where _source_id = {source_id} order by _row_number limit {shown}"
            ).format(
                longest=Literal(LONGEST_REASON),
                rejected=self._target.rejected,
                source_id=Literal(self._source_id),
                shown=Literal(SHOWN),
            )
        )
        raise too_many(self._file, self._spec, rejected, self._staged.rows, self._cursor.fetchall())

    def _insert(self, fields: list[_Field], key: list[_Field], *, some_rejected: bool) -> Composable:
        """The statement that moves the good rows."""
        target, meta = self._target, self._meta()
        good = SQL("{} s").format(self._staged.relation)
        if some_rejected:
            good = SQL(
                "(select * from {} where not exists"
                " (select from {} r where r._source_id = {} and r._row_number = _row)) s"
            ).format(self._staged.relation, target.rejected, Literal(self._source_id))
        statement = SQL("insert into {} ({}) select {} from {}").format(
            target.relation,
            SQL(", ").join(map(Identifier, [*(field.name for field in fields), *meta, ROW_NUMBER])),
            SQL(", ").join([*(field.value for field in fields), *map(Literal, meta.values()), SQL("_row")]),
            good,
        )
        if not key:
            return statement
        by = SQL(", ").join(field.value for field in key)
        self._cursor.execute(
            SQL("select exists (select from {} group by {} having count(*) > 1)").format(good, by)
        )
        if self._cursor.fetchone()[0]:
            # The last row of a key wins.
            statement = SQL(
                "{} join (select max(_row) as _row from {} group by {}) last using (_row)"
            ).format(statement, good, by)
        columns = [*column_types(self._cursor, target), *META]
        updates = SQL(", ").join(
            SQL("{0} = excluded.{0}").format(Identifier(name)) for name in columns if name not in target.key
        )
        return SQL("{} on conflict ({}) do update set {}").format(
            statement, SQL(", ").join(map(Identifier, target.key)), updates
        )

    def _meta(self) -> dict[str, Any]:
        return {LOADED_AT: self._loaded_at, SOURCE_FILE: self._file.name, SOURCE_ID: self._source_id}

    def _delete_earlier(self, condition: Composable) -> None:
        self._cursor.execute(
            SQL("delete from {} where {} = {} and {}").format(
                self._target.relation, Identifier(SOURCE_ID), Literal(self._source_id), condition
            )
        )

    def _inserted(self) -> int:
        """How many rows this session has inserted into the table, as PostgreSQL counts them."""
        relation = Literal(self._target.relation.as_string(self._cursor))
        self._cursor.execute(SQL("select pg_stat_get_xact_tuples_inserted(to_regclass({}))").format(relation))
        return int(self._cursor.fetchone()[0])


def _text(number: int, kind: str, csv: Csv) -> Composable:
    """The value of a staged column as text, in SQL: null where the file means it, and a point in numbers."""
    text: Composable = Identifier(f"c{number}")
    if csv.null_values:
        text = SQL("case when {0} in ({1}) then null else {0} end").format(
            text, SQL(", ").join(map(Literal, csv.null_values))
        )
    if not _TEXT.fullmatch(kind):
        text = SQL("nullif({}, '')").format(text)
    if csv.decimal == "," and _NUMBERS.fullmatch(kind):
        # A point may only stand between thousands: 1.234,5 but not 1.5, which would become 15.
        text = SQL(
            "case when {0} !~ '[.]' then replace({0}, ',', '.')"
            " when {0} ~ '^[-+]?[0-9]{{1,3}}([.][0-9]{{3}})+(,[0-9]*)?$' then translate({0}, ',.', '.')"
            " else {0} || ' (with a decimal comma)' end"
        ).format(text)
    return text
