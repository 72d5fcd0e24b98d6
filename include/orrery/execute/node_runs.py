"""The table `orrery.node_runs` in the warehouse: what each node of each DAG run did."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime

SCHEMA = "orrery"
TABLE = f"{SCHEMA}.node_runs"


@dataclass(frozen=True)
class NodeRun:
    """A row: what dbt last told of one node in one DAG run. The fields are the columns of the table.

    `status` is dbt's own word, `seconds` its execution time. `failures` are the rows that failed a test;
    the bytes are what the adapter reports (BigQuery does, PostgreSQL does not). `try_number` is the try of
    the node's task.
    """

    pipeline: str
    run_id: str
    unique_id: str
    resource_type: str
    status: str
    seconds: float
    rows_affected: int | None = None
    failures: int | None = None
    bytes_processed: int | None = None
    bytes_billed: int | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    invocation_id: str | None = None
    try_number: int = 1

    @property
    def name(self) -> str:
        """How dbt names the node: its unique id without resource type, package, and a test's hash."""
        name = self.unique_id.split(".", 2)[-1]
        return name.partition(".")[0] if self.resource_type == "test" else name


COLUMNS = tuple(field.name for field in fields(NodeRun))
_KEY = ("pipeline", "run_id", "unique_id")

# One message and one transaction. Nobody may hold up a build: neither the server nor a lock. A table that
# is there is not created again, as that needs rights that the role may not have any more.
_RECORD = f"""
set local statement_timeout = '10s';
set local lock_timeout = '1s';
do $$ begin
  if to_regclass('{TABLE}') is null then
    perform pg_advisory_xact_lock(hashtext('{TABLE}'));
    if to_regnamespace('{SCHEMA}') is null then
      create schema {SCHEMA};
    end if;
    create table if not exists {TABLE} (
      pipeline text not null,
      run_id text not null,
      unique_id text not null,
      resource_type text not null,
      status text not null,
      seconds double precision not null,
      rows_affected bigint,
      failures bigint,
      bytes_processed bigint,
      bytes_billed bigint,
      started_at timestamptz,
      ended_at timestamptz,
      invocation_id text,
      try_number integer not null,
      primary key ({", ".join(_KEY)})
    );
  end if;
end $$;
insert into {TABLE} ({", ".join(COLUMNS)})
select {", ".join(COLUMNS)} from jsonb_populate_recordset(null::{TABLE}, %s::jsonb)
on conflict ({", ".join(_KEY)}) do update set
  {", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _KEY)};
"""

# The nodes of the last runs of a pipeline; bindings: pipeline, number of runs, pipeline.
RECENT = f"""
with recent as (
  select run_id from {TABLE} where pipeline = %s
  group by run_id having min(started_at) is not null
  order by min(started_at) desc limit %s
)
select {", ".join(COLUMNS)} from {TABLE} join recent using (run_id) where pipeline = %s
"""


def record(rows: Iterable[NodeRun]) -> tuple[str, tuple[str]]:
    """SQL for PostgreSQL, and its binding, that creates the table if needed and inserts or replaces rows."""
    return _RECORD, (json.dumps([asdict(row) for row in rows], default=datetime.isoformat),)
