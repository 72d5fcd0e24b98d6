"""From a staging table into the table of a source, in the transaction of the caller."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.sql import SQL, Composable, Identifier, Literal

from orrery.config.ingest import Csv, Files
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingFile
from orrery.ingest.staging import Staged
from orrery.ingest.target import (
    LOADED_AT,
    META,
    ROW_NUMBER,
    SOURCE_FILE,
    SOURCE_ID,
    Cursor,
    Target,
    add_columns,
    check_name,
    column_types,
)

_TEXT = re.compile(r"text|character varying(\(\d+\))?|character\(\d+\)|citext|name")
_FREE_TEXT = ("text", "character varying", "citext")
_NUMBERS = re.compile(r"numeric(\(.*\))?|real|double precision")
_SHOWN = 5


@dataclass(frozen=True)
class Merged:
    """What became of the rows of a file; `inserted + updated + rejected` are all of them."""

    inserted: int
    updated: int
    rejected: int


@dataclass(frozen=True)
class _Field:
    """A staged column on its way into a column of the table: `text` is its value as text, in SQL."""

    name: str
    kind: str
    text: Composable

    @property
    def value(self) -> Composable:
        return self.text if self.kind == "text" else SQL("({})::{}").format(self.text, SQL(self.kind))

    @property
    def is_invalid(self) -> Composable | None:
        """The condition under which the value does not fit, in SQL; None where every text fits."""
        if self.kind in _FREE_TEXT:
            return None
        return SQL("pg_input_is_valid({}, {}) is false").format(self.text, Literal(self.kind))

    @property
    def complaint(self) -> Composable:
        """What is wrong with the value, in SQL."""
        return SQL("{} || (pg_input_error_info({}, {})).message").format(
            Literal(f"{self.name}: "), self.text, Literal(self.kind)
        )


def match_columns(
    file: LandingFile, columns: tuple[str, ...], target: Target, existing: Mapping[str, str], spec: Files
) -> tuple[list[str | None], dict[str, str]]:
    """For each column of a file the one of the table, or None to ignore it; and the ones to add.

    Names match exactly, else without regard to case. Raises FileError.
    """
    folded = {name.lower(): name for name in existing}
    names = [column if column in existing else folded.get(column.lower(), column) for column in columns]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FileError(file.name, f"has the column {twice!r} twice", "Land it with different names.", 1)
    missing = [name for name in target.columns if name not in names]
    if missing and spec.file_format != "jsonl":
        shown = ", ".join(map(repr, missing))
        raise FileError(file.name, f"has no column {shown}", "Land it with all declared columns.", 1)
    new = [name for name in names if name not in existing]
    if new and spec.on_new_column == "fail":
        shown = ", ".join(map(repr, new))
        fix = "Declare it in the source, or set on_new_column: add or ignore."
        raise FileError(file.name, f"has a column that the source does not: {shown}", fix, 1)
    if spec.on_new_column == "ignore":
        return [name if name in existing else None for name in names], {}
    for name in new:
        check_name(file.name, name)
    return list(names), dict.fromkeys(new, "text")


def merge(
    cursor: Cursor,
    target: Target,
    spec: Files,
    file: LandingFile,
    staged: Staged,
    *,
    run_id: str,
    loaded_at: datetime,
    before: bool,
) -> Merged:
    """Move staged rows into the table, bad ones into the table of rejected rows.

    :param before: whether an earlier version of the file is in the table; its rows are replaced
    Raises FileError when more rows are bad than the source allows.
    """
    existing = column_types(cursor, target)
    names, new = match_columns(file, staged.columns, target, existing, spec)
    add_columns(cursor, target, new)
    types = existing | new
    fields = [
        _Field(name, types[name], _text(number, types[name], spec.csv))
        for number, name in enumerate(names, start=1)
        if name is not None
    ]
    key = [field for field in fields if field.name in target.key]
    source_id = file.source_id(target.source)
    rejected = _reject(cursor, target, staged, fields, file, source_id, run_id, loaded_at)
    _check_rejected(cursor, target, spec, file, source_id, rejected, staged.rows)
    if before and not key:
        cursor.execute(
            SQL("delete from {} where {} = %s").format(target.relation, Identifier(SOURCE_ID)), [source_id]
        )
    earlier = _inserted(cursor, target)
    meta = {LOADED_AT: loaded_at, SOURCE_FILE: file.name, SOURCE_ID: source_id}
    cursor.execute(_insert(cursor, target, staged, fields, key, meta, some_rejected=rejected > 0))
    inserted = _inserted(cursor, target) - earlier
    if before and key:
        # What the new version has is stamped anew; the rest is what it no longer has.
        cursor.execute(
            SQL("delete from {} where {} = %s and {} < %s").format(
                target.relation, Identifier(SOURCE_ID), Identifier(LOADED_AT)
            ),
            [source_id, loaded_at],
        )
    return Merged(inserted, staged.rows - rejected - inserted, rejected)


def _text(number: int, kind: str, csv: Csv) -> Composable:
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


def _reject(
    cursor: Cursor,
    target: Target,
    staged: Staged,
    fields: list[_Field],
    file: LandingFile,
    source_id: str,
    run_id: str,
    loaded_at: datetime,
) -> int:
    """Write the bad rows of a file, in place of those of its earlier versions; returns their number."""
    cursor.execute(SQL("delete from {} where _source_id = %s").format(target.rejected), [source_id])
    conditions, complaints = [SQL("_reason is not null")], []
    for field in fields:
        if (invalid := field.is_invalid) is not None:
            conditions.append(invalid)
            complaints.append(SQL("when {} then {}").format(invalid, field.complaint))
        if field.name in target.key:
            empty = SQL("{} is null").format(field.text)
            conditions.append(empty)
            complaints.append(
                SQL("when {} then {}").format(empty, Literal(f"{field.name}: the key is empty"))
            )
    columns = [Identifier(f"c{number}") for number in range(1, len(staged.columns) + 1)]
    content = SQL("json_object(array[{}], array[{}]::text[])::text").format(
        SQL(", ").join(map(Literal, staged.columns)), SQL(", ").join(columns)
    )
    reason = SQL("case when _reason is not null then _reason {} end").format(SQL(" ").join(complaints))
    cursor.execute(
        SQL(
            "insert into {rejected} (_source_file, _source_id, _row_number, _line, reason, content,"
            " _rejected_at, run_id) select {file}, {source_id}, _row, _line, {reason},"
            " case when _reason is null then {content} else c1 end, {now}, {run_id}"
            " from {stage} where {bad}"
        ).format(
            rejected=target.rejected,
            reason=reason,
            content=content if columns else SQL("c1"),
            stage=staged.relation,
            bad=SQL(" or ").join(conditions),
            file=Literal(file.name),
            source_id=Literal(source_id),
            now=Literal(loaded_at),
            run_id=Literal(run_id),
        )
    )
    return int(cursor.rowcount)


def _check_rejected(
    cursor: Cursor, target: Target, spec: Files, file: LandingFile, source_id: str, rejected: int, rows: int
) -> None:
    most = spec.max_rejected * rows if isinstance(spec.max_rejected, float) else spec.max_rejected
    if rejected <= most:
        return
    cursor.execute(
        SQL(
            "select coalesce(_line, _row_number), reason from {} where _source_id = %s"
            " order by _row_number limit {}"
        ).format(target.rejected, Literal(_SHOWN)),
        [source_id],
    )
    bad = cursor.fetchall()
    shown = "".join(f"\n    line {line}: {reason}" for line, reason in bad)
    more = f"\n    and {rejected - len(bad)} more" if rejected > len(bad) else ""
    raise FileError(
        file.name,
        f"{rejected:,} of {rows:,} rows are bad, and max_rejected allows {most:g}:{shown}{more}",
        "Correct the file, or allow more; nothing of it is loaded.",
        bad[0][0],
    )


def _insert(
    cursor: Cursor,
    target: Target,
    staged: Staged,
    fields: list[_Field],
    key: list[_Field],
    meta: Mapping[str, Any],
    *,
    some_rejected: bool,
) -> Composable:
    """The statement that moves the good rows; `meta` are the values that are the same for all."""
    good = SQL("{} s").format(staged.relation)
    if some_rejected:
        good = SQL(
            "(select * from {} where not exists"
            " (select from {} r where r._source_id = {} and r._row_number = _row)) s"
        ).format(staged.relation, target.rejected, Literal(meta[SOURCE_ID]))
    statement = SQL("insert into {} ({}) select {} from {}").format(
        target.relation,
        SQL(", ").join(map(Identifier, [*(field.name for field in fields), *meta, ROW_NUMBER])),
        SQL(", ").join([*(field.value for field in fields), *map(Literal, meta.values()), SQL("_row")]),
        good,
    )
    if not key:
        return statement
    by = SQL(", ").join(field.value for field in key)
    cursor.execute(SQL("select exists (select from {} group by {} having count(*) > 1)").format(good, by))
    if cursor.fetchone()[0]:
        # The last row of a key wins.
        statement = SQL("{} join (select max(_row) as _row from {} group by {}) last using (_row)").format(
            statement, good, by
        )
    columns = [*column_types(cursor, target), *META]
    updates = SQL(", ").join(
        SQL("{0} = excluded.{0}").format(Identifier(name)) for name in columns if name not in target.key
    )
    return SQL("{} on conflict ({}) do update set {}").format(
        statement, SQL(", ").join(map(Identifier, target.key)), updates
    )


def _inserted(cursor: Cursor, target: Target) -> int:
    """How many rows this session has inserted into the table, as PostgreSQL counts them."""
    cursor.execute(
        "select pg_stat_get_xact_tuples_inserted(to_regclass(%s))", [target.relation.as_string(cursor)]
    )
    return int(cursor.fetchone()[0])
