"""The tables that a load fills: the source's own, its rejected rows, and the ledger of loaded files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg2
from psycopg2 import errors
from psycopg2.sql import SQL, Composable, Composed, Identifier, Literal

from orrery.config.errors import suggest
from orrery.ingest.errors import FileError, IngestError
from orrery.ingest.limits import Limits

Cursor = Any
# Opens a connection to the warehouse, as psycopg2 does.
Connect = Callable[[], Any]

# What every row carries besides its own columns.
LOADED_AT, SOURCE_FILE, SOURCE_ID, ROW_NUMBER = "_loaded_at", "_source_file", "_source_id", "_row_number"
META = {LOADED_AT: "timestamptz", SOURCE_FILE: "text", SOURCE_ID: "text", ROW_NUMBER: "bigint"}
LEDGER = "_orrery_ledger"
# What PostgreSQL says of data, unlike of a connection, a lock or a disk: to try again is of no use.
_REFUSALS = (
    psycopg2.DataError,
    psycopg2.IntegrityError,
    psycopg2.ProgrammingError,
    psycopg2.NotSupportedError,
    errors.ProgramLimitExceeded,
    errors.StatementTooComplex,
    errors.TooManyColumns,
)
_TYPE = re.compile(r"[a-z_][a-z0-9_ ]*(\(\d+(,\s*\d+)?\))?[a-z ]*(\[\])*", re.IGNORECASE)
# These are no domains, so that nobody has to ask what they are made of.
_PLAIN = re.compile(
    "(text|character|smallint|integer|bigint|numeric|real|double precision|boolean|bytea|jsonb?|uuid"
    r"|date|time|timestamp|interval)(?![a-z])"
)

_LEDGER = """
create table if not exists {ledger} (
    load_id bigint generated always as identity primary key,
    table_name text not null, file text not null, source_id text not null, version text not null,
    content_hash text not null, bytes bigint not null,
    rows_read bigint not null, inserted bigint not null, updated bigint not null, rejected bigint not null,
    run_id text not null, loaded_at timestamptz not null
);
create index if not exists {index} on {ledger} (table_name, source_id, load_id);
"""
_REJECTED = """
create table if not exists {rejected} (
    _source_file text not null, _source_id text not null, _row_number bigint not null, _line bigint,
    reason text not null, content text, _rejected_at timestamptz not null, run_id text not null,
    primary key (_source_id, _row_number)
)
"""


# A table has 1,600, of which a staging table needs three for itself.
POSTGRESQL = Limits("PostgreSQL", 63, 63, "bytes", 1597)


@dataclass(frozen=True)
class Target:
    """A table of a source: `columns` are the declared ones with their types, in the YAML's order.

    `source` is `<source>.<table>` as dbt names it.
    """

    schema: str
    table: str
    source: str
    columns: Mapping[str, str]
    key: tuple[str, ...]

    @property
    def relation(self) -> Composable:
        """The table's name in SQL."""
        return Identifier(self.schema, self.table)

    @property
    def rejected(self) -> Composable:
        """The name of the table of the rejected rows."""
        return Identifier(self.schema, f"{self.table}__rejected")

    @property
    def ledger(self) -> Composable:
        """The name of the ledger of the schema."""
        return Identifier(self.schema, LEDGER)

    def check(self, limits: Limits) -> None:
        """Raise IngestError for a declaration that no table can be made of."""
        where = f"source {self.source}"
        for name, kind in self.columns.items():
            if not _TYPE.fullmatch(kind.strip()):
                raise IngestError(
                    f"{where}: {kind!r} is no type of column {name!r}.\n  Correct its data_type."
                )
            check_name(where, name, limits)
        for name in self.key:
            if name not in self.columns:
                fix = suggest(name, self.columns, "column")
                raise IngestError(f"{where}: the key column {name!r} is not declared.\n  {fix}")
        if limits.is_longer(f"{self.table}__rejected", limits.table):
            raise IngestError(
                f"{where}: the name {self.table!r} is too long for a table.\n  Set an identifier."
            )


def check_name(where: str, name: str, limits: Limits) -> None:
    """Raise IngestError for a name that no column of a loaded table can have."""
    if not name:
        raise IngestError(f"{where}: a column has no name.\n  Name it.")
    if name in META:
        raise IngestError(f"{where}: the column name {name!r} is reserved.\n  Call the column otherwise.")
    if limits.is_longer(name, limits.name):
        raise IngestError(
            f"{where}: the column name {name!r} is too long.\n"
            f"  {limits.warehouse} allows {limits.name} {limits.unit}."
        )


def lock(cursor: Cursor, target: Target) -> None:
    """Wait until no other load of the table is at work; held until the transaction ends."""
    name = f"orrery.ingest:{target.schema}.{target.table}"
    cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])


def ensure(cursor: Cursor, target: Target) -> None:
    """Create what is missing of the tables; raises IngestError where the declaration does not fit.

    A declared column that the table does not have is added to it.
    """
    target.check(POSTGRESQL)
    # For all tables of the schema: two loads must not both create the ledger.
    cursor.execute(
        "select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"orrery.ledger:{target.schema}"]
    )
    lock(cursor, target)
    index = Identifier(f"{LEDGER}_file")
    try:
        cursor.execute(SQL(_LEDGER).format(ledger=target.ledger, index=index))
        cursor.execute(SQL(_REJECTED).format(rejected=target.rejected))
        declared = _declared_types(cursor, target)
        if not _columns(cursor, target.relation):
            _create(cursor, target)
        else:
            _adapt(cursor, target, declared, column_types(cursor, target))
    except (errors.InsufficientPrivilege, errors.InvalidSchemaName) as error:
        raise IngestError(
            f"source {target.source}: the loader cannot write the schema {target.schema!r}: {_text(error)}.\n"
            "  Let it own the schema, or name another schema in the source."
        ) from None


def column_types(cursor: Cursor, target: Target) -> dict[str, str]:
    """The columns with their types, without those that every row carries or that PostgreSQL fills itself."""
    columns = _columns(cursor, target.relation, "and attgenerated = '' and attidentity <> 'a'")
    return {name: kind for name, kind in columns.items() if name not in META}


def add_columns(cursor: Cursor, target: Target, columns: Mapping[str, str]) -> None:
    """Add columns to the table."""
    for name, kind in columns.items():
        cursor.execute(
            SQL("alter table {} add column {} {}").format(target.relation, Identifier(name), SQL(kind))
        )


def base_type(cursor: Cursor, kind: str) -> str:
    """The type that a domain is made of; any other type is its own."""
    while not _PLAIN.match(kind):
        cursor.execute(
            "select format_type(typbasetype, typtypmod) from pg_type where oid = to_regtype(%s)"
            " and typtype = 'd'",
            [kind],
        )
        if (found := cursor.fetchone()) is None:
            break
        kind = found[0]
    return kind


@contextmanager
def refusals(file: str) -> Iterator[None]:
    """Make a FileError of what PostgreSQL says of the data of a file."""
    try:
        yield
    except _REFUSALS as error:
        raise FileError(
            file,
            f"PostgreSQL does not take it: {_text(error)}",
            "Correct the file or the source; nothing of the file is loaded.",
        ) from error


def _declared_types(cursor: Cursor, target: Target) -> dict[str, str]:
    """PostgreSQL's own names of the declared types."""
    name = Identifier("_orrery_declared")
    for column, kind in target.columns.items():
        try:
            cursor.execute(SQL("select cast(null as {})").format(SQL(kind)))
        except (errors.UndefinedObject, errors.SyntaxError, psycopg2.DataError):
            raise IngestError(
                f"source {target.source}: PostgreSQL has no type {kind!r} (column {column!r}).\n"
                "  Correct its data_type."
            ) from None
    cursor.execute(SQL("create temp table {} ({}) on commit drop").format(name, _definitions(target.columns)))
    types = _columns(cursor, name)
    cursor.execute(SQL("drop table {}").format(name))
    return types


def _create(cursor: Cursor, target: Target) -> None:
    definitions = _definitions({**target.columns, **META})
    if target.key:
        key = SQL(", ").join(map(Identifier, target.key))
        definitions = SQL("{}, primary key ({})").format(definitions, key)
    cursor.execute(SQL("create table {} ({})").format(target.relation, definitions))
    # The table was dropped: what was once loaded into it is not there any more.
    cursor.execute(SQL("delete from {} where table_name = {}").format(target.ledger, Literal(target.table)))
    cursor.execute(SQL("delete from {}").format(target.rejected))


def _adapt(cursor: Cursor, target: Target, declared: Mapping[str, str], existing: Mapping[str, str]) -> None:
    different = [name for name in declared if name in existing and declared[name] != existing[name]]
    if different:
        name = different[0]
        raise IngestError(
            f"source {target.source}: column {name!r} is {existing[name]} in the table, but declared as "
            f"{declared[name]}.\n  Alter the table, or drop it: its files are then loaded again."
        )
    present, wanted = _columns(cursor, target.relation), {**declared, **META}
    add_columns(cursor, target, {name: kind for name, kind in wanted.items() if name not in present})
    if target.key and not _has_unique_index(cursor, target):
        columns = SQL(", ").join(map(Identifier, target.key))
        try:
            cursor.execute(SQL("create unique index on {} ({})").format(target.relation, columns))
        except errors.UniqueViolation as error:
            raise IngestError(
                f"source {target.source}: the key is not unique in the table: {_text(error)}.\n"
                "  Correct the key, or remove the duplicates."
            ) from None


def _has_unique_index(cursor: Cursor, target: Target) -> bool:
    cursor.execute(
        SQL(
            "select exists (select from pg_index where indrelid = {}::regclass and indisunique"
            " and indimmediate and indpred is null and indexprs is null"
            " and (select array_agg(attname::text order by attname) from pg_attribute"
            " where attrelid = indrelid and attnum = any(indkey)) ="
            " (select array_agg(name order by name) from unnest({}::text[]) name))"
        ).format(Literal(target.relation.as_string(cursor)), Literal(list(target.key)))
    )
    return bool(cursor.fetchone()[0])


def _columns(cursor: Cursor, relation: Composable, condition: str = "") -> dict[str, str]:
    cursor.execute(
        "select attname, format_type(atttypid, atttypmod) from pg_attribute"
        f" where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped {condition} order by attnum",
        [relation.as_string(cursor)],
    )
    return dict(cursor.fetchall())


def _definitions(columns: Mapping[str, str]) -> Composed:
    return SQL(", ").join(SQL("{} {}").format(Identifier(name), SQL(kind)) for name, kind in columns.items())


def _text(error: psycopg2.Error) -> str:
    return (error.diag.message_primary or str(error)).strip()
