"""The outcome of a run as a table."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from orrery.cli.airflow_api import AirflowApi
from orrery.cli.follow import follow, progress_table
from orrery.cli.summary import show_summary
from unit.cli.airflow import Airflow, task

RUN = {"dag_id": "shop", "dag_run_id": "r1", "state": "success", "duration": 61.4}


def shown(airflow: Airflow, tasks: list[dict[str, Any]], state: str = "success") -> tuple[bool, list[str]]:
    """Whether the run succeeded, and the lines that are printed."""
    console = Console(file=io.StringIO(), width=140)
    with AirflowApi(airflow.url, "admin", "secret") as api:
        succeeded = show_summary(api, {**RUN, "state": state}, tasks, console)
    return succeeded, [" ".join(line.split()) for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_a_run_that_succeeded(airflow: Airflow) -> None:
    airflow.xcoms = {
        "core.a": {"status": "success", "rows_affected": 12345, "message": None},
        "core.v": {"status": "success", "rows_affected": None, "message": None},
        "tests.a": {"status": "warn", "rows_affected": None, "message": "Got 2 results\nmore"},
    }
    succeeded, lines = shown(
        airflow,
        [
            task("core.later", "skipped"),
            task("core.v", "success", start_date="2026-01-01T00:00:02", duration=0.04),
            task("core.a", "success", start_date="2026-01-01T00:00:01", duration=1.26),
            task("tests.a", "success", start_date="2026-01-01T00:00:03", duration=2.0),
            task("finished", "success", start_date="2026-01-01T00:00:04", operator_name="marker"),
        ],
    )
    assert succeeded
    assert lines == [
        "stage node state seconds rows message",
        "core a success 1.3 12,345",
        "core v success 0.0",
        "core later skipped",
        "tests a warning 2.0 Got 2 results",
        "",
        "shop: success in 61 s (2 success, 1 skipped, 1 warning)",
        f"Graph: {airflow.url}/dags/shop/runs/r1",
    ]


def test_a_task_that_skipped_itself_and_a_source_that_is_too_old_say_so(airflow: Airflow) -> None:
    """Without a build there are no notes, and a check with `stale: warn` is a success."""
    airflow.xcoms = {
        "source_freshness.app__raw": {"status": "error", "rows_affected": None, "message": "loaded 99 s ago"},
        "core.a": {"status": "skipped", "rows_affected": None, "message": "The source app__raw is stale."},
    }
    _, lines = shown(
        airflow,
        [
            task("source_freshness.app__raw", "success", start_date="2026-01-01T00:00:01", duration=1.0),
            task("core.a", "skipped", start_date="2026-01-01T00:00:02", duration=2.0),
        ],
    )
    assert "source_freshness app__raw warning 1.0 loaded 99 s ago" in lines
    assert "core a skipped 2.0 The source app__raw is stale." in lines


def test_a_long_warning_is_told_in_full(airflow: Airflow) -> None:
    told = f"These have no task: {', '.join(f'model m{number}' for number in range(30))}"
    airflow.xcoms = {"build": {"status": "warn", "rows_affected": None, "message": told}}
    _, lines = shown(airflow, [task("build", "success", start_date="2026-01-01T00:00:01", duration=1.0)])
    assert lines[lines.index("build warns") + 1] == told


def test_many_tasks_that_did_not_run_are_one_line(airflow: Airflow) -> None:
    many = [task(f"seed.s{i}", "skipped", note="Left out.") for i in range(4)]
    few = [task(f"core.c{i}", "skipped", note="Left out.") for i in range(3)]
    barred = [task(f"tests.t{i}", "upstream_failed") for i in range(5)]
    ran = [task(f"staging.v{i}", "success", note="Warning") for i in range(4)]
    _, lines = shown(airflow, [*many, *few, *barred, *ran, task("seed.other", "skipped", note="Stale.")])
    assert lines[1:11] == [
        "core c0 skipped Left out.",
        "core c1 skipped Left out.",
        "core c2 skipped Left out.",
        "seed (4 nodes) skipped Left out.",
        "seed other skipped Stale.",
        *(f"staging v{i} success" for i in range(4)),
        "tests (5 nodes) upstream_failed",
    ]
    assert lines[-2] == "shop: success in 61 s (8 skipped, 5 upstream_failed, 4 success)"


def test_the_instances_of_a_mapped_task(airflow: Airflow) -> None:
    airflow.xcoms = {
        f"ingest.a__chunks[{i}]": {"status": "success", "rows_affected": 1000 + i, "message": f"part {i}"}
        for i in range(3)
    }
    airflow.logs = {"ingest.a__chunks[3]": ["No space left"]}
    instances = [
        task("ingest.a__chunks", "success", map_index=i, rendered_map_index=f"a.csv {i + 1}/4", duration=1.5)
        for i in range(3)
    ]
    failed = task("ingest.a__chunks", "failed", map_index=3, rendered_map_index="a.csv [4/4]", duration=2.0)
    _, lines = shown(airflow, [*instances, failed, task("ingest.a", "upstream_failed")], "failed")
    page = f"{airflow.url}/dags/shop/runs/r1/tasks/ingest.a__chunks/mapped/3"
    assert lines[1:7] == [
        "ingest a__chunks (3 instances) success 4.5 3,003",
        "ingest a__chunks[a.csv [4/4]] failed 2.0",
        "ingest a upstream_failed",
        "",
        f"ingest.a__chunks[a.csv [4/4]] failed {page}",
        "No space left",
    ]
    _, lines = shown(airflow, [instances[0], task("ingest.a", "success")])
    assert lines[1] == "ingest a__chunks[a.csv 1/4] success 1.5 1,000 part 0"


def test_follow_tells_of_each_instance_of_a_mapped_task(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orrery.cli.follow.POLL_SECONDS", 0.001)
    first, second = (task("ingest.a__chunks", "success", map_index=index) for index in (0, 1))
    running = [first, {**second, "state": "running", "rendered_map_index": "a.csv 2/2"}]
    airflow.states = [[task("ingest.a__chunks", None, map_index=-1)], running, [first, second]]
    console = Console(file=io.StringIO(), width=140)
    with AirflowApi(airflow.url, "admin", "secret") as api:
        follow(api, "shop", "r1", console)
    printed = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert printed == [
        "success ingest.a__chunks[0]    (1 of 2 in ingest)",
        "success ingest.a__chunks[1]    (2 of 2 in ingest)",
    ]
    console = Console(file=io.StringIO(), width=140)
    console.print(progress_table(running))
    assert "a__chunks[a.csv 2/2]" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_failure_shows_dbts_message(airflow: Airflow) -> None:
    message = 'Database Error in model a\n  column "x" [oops] does not exist\n  LINE 3'
    airflow.xcoms = {"core.a": {"status": "error", "message": message}}
    succeeded, lines = shown(
        airflow,
        [task("core.a", "failed", duration=1.0), task("core.b", "upstream_failed", note="core.a failed.")],
        "failed",
    )
    assert not succeeded
    assert lines == [
        "stage node state seconds rows message",
        "core a failed 1.0 Database Error in model a",
        "core b upstream_failed core.a failed.",
        "",
        f"core.a failed {airflow.url}/dags/shop/runs/r1/tasks/core.a",
        "Database Error in model a",
        'column "x" [oops] does not exist',
        "LINE 3",
        "",
        "shop: failed in 61 s (1 failed, 1 upstream_failed)",
        f"Graph: {airflow.url}/dags/shop/runs/r1",
        "After mending it, run the failed nodes and what waits for them:",
        "./orrery retry shop --failed",
    ]


def test_a_line_of_the_table_does_not_end_before_the_message_begins(airflow: Airflow) -> None:
    message = "first:\n\nactual differs from expected:\n\n@@,id"
    airflow.xcoms = {"core.a": {"status": "fail", "message": message}}
    _, lines = shown(airflow, [task("core.a", "failed")], "failed")
    assert lines[1] == "core a failed first: actual differs from expected:"


def test_a_failure_without_a_message_shows_the_end_of_the_log(airflow: Airflow) -> None:
    airflow.logs = {"core.a": [f"line {i}" for i in range(30)]}
    _, lines = shown(airflow, [task("core.a", "failed", duration=1.0)], "failed")
    assert [line for line in lines if line.startswith("line ")] == [f"line {i}" for i in range(10, 30)]


def test_follow_prints_each_end_once(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orrery.cli.follow.POLL_SECONDS", 0.001)
    airflow.outcome = "failed"
    airflow.states = [
        [task("core.old", "success"), task("core.a", "queued"), task("core.b", None)],
        [task("core.old", "success"), task("core.a", "success", duration=1.25), task("core.b", "running")],
        [task("core.old", "success"), task("core.a", "success", duration=1.25), task("core.b", "failed")],
    ]
    console = Console(file=io.StringIO(), width=140)
    with AirflowApi(airflow.url, "admin", "secret") as api:
        run, tasks = follow(api, "shop", "r1", console, {("core.old", -1)})
    assert run["state"] == "failed"
    assert [item["state"] for item in tasks] == ["success", "success", "failed"]
    printed = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert printed == [
        ["success", "core.a", "1.2", "s", "(1", "of", "2", "in", "core)"],
        ["failed", "core.b", "(2", "of", "2", "in", "core)"],
    ]


def test_a_run_that_waits_for_another_says_so_once(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orrery.cli.follow.POLL_SECONDS", 0.001)
    monkeypatch.setattr("orrery.cli.follow.QUEUED_SECONDS", 0.0)
    airflow.queued = 3
    console = Console(file=io.StringIO(), width=140)
    with AirflowApi(airflow.url, "admin", "secret") as api:
        follow(api, "shop", "r1", console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert printed == "Waiting for another run of shop to end (max_active_runs).\n"


def test_follow_on_a_terminal(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orrery.cli.follow.POLL_SECONDS", 0.001)
    airflow.states = [
        [task("core.a", "success"), task("core.b", "running"), task("core.c", None)],
        [task("core.a", "success"), task("core.b", "success"), task("core.c", "success")],
    ]
    console = Console(file=io.StringIO(), width=140, force_terminal=True, color_system=None)
    with AirflowApi(airflow.url, "admin", "secret") as api:
        follow(api, "shop", "r1", console)
    output = console.file.getvalue()  # type: ignore[attr-defined]
    assert "3/3" in output


def test_progress_names_what_runs() -> None:
    tasks = [task("build", "running"), task("core.a", "success"), task("core.b", "running")]
    console = Console(file=io.StringIO(), width=140)
    console.print(progress_table(tasks))
    lines = [line.split() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert lines[1:] == [
        ["build", "0/1", "running", "1", "build"],
        ["core", "1/2", "success", "1", "running", "1", "b"],
    ]


def test_follow_gives_up_when_airflow_stays_away(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    from orrery.cli.airflow_api import ApiError

    monkeypatch.setattr("orrery.cli.follow.POLL_SECONDS", 0.001)
    monkeypatch.setattr("orrery.cli.follow.PATIENCE_SECONDS", 0.0)
    airflow.fail_next = [503, 503, 503]
    with AirflowApi(airflow.url, "admin", "secret") as api, pytest.raises(ApiError, match="503"):
        follow(api, "shop", "r1", Console(file=io.StringIO()))


@pytest.mark.parametrize("foreign", ["done", 7, ["a"], {"status": 1}, {"status": "success", "nodes": "none"}])
def test_an_xcom_of_somebody_else_is_left_out(airflow: Airflow, foreign: Any) -> None:
    airflow.xcoms = {"core.a": foreign, "core.b": foreign}
    airflow.logs = {"core.b": ["The last line."]}
    tasks = [task("core.a", "success", duration=1.0), task("core.b", "failed", duration=1.0)]
    succeeded, lines = shown(airflow, tasks, "failed")
    assert not succeeded
    assert {"core a success 1.0", "core b failed 1.0", "The last line."} <= set(lines)
