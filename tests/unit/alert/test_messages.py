"""Exactly what Slack and a web service get, for everything that is told.

ORRERY_UPDATE_GOLDEN=1 writes the payloads anew; read each of them before you commit it.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

from orrery.alert import samples
from orrery.alert.late import tell_late
from orrery.alert.scope import Scope
from orrery.config.alerts import Alerts
from services.slack import TOKEN, WEBHOOK_TOKEN, Call, SlackServer
from unit.alert.airflow import RUN_ID, FakeMemory, Run, node, result
from unit.alert.shop import DAG, MARTS, ORDERS, SOURCE, TEST

GOLDEN = Path(__file__).parent / "golden"

ALERTS = Alerts.model_validate({"slack": "#data-alerts"})
BROKEN = 'Database Error in model stg_orders (models/stg_orders.sql)\n  column "amuont" does not exist\n'
MODEL = result(node(ORDERS, "error", BROKEN))
SQL = "select * from dev.stg_orders where amount is null"


def check(name: str, calls: Iterable[Call]) -> None:
    """Compare requests with the golden ones, or replace these when asked to."""
    found = [{"method": call.method, "body": call.body} for call in calls]
    path = GOLDEN / f"{name}.json"
    if os.environ.get("ORRERY_UPDATE_GOLDEN") == "1":
        path.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert found == json.loads(path.read_bytes())


def test_a_model_and_what_it_holds_back(slack: SlackServer, run: Run) -> None:
    run.fail(ALERTS, "staging.stg_orders", MODEL)
    # One message, though thirty models and their exposure wait for it.
    run.states |= {f"core.{uid.split('.')[2]}": "upstream_failed" for uid in MARTS}
    run.end(ALERTS)
    check("model_error", slack.calls)
    (call,) = slack.calls
    assert call.body["channel"] == "#sales"
    assert "*Held back:* 30 nodes\n*Exposures:* board" in json.dumps(call.body, ensure_ascii=False).replace(
        "\\n", "\n"
    )


def test_a_test_with_samples(slack: SlackServer, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def rows(sql: str, most: int, options: Any) -> Any:
        asked.append((sql, most))
        return ["order_id", "email", "amount", "secret"], [(1, "a@b.c", None, "s"), (22, "d@e.f", None, "t")]

    monkeypatch.setattr(samples, "_rows", rows)
    monkeypatch.setattr(run.dag.get_task("tests.stg_orders"), "compiled_sql", SQL)
    run.fail(ALERTS, "tests.stg_orders", result(node(TEST, "fail", "Got 2 results", 2), status="fail"))
    check("test_failure", slack.calls)
    text = json.dumps(slack.calls[0].body)
    # Neither the column that is tagged nor one that nobody has declared.
    assert "a@b.c" not in text
    assert "email" not in text
    assert "secret" not in text
    assert asked == [(SQL, 5)]


def test_a_stale_source(slack: SlackServer, run: Run) -> None:
    run.fail(
        ALERTS,
        "source_freshness.app__orders",
        result(node(SOURCE, "error", "loaded 30600 s ago")),
    )
    check("stale_source", slack.calls)


def test_the_digest_of_warnings(slack: SlackServer, run: Run) -> None:
    run.states = {"source_freshness.app__orders": "success", "tests.stg_orders": "success"}
    run.states |= {"ingest.app__orders": "success"}
    warned = result(node(TEST, "warn", "Got 3 results, configured to warn if != 0", 3), status="warn")
    warned["message"] = "assert_orders_are_paid: Got 3 results, configured to warn if != 0"
    run.xcoms["tests.stg_orders", "dbt"] = warned
    run.xcoms["source_freshness.app__orders", "dbt"] = result(
        node(SOURCE, "warn", "loaded 7200 s ago"), status="warn"
    )
    run.end(ALERTS)
    check("warnings", slack.calls)
    # Those of a retry are told when they are new.
    run.end(ALERTS)
    assert len(slack.calls) == 1


def test_warnings_of_a_build_come_with_it(slack: SlackServer, run: Run) -> None:
    run.states = {"build": "success", "tests.stg_orders": "success"}
    run.xcoms["build", "warnings"] = {"tests.stg_orders": "assert_orders_are_paid: Got 3 results"}
    run.end(ALERTS)
    (body,) = slack.sent()
    assert body["text"] == "shop: 1 warning"


def test_xcoms_of_somebody_else_say_nothing(slack: SlackServer, run: Run) -> None:
    foreign: list[Any] = ["done", {"status": 1}, {"status": "warn", "nodes": ["x"]}, {"nodes": "x"}]
    for xcom in foreign:
        run.fail(ALERTS, "staging.stg_orders", xcom)
        assert "model stg_orders failed" in slack.sent()[-1]["text"]
    run.states = {"build": "success", "tests.stg_orders": "success", "ingest.app__orders": "success"}
    run.xcoms["build", "warnings"] = {"gone": "a", "tests.stg_orders": 1}
    run.xcoms["ingest.app__orders", "dbt"] = "done"
    slack.clear()
    run.end(ALERTS)
    assert not any("warning" in body["text"] for body in slack.sent())


def context_of_a_late_run(state: str) -> dict[str, Any]:
    """What Airflow tells the callback of a deadline."""
    return {"dag_run": {"dag_id": "shop", "dag_run_id": RUN_ID, "state": state}, "deadline": {"id": "1"}}


def test_a_late_run_and_its_end(
    slack: SlackServer, run: Run, remembered: FakeMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    alert: dict[str, str | None] = {"alert": None}
    monkeypatch.setattr(RuntimeTaskInstance, "get_task_states", lambda **_: {RUN_ID: alert})
    arguments = (ALERTS.model_dump_json(exclude_unset=True), "analytics", "by 07:00 UTC")
    asyncio.run(tell_late(*arguments, context=context_of_a_late_run("running")))
    run.states = {"staging.stg_orders": "success"}
    run.end(ALERTS)
    check("late_run", slack.calls)
    assert remembered.values == {}
    # The deadline of a run that failed before it is still there.
    slack.clear()
    asyncio.run(tell_late(*arguments, context=context_of_a_late_run("failed")))
    # So may be that of a run whose end is being told: its own state is old news.
    for state in ("scheduled", "running", "success"):
        alert["alert"] = state
        asyncio.run(tell_late(*arguments, context=context_of_a_late_run("running")))
    assert slack.calls == []


def test_a_recovery_resolves_what_was_told(slack: SlackServer, run: Run, remembered: FakeMemory) -> None:
    run.fail(ALERTS, "staging.stg_orders", MODEL)
    run.end(ALERTS)
    assert len(slack.calls) == 1
    # The same once more in the same run is told in its thread.
    run.fail(ALERTS, "staging.stg_orders", MODEL)
    run.end(ALERTS)
    later = Run(run.dag, "scheduled__later", {"staging.stg_orders": "success"})
    later.end(ALERTS)
    check("recovery", slack.calls[1:])
    assert remembered.values == {}
    later.end(ALERTS)
    assert len(slack.calls) == 4


def test_a_run_about_other_nodes_is_no_recovery(slack: SlackServer, run: Run) -> None:
    run.fail(ALERTS, "staging.stg_orders", MODEL)
    run.end(ALERTS)
    narrow = Run(run.dag, "narrow", {"core.mart_00": "success"}, params={"select": "mart_00"})
    narrow.end(ALERTS)
    assert len(slack.calls) == 1
    # A retry that ends well is one, whatever its run was about.
    run.params, run.states = {"select": "stg_orders"}, {"staging.stg_orders": "success"}
    run.end(ALERTS)
    assert [call.method for call in slack.calls] == ["chat.postMessage"] * 2 + ["chat.update"]


def test_success_is_told_when_it_is_asked_for(slack: SlackServer, run: Run) -> None:
    run.states = {"staging.stg_orders": "success"}
    run.end(ALERTS)
    assert slack.calls == []
    run.end(Alerts.model_validate({"slack": "#data-alerts", "on": "success"}))
    check("success", slack.calls)


def test_an_incoming_webhook_and_a_web_service(slack: SlackServer, run: Run) -> None:
    alerts = Alerts.model_validate(
        {"slack": {"connection": "slack_incoming", "mention": "@here"}, "webhook": "alert_service"}
    )
    # Of a task without a group of its own, so that the pipeline's route counts.
    run.fail(alerts, "core.mart_03", result(node(MARTS[3], "error", "<!channel> & @here ``` #general")))
    run.end(alerts)
    later = Run(run.dag, "scheduled__later", {"core.mart_03": "success"})
    later.end(alerts)
    check("webhooks", slack.calls)
    assert {call.authorization for call in slack.calls if call.method == "http"} == {"Bearer service-token"}
    text = json.dumps([call.body for call in slack.calls if call.method == "webhook"])
    assert "<!channel>" not in text
    assert "&lt;!channel&gt; &amp; @here ''' #general" in text


def test_a_storm_is_told_in_few_messages(slack: SlackServer, run: Run) -> None:
    failing = [f"core.{uid.split('.')[2]}" for uid in MARTS]
    for task_id, uid in zip(failing, MARTS, strict=True):
        run.fail(ALERTS, task_id, result(node(uid, "error", "the database system is shutting down")))
    assert len(slack.calls) == 5
    run.end(ALERTS)
    assert len(slack.calls) == 6
    assert slack.sent()[-1]["text"] == "shop: 25 more tasks have failed"
    run.end(ALERTS)
    assert len(slack.calls) == 6


def test_what_fails_in_the_same_moment_is_counted_too(slack: SlackServer, run: Run) -> None:
    for uid in MARTS[:8]:
        run.fail(ALERTS, f"core.{uid.split('.')[2]}", result(node(uid, "error", "down")))
        # Airflow does not know yet.
        run.states = {}
    assert len(slack.calls) == 5
    # One of them may fail again.
    run.fail(ALERTS, "core.mart_00", result(node(MARTS[0], "error", "down")))
    assert slack.sent()[-1]["thread_ts"] == "1700000000.000001"


@pytest.mark.usefixtures("project")
def test_an_ingestion_holds_back_what_reads_it_and_no_more() -> None:
    impact = Scope(DAG, ALERTS, None).impact("ingest.app__orders")
    assert (impact.held_back, impact.exposures) == (31, ("board",))
    assert Scope(DAG, ALERTS, None).impact("build").held_back == 32


def test_a_killed_task_is_told_at_the_end(slack: SlackServer, run: Run) -> None:
    run.states = {"staging.stg_orders": "failed", "core.mart_00": "upstream_failed"}
    run.end(ALERTS)
    (body,) = slack.sent()
    assert "It ended without a word" in body["text"]


def test_what_is_not_asked_for_is_not_told(slack: SlackServer, run: Run) -> None:
    alerts = Alerts.model_validate({"slack": "#data-alerts", "on": ["warning"]})
    run.states = {"staging.stg_orders": "failed"}
    run.end(alerts)
    assert slack.calls == []


def test_limits_of_slack(slack: SlackServer, run: Run) -> None:
    run.fail(ALERTS, "staging.stg_orders", result(node(ORDERS, "error", "<&>" * 5000)))
    (body,) = slack.sent()
    for block in body["blocks"]:
        assert len(json.dumps(block.get("text", {}).get("text", ""))) <= 3100
        assert len(block.get("text", {}).get("text", "")) <= 3000
    assert len(body["blocks"]) <= 50
    assert len(body["blocks"][0]["text"]["text"]) <= 150


def test_golden_payloads_hold_no_secrets() -> None:
    texts = {path.stem: path.read_text(encoding="utf-8") for path in GOLDEN.iterdir()}
    assert len(texts) == 8
    for text in texts.values():
        assert TOKEN not in text
        assert WEBHOOK_TOKEN not in text
