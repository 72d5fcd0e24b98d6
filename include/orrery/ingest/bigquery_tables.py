"""The tables in BigQuery that a load fills: the same as in PostgreSQL, by the same names."""

from __future__ import annotations

import re

from orrery.ingest.bigquery import BigQuery, RefusedError, literal, name, script
from orrery.ingest.errors import IngestError
from orrery.ingest.target import LEDGER, LOADED_AT, ROW_NUMBER, SOURCE_FILE, SOURCE_ID, Target

META = {LOADED_AT: "TIMESTAMP", SOURCE_FILE: "STRING", SOURCE_ID: "STRING", ROW_NUMBER: "INT64"}
# One line per table: who changes it, changes the table alone.
LOCKS = "_orrery_locks"
# The types of BigQuery by those of PostgreSQL; what is not here is called the same.
_TYPES = {
    "text": "STRING",
    "citext": "STRING",
    "uuid": "STRING",
    "character varying": "STRING",
    "varchar": "STRING",
    "character": "STRING",
    "char": "STRING",
    "smallint": "INT64",
    "int": "INT64",
    "integer": "INT64",
    "real": "FLOAT64",
    "float": "FLOAT64",
    "double precision": "FLOAT64",
    "decimal": "NUMERIC",
    "boolean": "BOOL",
    "timestamptz": "TIMESTAMP",
    "timestamp with time zone": "TIMESTAMP",
    "timestamp without time zone": "TIMESTAMP",
    "jsonb": "JSON",
    "bytea": "BYTES",
    "bigint": "INT64",
}
_SIZED = re.compile(r"([a-z_][a-z0-9_ ]*?)\s*(\(.*\))?", re.IGNORECASE)
_LEDGER = {
    "load_id": "STRING",
    "table_name": "STRING",
    "file": "STRING",
    "source_id": "STRING",
    "version": "STRING",
    "content_hash": "STRING",
    "bytes": "INT64",
    "rows_read": "INT64",
    "inserted": "INT64",
    "updated": "INT64",
    "rejected": "INT64",
    "run_id": "STRING",
    "loaded_at": "TIMESTAMP",
}
_REJECTED = {
    SOURCE_FILE: "STRING",
    SOURCE_ID: "STRING",
    ROW_NUMBER: "INT64",
    "_line": "INT64",
    "reason": "STRING",
    "content": "STRING",
    "_rejected_at": "TIMESTAMP",
    "run_id": "STRING",
}


class Tables:
    """The names of the tables of a target in SQL, and how they are made."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.relation = name(target.schema, target.table)
        self.rejected = name(target.schema, f"{target.table}__rejected")
        self.ledger = name(target.schema, LEDGER)
        self.locks = name(target.schema, LOCKS)

    @property
    def declared(self) -> dict[str, str]:
        """The declared columns, with BigQuery's types."""
        return {column: bigquery_type(kind) for column, kind in self.target.columns.items()}

    def ensure(self, warehouse: BigQuery) -> None:
        """Create what is missing; raises IngestError where the declaration does not fit.

        A declared column that the table does not have is added to it.
        """
        target, table = self.target, literal(self.target.table)
        target.check()
        warehouse.create_dataset(target.schema)
        existing = warehouse.columns(target.schema, target.table)
        different = [each for each, kind in self.declared.items() if existing.get(each, kind) != kind]
        if different:
            column = different[0]
            raise IngestError(
                f"source {target.source}: column {column!r} is {existing[column]} in the table, but declared as "
                f"{self.declared[column]}.\n  Alter the table, or drop it: its files are then loaded again."
            )
        cluster = f" cluster by {', '.join(map(name, target.key[:4]))}" if target.key else ""
        statements = [
            f"create table if not exists {self.ledger} ({_definitions(_LEDGER)})",
            f"create table if not exists {self.locks} (table_name STRING, taken_at TIMESTAMP)",
            f"create table if not exists {self.rejected} ({_definitions(_REJECTED)})",
        ]
        if existing:
            statements += self.add({**self.declared, **META}, existing)
        else:
            # The table was dropped: what was once loaded into it is not there any more.
            statements += [
                f"delete from {self.ledger} where table_name = {table}",
                f"delete from {self.rejected} where true",
                f"create table if not exists {self.relation} ({_definitions({**self.declared, **META})}){cluster}",
            ]
        statements.append(
            f"merge {self.locks} l using (select {table} as table_name) t on l.table_name = t.table_name"
            " when not matched then insert (table_name, taken_at) values (t.table_name, current_timestamp())"
        )
        try:
            for statement in statements:
                warehouse.run(statement)
        except RefusedError as error:
            raise IngestError(
                f"source {target.source}: {error}.\n  Correct the columns of the source."
            ) from None

    def add(self, wanted: dict[str, str], existing: dict[str, str]) -> list[str]:
        """Statements that add those of the columns that the table does not have."""
        return [
            f"alter table {self.relation} add column {name(column)} {kind}"
            for column, kind in wanted.items()
            if column not in existing
        ]


def bigquery_type(kind: str) -> str:
    """What BigQuery calls a declared type."""
    match = _SIZED.fullmatch(kind.strip())
    if match is None:
        return kind
    plain, size = " ".join(match[1].lower().split()), match[2] or ""
    found = _TYPES.get(plain, plain.upper())
    return found if found == "STRING" else found + ", ".join(size.replace(" ", "").split(","))


def _definitions(columns: dict[str, str]) -> str:
    return ", ".join(f"{name(column)} {kind}" for column, kind in columns.items())
