"""What a real Airflow tells Slack: while a run fails, when it is late, at its end, and when it is mended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, timedelta
from typing import Any

import psycopg2
import pytest

from services.slack import TOKEN, SlackServer
from support import trial
from support.airflow import moment
from support.leaks import Search
from support.live import Done, Live
from support.waiting import wait_for

pytestmark = pytest.mark.integration

PIPELINE = "trial_alerted"
# Long enough for a busy machine.
SECONDS = 240
CHILDREN = {f"core.alerted_{number:02}" for number in range(30)}


@pytest.fixture(scope="module")
def slack(live: Live) -> Iterator[SlackServer]:
    """A Slack that Airflow has a connection to."""
    assert live.orrery("up").code == 0
    with SlackServer() as server:
        live.airflow.post("/connections", server.connections()["slack_default"])
        yield server
        live.airflow.delete("/connections/slack_default")


def switch(live: Live, divisor: int) -> None:
    """Let the model fail (0), or not."""
    live.query(f"""
        create schema if not exists dev;
        create table if not exists dev.alerted_switch (divisor integer);
        truncate dev.alerted_switch;
        insert into dev.alerted_switch values ({divisor});
    """)


@contextmanager
def locked_switch(live: Live) -> Iterator[Any]:
    """The model waits until the cursor rolls back."""
    with live.connect() as link, link.cursor() as cursor:
        cursor.execute("begin; lock table dev.alerted_switch")
        yield cursor


def log_of(live: Live, run_id: str, task: str, pipeline: str = PIPELINE) -> str:
    """The log of a task of a run."""
    path = f"/dags/{pipeline}/dagRuns/{run_id}/taskInstances/{task}/logs/1?full_content=true"
    return "\n".join(str(entry["event"]) for entry in live.airflow.get(path)["content"])


def test_a_run_that_fails_is_mended(live: Live, slack: SlackServer) -> None:
    switch(live, 0)
    # Nothing fails before the run is late.
    with locked_switch(live) as cursor, live.start("run", PIPELINE) as command:
        try:
            wait_for("it is told that the run is late", slack.sent, SECONDS)
        finally:
            cursor.execute("rollback")
        output, _ = command.communicate(timeout=SECONDS)
    assert command.returncode == 1
    failed = Done(1, output)
    states = live.airflow.states(PIPELINE, failed.run_id)
    assert {task for task, state in states.items() if state == "failed"} == {"core.alerted_root"}
    assert {states[task] for task in CHILDREN} == {"upstream_failed"}
    assert states["alert"] == "success"
    told = slack.sent()
    roots = [body for body in told if "alerted_root failed" in body["text"]]
    (root,) = roots
    assert root["text"].startswith("trial_alerted: model alerted_root failed: Database Error in model")
    texts = [block.get("text", {}).get("text", "") for block in root["blocks"]]
    assert any("division by zero" in text for text in texts)
    assert "*Held back:* 30 nodes" in texts
    assert "`./orrery retry trial_alerted --failed`" in texts
    links = root["blocks"][-1]["elements"][0]["text"]
    assert f"<{live.info.url}/dags/trial_alerted/runs/" in links
    # Told at once, not at the end of the run.
    digest = next(body for body in told if body["text"] == "trial_alerted: 1 warning")
    assert told.index(root) < told.index(digest)
    # The triggerer has told that it was late, and the end of the run says so in the thread.
    assert [body["text"] for body in told if "late" in body["text"]] == [
        "trial_alerted is late",
        "trial_alerted was late, and has ended: failed",
    ]
    assert len(told) == 4
    (late,) = slack.sent("chat.update")
    assert late["text"] == "trial_alerted was late, and has ended: failed"

    slack.clear()
    switch(live, 1)
    mended = live.orrery("retry", PIPELINE, "--failed")
    assert mended.code == 0, mended.output
    assert [body["text"] for body in slack.sent()] == ["trial_alerted has recovered"]
    (reply,) = slack.sent()
    (change,) = slack.sent("chat.update")
    assert change["text"].startswith("Resolved: trial_alerted: model alerted_root failed")
    assert (reply["channel"], reply["thread_ts"]) == (change["channel"], change["ts"])


@pytest.mark.parametrize("pipeline", ["trial_rowed", "trial_rowed_per_model"])
def test_rows_of_a_failed_test(live: Live, slack: SlackServer, pipeline: str) -> None:
    # A busy machine may need more time than rows are waited for, which the log of the task tells.
    for _ in range(3):
        slack.clear()
        failed = live.orrery("run", pipeline)
        assert failed.code == 1
        (body,) = slack.sent()
        assert body["text"] == f"{pipeline}: test assert_rowed_is_empty failed"
        texts = [block.get("text", {}).get("text", "") for block in body["blocks"]]
        assert "*Test* `assert_rowed_is_empty`: 3 rows" in texts
        [task] = [t for t, state in live.airflow.states(pipeline, failed.run_id).items() if state == "failed"]
        if "There are no samples" not in log_of(live, failed.run_id, task, pipeline):
            break
    assert "```\nid\n1\n2\n```" in texts
    assert "private" not in str(body)


def test_a_time_of_day_is_a_deadline(live: Live) -> None:
    """The plugin is known to who makes runs."""
    run = max(live.airflow.runs("trial_rowed"), key=lambda run: moment(run["run_after"]))
    database = live.stack.warehouse_dsn("postgres").replace("/warehouse", "/airflow")
    with closing(psycopg2.connect(database)) as link, link.cursor() as cursor:
        cursor.execute(
            "select deadline_time from deadline join dag_run on dag_run.id = dagrun_id "
            "where dag_id = 'trial_rowed' and run_id = %s and not missed",
            (run["dag_run_id"],),
        )
        ((deadline,),) = cursor.fetchall()
    assert timedelta(hours=11) < deadline - moment(run["run_after"]) <= timedelta(hours=12)
    assert f"{deadline.astimezone(UTC):%H:%M}" in trial.PIPELINES["trial_rowed"]


def test_slack_being_down_changes_nothing(live: Live, slack: SlackServer) -> None:
    slack.clear()
    slack.close()
    switch(live, 0)
    failed = live.orrery("run", PIPELINE)
    assert failed.code == 1
    states = live.airflow.states(PIPELINE, failed.run_id)
    assert {task for task, state in states.items() if state == "failed"} == {"core.alerted_root"}
    assert states["alert"] == "success"
    log = log_of(live, failed.run_id, "core.alerted_root")
    assert log.count("Alerts are not sent through the connection 'slack_default'") == 1
    assert "Connection refused" in log
    # Neither the token nor a row that was read is left anywhere.
    left = Search({"token": TOKEN, "row": "private-1"})
    assert left.in_files(live.state / "logs", live.dbt / "target") == {}
    database = live.stack.warehouse_dsn("postgres").replace("/warehouse", "/airflow")
    assert "public.xcom" in Search({"error": "division by zero"}).in_tables(database), (
        "the search finds nothing"
    )
    assert left.in_tables(database) == {}
    # Callbacks and deadlines are the same whenever the file is parsed.
    assert live.airflow.get(f"/dags/{PIPELINE}/dagVersions")["total_entries"] == 1
