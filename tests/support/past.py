"""A past for a pipeline that has run once: runs before it, which differ as real ones do."""

from __future__ import annotations

import math
from contextlib import closing
from datetime import timedelta

import psycopg2

from support.live import Live

# The names of the columns stay Airflow's and the ledger's own: what is not said here is as in the real run.
_RUN = """
insert into dag_run
select made.* from dag_run, lateral jsonb_populate_record(dag_run, jsonb_build_object(
  'id', nextval(pg_get_serial_sequence('dag_run', 'id')), 'run_id', %(before)s, 'logical_date', null,
  'state', %(state)s, 'run_after', run_after - %(ago)s, 'queued_at', queued_at - %(ago)s,
  'start_date', start_date - %(ago)s, 'end_date', start_date - %(ago)s + (end_date - start_date) * %(factor)s
)) as made
where dag_run.dag_id = %(pipeline)s and dag_run.run_id = %(run)s
"""
_NODES = """
insert into orrery.node_runs
select made.* from orrery.node_runs as node, lateral jsonb_populate_record(node, jsonb_build_object(
  'run_id', %(before)s, 'seconds', node.seconds * %(factor)s,
  'rows_affected', (node.rows_affected * %(share)s)::bigint,
  'started_at', node.started_at - %(ago)s, 'ended_at', node.ended_at - %(ago)s,
  'status', case
    when node.unique_id like %(fails)s then %(status)s
    when resource_type in ('test', 'unit_test') then 'pass' else node.status end,
  'failures', case when node.unique_id like %(fails)s and %(status)s <> 'pass' then 3 else 0 end
)) as made
where node.pipeline = %(pipeline)s and node.run_id = %(run)s
"""


def add_past(live: Live, pipeline: str, run_id: str, runs: int, *, test: str) -> None:
    """Make `runs` runs, one an hour before the other, unless it has been done.

    :param run_id: the real run
    :param test: the test that fails in every seventh of them, and warns in the one after
    """
    if any(run["dag_run_id"].startswith("past__") for run in live.airflow.runs(pipeline)):
        return
    metadata = live.stack.warehouse_dsn("postgres").replace("/warehouse", "/airflow")
    with (
        closing(psycopg2.connect(metadata)) as airflow,
        closing(psycopg2.connect(live.warehouse["transformer"])) as warehouse,
        airflow,
        warehouse,
        airflow.cursor() as of_runs,
        warehouse.cursor() as of_nodes,
    ):
        for number in range(1, runs + 1):
            status = {4: "fail", 5: "warn"}.get(number % 7, "pass")
            told = {
                "pipeline": pipeline,
                "run": run_id,
                "before": f"past__{number}",
                "ago": timedelta(hours=number),
                "factor": 1 + 0.25 * math.sin(number * 1.7) + (1.1 if number == 9 else 0),
                "share": 0.97**number * (1 + 0.03 * math.sin(number)),
                "state": "failed" if status == "fail" else "success",
                "status": status,
                "fails": f"test.%.{test}%",
            }
            of_runs.execute(_RUN, told)
            of_nodes.execute(_NODES, told)
