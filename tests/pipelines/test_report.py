"""`./orrery report` for real: what runs in Airflow leave in the ledger, and what is told of it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import quote

import psycopg2
import pytest

from support.live import Done, Live

pytestmark = pytest.mark.integration

PIPELINE = "trial_reported"
ROWS, AFTER = "model.orrery_demo.report_rows", "model.orrery_demo.report_after"
FEW = "test.orrery_demo.assert_report_rows_are_few"
Kept = dict[str, tuple[str, int | None, int | None, int, str]]


def kept(live: Live, run_id: str) -> Kept:
    """Status, rows, failures, try and invocation of each node of a run."""
    rows = live.query(
        "select unique_id, status, rows_affected, failures, try_number, invocation_id"
        f" from orrery.node_runs where pipeline = '{PIPELINE}' and run_id = '{run_id}'"
    )
    return {uid: tuple(values) for uid, *values in rows}  # type: ignore[misc]


# Five runs like the first one, but made with the choices of the second. What a busy machine took for a node
# does not matter. A sixth is one of a test that failed, and of nothing else.
PAST = f"""
insert into orrery.node_runs
select made.* from generate_series(1, 6) as day, orrery.node_runs as node, lateral jsonb_populate_record(
  node, jsonb_build_object(
    'run_id', 'past' || day, 'seconds', 0.5, 'choices', (
      select max(choices) from orrery.node_runs where pipeline = '{PIPELINE}' and run_id = '{{bad}}'
    ),
    'started_at', node.started_at - day * interval '1 day',
    'ended_at', node.ended_at - day * interval '1 day',
    'status', case day when 6 then 'fail' else node.status end
  )
) as made
where node.pipeline = '{PIPELINE}' and node.run_id = '{{good}}' and (day < 6 or node.unique_id = '{FEW}')
returning 1
"""


def lines_of(report: Done) -> list[str]:
    """What a report says, with single spaces."""
    assert report.code == 0, report.output
    return [" ".join(line.split()) for line in report.output.splitlines()]


def log_of_the_build(live: Live, run_id: str) -> list[str]:
    """The warnings in the log of the task `build`."""
    path = f"/dags/{PIPELINE}/dagRuns/{quote(run_id, safe='')}/taskInstances/build/logs/1?full_content=true"
    events = live.airflow.get(path)["content"]
    return [json.dumps(event) for event in events if event.get("level") == "warning"]


@pytest.fixture
def forbidden(live: Live) -> Iterator[None]:
    """The schema of the ledger belongs to somebody else, and holds nothing."""
    with closing(psycopg2.connect(live.stack.warehouse_dsn("postgres"))) as link:
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute("drop schema if exists orrery cascade; create schema orrery authorization loader")
            yield
            cursor.execute("drop schema orrery cascade")


def test_two_runs_a_failed_test_and_a_cleared_node(live: Live) -> None:
    assert live.orrery("up").code == 0
    empty = live.orrery("report", PIPELINE)
    assert empty.code == 0
    assert f"{PIPELINE}: no run with dbt's target dev is kept yet.\n  ./orrery run {PIPELINE}" in empty.output

    good = live.orrery("run", PIPELINE)
    assert good.code == 0, good.output
    first = kept(live, good.run_id)
    assert {uid: values[:4] for uid, values in first.items()} == {
        ROWS: ("success", 10, None, 1),
        FEW: ("pass", None, 0, 1),
        AFTER: ("success", None, None, 1),
    }

    bad = live.orrery("run", PIPELINE, "--vars", "{rows: 40, pause: 3}")
    assert bad.code == 1
    second = kept(live, bad.run_id)
    assert {uid: values[:4] for uid, values in second.items()} == {
        ROWS: ("success", 40, None, 1),
        FEW: ("fail", None, 20, 1),
        AFTER: ("skipped", None, None, 1),
    }
    lines = lines_of(live.orrery("report", PIPELINE))
    assert f"{PIPELINE}: last run {bad.run_id}, started" in lines[0]
    assert re.fullmatch(r"made with vars: pause rows \([0-9a-f]{8}\)", lines[1])
    # The first run was made without vars, so that it tells nothing of this one.
    assert lines[-1].endswith("There are no such runs among the last 2.")
    live.query(PAST.format(good=good.run_id, bad=bad.run_id))
    lines = lines_of(live.orrery("report", PIPELINE))
    title = lines.index
    slowest = lines[title("Slowest nodes of the last run") + 2]
    assert re.fullmatch(r"report_rows model success \d+\.\d \d+% 40", slowest)
    assert re.fullmatch(r"report_rows model \d+\.\d 0\.5 5", lines[title("Slower than before") + 2])
    assert lines[title("More or fewer rows than before") + 2] == "report_rows model 40 10 5"
    assert lines[title("Flaky tests of the last 8 runs") + 2] == "assert_report_rows_are_few fail 2 6"

    assert live.orrery("retry", PIPELINE, "--model", "report_rows", "--run-id", bad.run_id).code == 1
    third = kept(live, bad.run_id)
    assert third[ROWS][:4] == ("success", 40, None, 2)
    assert third[ROWS][4] != second[ROWS][4]
    assert {uid: third[uid] for uid in (FEW, AFTER)} == {uid: second[uid] for uid in (FEW, AFTER)}
    assert kept(live, good.run_id) == first


def test_a_ledger_that_cannot_be_written_leaves_the_run_green(live: Live, forbidden: None) -> None:
    done = live.orrery("run", PIPELINE)
    assert done.code == 0, done.output
    warnings = log_of_the_build(live, done.run_id)
    assert len(warnings) == 1, warnings
    (warning,) = warnings
    assert "not kept in orrery.node_runs" in warning
    assert "permission denied for schema orrery" in warning
    report = live.orrery("report", PIPELINE)
    assert report.code == 1
    assert "orrery.node_runs: dbt's role may not read it" in report.output
