"""The tables in BigQuery that a load fills: the same as in PostgreSQL, by the same names."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime

from orrery.ingest.bigquery import BigQuery, RefusedError
from orrery.ingest.errors import IngestError
from orrery.ingest.limits import Limits
from orrery.ingest.target import LEDGER, LOADED_AT, ROW_NUMBER, SOURCE_FILE, SOURCE_ID, Target

# A table has 10,000 columns, of which a staging table needs four for itself.
BIGQUERY = Limits("BigQuery", 300, 1024, "characters", 9_996)
META = {LOADED_AT: "TIMESTAMP", SOURCE_FILE: "STRING", SOURCE_ID: "STRING", ROW_NUMBER: "INT64"}
# BigQuery's types by the names of PostgreSQL's; what is not here is called the same.
_TYPES = {
    **dict.fromkeys(
        ("text", "citext", "uuid", "character varying", "varchar", "character", "char"), "STRING"
    ),
    **dict.fromkeys(("smallint", "int", "integer", "bigint", "int2", "int4", "int8"), "INT64"),
    **dict.fromkeys(("real", "double precision", "float", "float4", "float8"), "FLOAT64"),
    **dict.fromkeys(("timestamptz", "timestamp with time zone", "timestamp without time zone"), "TIMESTAMP"),
    "decimal": "NUMERIC",
    "boolean": "BOOL",
    "jsonb": "JSON",
}
_SIZED = re.compile(r"([a-z_][a-z0-9_ ]*?)\s*(\([0-9, ]*\))?", re.IGNORECASE)
# BigQuery takes no more columns to cluster by.
_MOST_CLUSTERS = 4
_LEDGER = {
    **dict.fromkeys(("load_id", "table_name", "file", "source_id", "version", "content_hash"), "STRING"),
    **dict.fromkeys(("bytes", "rows_read", "inserted", "updated", "rejected"), "INT64"),
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
    """The tables of a target, by their names in SQL.

    BigQuery locks nothing, and of two transactions that change rows of a table it ends one. `lock` is a table
    of one row which every load of this target changes, so that of two loads at a time one ends.
    """

    def __init__(self, warehouse: BigQuery, target: Target) -> None:
        self._warehouse, self.target = warehouse, target
        self.relation, self.rejected, self.ledger, self.lock = (
            warehouse.sql_name(target.schema, table)
            for table in (
                target.table,
                f"{target.table}__rejected",
                LEDGER,
                f"_orrery_lock__{target.table}",
            )
        )

    @property
    def declared(self) -> dict[str, str]:
        """The declared columns with their types."""
        return {column: bigquery_type(kind) for column, kind in self.target.columns.items()}

    def columns(self) -> dict[str, str]:
        """The columns with their types, without those that every row carries."""
        found = self._warehouse.columns(self.target.schema, self.target.table) | self.declared
        return {column: kind for column, kind in found.items() if column not in META}

    def add_columns(self, columns: Mapping[str, str]) -> None:
        """Add columns to the table. BigQuery cannot do that in a transaction."""
        for column, kind in columns.items():
            self._warehouse.run(f"alter table {self.relation} add column if not exists {name(column)} {kind}")

    def ensure(self) -> None:
        """Create what is missing; raises IngestError where the declaration does not fit.

        A declared column that the table does not have is added to it.
        """
        target = self.target
        target.check(BIGQUERY)
        try:
            self._warehouse.create_dataset(target.schema)
            existing, missing_at = self._look()
            self._check(existing)
            self._warehouse.run(";\n".join(self._statements(missing_at)))
            if existing:
                wanted = {**self.declared, **META}
                self.add_columns({column: wanted[column] for column in wanted if column not in existing})
        except RefusedError as error:
            raise IngestError(
                f"source {target.source}: {error}.\n  Correct the columns of the source."
            ) from None

    def _look(self) -> tuple[Mapping[str, str], datetime | None]:
        """The columns of the table, or when it was not there."""
        where = self.target.schema, self.target.table
        if existing := self._warehouse.columns(*where):
            return existing, None
        ((now,),) = self._warehouse.run("select current_timestamp()")
        # Once more: it may have been made between the first look and that moment.
        existing = self._warehouse.columns(*where)
        return existing, None if existing else now

    def _check(self, existing: Mapping[str, str]) -> None:
        for column, kind in self.declared.items():
            # A column without a size takes all sizes; what fills it looks at the declared one.
            if existing.get(column, kind) not in (kind, kind.partition("(")[0]):
                raise IngestError(
                    f"source {self.target.source}: column {column!r} is {existing[column]} in the table, but "
                    f"declared as {kind}.\n  Alter the table, or drop it: its files are then loaded again."
                )

    def _statements(self, missing_at: datetime | None) -> list[str]:
        target = self.target
        statements = [
            f"create table if not exists {self.lock} as select current_timestamp() as taken_at",
            f"create table if not exists {self.ledger} ({_definitions(_LEDGER)})",
            f"create table if not exists {self.rejected} ({_definitions(_REJECTED)})",
        ]
        if missing_at is None:
            return statements
        moment = f"timestamp '{missing_at.isoformat()}'"
        definitions = _definitions({**self.declared, **META})
        clusters = ", ".join(map(name, target.key[:_MOST_CLUSTERS]))
        cluster_by = f" cluster by {clusters}" if clusters else ""
        return [
            *statements,
            # The table was dropped: what was once loaded into it is not there any more. What was loaded after
            # the look at it is: another load has made the table in the meantime.
            f"delete from {self.ledger} where table_name = {literal(target.table)} and loaded_at < {moment}",
            f"delete from {self.rejected} where _rejected_at < {moment}",
            f"create table if not exists {self.relation} ({definitions}){cluster_by}",
        ]


def name(column: str) -> str:
    """A column in SQL, where backslashes mean what they mean in strings."""
    escaped = column.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def literal(value: str | int) -> str:
    """A value in SQL."""
    # JSON's escapes are among those of BigQuery.
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def bigquery_type(kind: str) -> str:
    """What BigQuery calls a declared type; texts have no length there."""
    match = _SIZED.fullmatch(kind.strip())
    if match is None:
        return kind
    plain, size = " ".join(match[1].lower().split()), match[2] or ""
    found = _TYPES.get(plain, plain.upper())
    return found if found == "STRING" else found + ", ".join(size.replace(" ", "").split(","))


def _definitions(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name(column)} {kind}" for column, kind in columns.items())
