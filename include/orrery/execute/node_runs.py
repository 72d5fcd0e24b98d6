"""The table `orrery.node_runs` in the warehouse: what each node of each DAG run did."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

SCHEMA = "orrery"
TABLE = f"{SCHEMA}.node_runs"
_ADAPTER = "postgres"
# Rows that are older are deleted, so many with each write at most.
KEPT_DAYS = 400
_DELETED = 10_000


@dataclass(frozen=True)
class NodeRun:
    """A row: what dbt last told of one node in one DAG run. The fields are the columns of the table.

    `status` is dbt's own word, `seconds` its execution time. `failures` are the rows that failed a test;
    the bytes are what the adapter reports (BigQuery does, PostgreSQL does not). `try_number` is the try of
    the node's task. `target` is dbt's target, empty in rows of before there was this column; `max_loaded_at`
    is when a source was last loaded, as its freshness check has found. `choices` is RunOptions.choices, the
    same for all nodes of a run, and empty in rows of before there was this column.
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
    target: str = ""
    max_loaded_at: datetime | None = None
    choices: str = ""

    @property
    def name(self) -> str:
        """How dbt names the node: its unique id without resource type, package, and a test's hash."""
        name = self.unique_id.split(".", 2)[-1]
        return name.partition(".")[0] if self.resource_type == "test" else name

    def as_json(self) -> str:
        """The row as a line of JSON."""
        return json.dumps(asdict(self), default=datetime.isoformat)

    @classmethod
    def of_json(cls, line: str | bytes) -> NodeRun:
        """The row that `as_json` has written; raises ValueError and TypeError for what is none."""
        values: dict[str, Any] = json.loads(line)
        values |= {key: moment(text) for key, text in values.items() if key.endswith("_at")}
        return cls(**values)


def moment(text: str | None) -> datetime | None:
    """A time in ISO 8601."""
    return datetime.fromisoformat(text) if text else None


COLUMNS = tuple(field.name for field in fields(NodeRun))
# Two Airflows, such as those of dev and prod, give their runs the same ids.
_KEY = ("pipeline", "run_id", "unique_id", "target")
_LACKS = f"""not exists (
    select from pg_attribute where attrelid = to_regclass('{TABLE}') and attname = '{COLUMNS[-1]}'
  )"""

# One message and one transaction. Nobody may hold up a build: neither the server nor a lock. A table that
# is there is not touched, as that needs rights that the role may not have any more.
_RECORD = f"""
set local statement_timeout = '10s';
set local lock_timeout = '1s';
do $$ begin
  if {_LACKS} then
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
      target text not null default '',
      max_loaded_at timestamptz,
      choices text not null default '',
      constraint node_runs_pkey primary key ({", ".join(_KEY)})
    );
    if {_LACKS} then
      alter table {TABLE}
        add column if not exists target text not null default '',
        add column if not exists max_loaded_at timestamptz,
        add column if not exists choices text not null default '',
        drop constraint node_runs_pkey,
        add constraint node_runs_pkey primary key ({", ".join(_KEY)});
    end if;
    create index if not exists node_runs_ended_at on {TABLE} (ended_at);
  end if;
end $$;
insert into {TABLE} ({", ".join(COLUMNS)})
select {", ".join(COLUMNS)} from jsonb_populate_recordset(null::{TABLE}, %s::jsonb)
on conflict ({", ".join(_KEY)}) do update set
  {", ".join(f"{name} = excluded.{name}" for name in COLUMNS if name not in _KEY)};
do $$ begin
  if has_table_privilege('{TABLE}', 'delete') then
    delete from {TABLE} where ctid = any (array(
      select ctid from {TABLE} where ended_at < now() - interval '{KEPT_DAYS} days'
      limit {_DELETED} for update skip locked
    ));
  end if;
end $$;
"""

_RECENT = f"""
with recent as (
  select run_id from {TABLE} where pipeline = %s and target in (%s, '')
  group by run_id having min(started_at) is not null
  order by min(started_at) desc limit %s
)
select {", ".join(COLUMNS)} from {TABLE} join recent using (run_id) where pipeline = %s and target in (%s, '')
"""


def none_on(adapter: str) -> str:
    """Why there is no such table in a warehouse of a type, as a sentence; empty where there is one."""
    return "" if adapter == _ADAPTER else f"There is no run ledger on {adapter}: it needs PostgreSQL."


def record(rows: Iterable[NodeRun]) -> tuple[str, tuple[str]]:
    """SQL for PostgreSQL, and its binding: inserts or replaces rows, and deletes those that are too old.

    It creates the table where there is none, and adds what an older one lacks.
    """
    return _RECORD, (f"[{','.join(row.as_json() for row in rows)}]",)


def recent(pipeline: str, target: str, runs: int) -> tuple[str, tuple[str | int, ...]]:
    """SQL for PostgreSQL, and its bindings: COLUMNS of the nodes of the last runs with a target of dbt's."""
    return _RECENT, (pipeline, target, runs, pipeline, target)
