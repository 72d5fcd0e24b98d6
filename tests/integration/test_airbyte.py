"""Syncs of Airbyte, which a stand-in runs into a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.exceptions import TaskDeferred
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from orrery.config.airbyte import Airbyte
from orrery.execute.results import RESULT_KEY
from orrery.ingest import airbyte as module
from orrery.ingest.airbyte import AirbyteJobTrigger, AirbyteOperator
from orrery.plan.model import Work
from services.airbyte import AirbyteServer
from support.stores import Task, connect, context
from support.warehouse import query

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("resumed_at_once")]
CUSTOMERS = "id,name,joined\n1,Ada,2026-01-31\n2,,2026-02-01\n"


@pytest.fixture
def server(landing_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AirbyteServer]:
    """An Airbyte with the connections `crm` and `ads`, which Airflow knows."""
    for name in ("crm", "ads"):
        (tmp_path / name).mkdir()
    (tmp_path / "crm" / "customers.csv").write_text(CUSTOMERS)
    (tmp_path / "crm" / "_types.json").write_text(
        json.dumps({"customers": {"id": "bigint", "joined": "date"}})
    )
    folders = {name: tmp_path / name for name in ("crm", "ads")}
    with AirbyteServer(folders, dsn=landing_uri, credentials=("me", "se-cret")) as made:
        connect(monkeypatch, made.connections())
        yield made


def operator(name: str = "crm", **more: Any) -> AirbyteOperator:
    spec = Airbyte.model_validate({"airbyte": name, "poll": "0.01s", **more})
    return AirbyteOperator(task_id="crm", stage="ingest", nodes=(), work=Work("airbyte", spec, "crm"))


def begin(task: Task, made: AirbyteOperator) -> AirbyteJobTrigger:
    """Run the task until it waits; the trigger as the triggerer makes it."""
    with pytest.raises(TaskDeferred) as deferred:
        made.execute(context(task))
    assert deferred.value.method_name == "execute_complete"
    path, arguments = deferred.value.trigger.serialize()
    assert path == "orrery.ingest.airbyte.AirbyteJobTrigger"
    assert "se-cret" not in json.dumps(arguments)
    return AirbyteJobTrigger(**arguments)


def wait(trigger: AirbyteJobTrigger) -> dict[str, Any]:
    async def event() -> Any:
        return (await asyncio.wait_for(anext(trigger.run()), 60)).payload

    return dict(asyncio.run(event()))


def run(made: AirbyteOperator | None = None) -> Task:
    task, made = Task(), made or operator()
    made.execute_complete(context(task), wait(begin(task, made)))
    return task


def test_a_sync_fills_its_tables(server: AirbyteServer, landing_uri: str) -> None:
    for number in (1, 2):
        task = run()
        assert task.xcoms[RESULT_KEY]["message"] == f"Airbyte's job {number}: 2 rows"
        assert task.xcoms[RESULT_KEY]["rows_affected"] == 2
        assert query(
            landing_uri,
            "select id + 1, name, joined - date '2026-01-31', _airbyte_generation_id,"
            " _airbyte_meta ->> 'changes' from landing.customers"
            " where _airbyte_extracted_at <= now() order by id",
        ) == [(2, "Ada", 0, number, "[]"), (3, None, 1, number, "[]")]
    # By its id, too; a UUID is not looked up.
    assert run(operator(server.ids["crm"])).xcoms[RESULT_KEY]["status"] == "success"


def test_a_name_that_airbyte_does_not_have(server: AirbyteServer) -> None:
    with pytest.raises(AirflowFailException) as caught:
        operator("crn").execute(context(task := Task()))
    assert str(caught.value) == "Airbyte has no connection with the name 'crn'.\n  Did you mean 'crm'?"
    assert task.xcoms[RESULT_KEY]["status"] == "error"
    with pytest.raises(AirflowFailException, match=r"\n  Known connections: ads, crm\."):
        operator("warehouse").execute(context(Task()))
    server.twins["00000000-0000-4000-8000-000000000000"] = "crm"
    with pytest.raises(
        AirflowFailException, match=r"2 connections with the name 'crm'\.\n  Write the id of one"
    ):
        operator("crm").execute(context(Task()))
    with pytest.raises(
        AirflowFailException, match=r"Airbyte knows nothing of '0000.*Could not find configuration"
    ):
        operator("00000000-0000-4000-8000-000000000001").execute(context(Task()))
    assert server.jobs == {}


def test_a_name_on_a_later_page(server: AirbyteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAGE", 1)
    assert run(operator("ads")).xcoms[RESULT_KEY]["rows_affected"] == 0


def test_a_job_that_fails(server: AirbyteServer) -> None:
    server.fail("crm", "The source's password has expired.")
    with pytest.raises(AirflowException) as caught:
        run()
    assert str(caught.value) == (
        "Airbyte's job 1 for 'crm' has failed: The source's password has expired.\n"
        "  Its log is in Airbyte, with the job 1 of this connection."
    )
    assert not isinstance(caught.value, AirflowFailException)
    # A retry begins a new one.
    assert run().xcoms[RESULT_KEY]["status"] == "success"


def test_a_retry_waits_for_the_sync_that_runs(server: AirbyteServer) -> None:
    server.hold()
    first, again = begin(Task(), operator()), begin(task := Task(), made := operator())
    assert (first.job_id, again.job_id, len(server.jobs)) == (1, 1, 1)
    # Of another connection a sync may run meanwhile.
    assert begin(Task(), operator("ads")).job_id == 2
    server.release()
    made.execute_complete(context(task), wait(again))
    assert task.xcoms[RESULT_KEY]["status"] == "success"


def test_a_sync_that_takes_too_long_is_cancelled(server: AirbyteServer) -> None:
    server.hold()
    made = operator(timeout="0.1s")
    with pytest.raises(AirflowException, match=r"was still (running|pending) after .*, and is cancelled"):
        run(made)
    assert server.jobs[1].status == "cancelled"


def test_the_end_of_a_task_ends_its_job(server: AirbyteServer) -> None:
    server.hold()
    made = operator()
    made.on_kill()
    trigger = begin(Task(), made)
    made.on_kill()
    assert server.jobs[1].status == "cancelled"
    with pytest.raises(AirflowException, match="Airbyte's job 1 for 'crm' was cancelled"):
        made.execute_complete(context(Task()), wait(trigger))
    # While the task is deferred.
    trigger = begin(Task(), operator())
    asyncio.run(trigger.on_kill())
    assert server.jobs[2].status == "cancelled"


def test_an_airbyte_that_is_away_for_a_while(server: AirbyteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.hold()
    trigger = begin(Task(), operator())
    connections = server.connections()
    connect(
        monkeypatch, {"airbyte_default": {**connections["airbyte_default"], "host": "http://127.0.0.1:1"}}
    )
    asked = threading.Event()
    monkeypatch.setattr(AirbyteJobTrigger, "log", Log(asked))
    events: list[dict[str, Any]] = []
    waiting = threading.Thread(target=lambda: events.append(wait(trigger)))
    waiting.start()
    assert asked.wait(60)
    connect(monkeypatch, connections)
    server.release()
    waiting.join(60)
    assert events == [{"job_id": 1}]


class Log:
    """Knows whether somebody has been warned."""

    def __init__(self, warned: threading.Event) -> None:
        self._warned = warned

    def warning(self, *_: object) -> None:
        self._warned.set()


def test_what_is_not_set_up(server: AirbyteServer, monkeypatch: pytest.MonkeyPatch) -> None:
    body = server.connections()["airbyte_default"]
    cases = {
        "nobody": (
            None,
            AirflowFailException,
            "Airflow has no connection 'nobody'.\n  Set AIRFLOW_CONN_NOBODY",
        ),
        "denied": (
            {"password": "wr-ong"},
            AirflowFailException,
            "Airbyte refuses access.\n  Correct client id",
        ),
        "elsewhere": ({"host": f"{server.url}/api"}, AirflowFailException, "the server URL of the Airflow"),
        "away": ({"host": "http://127.0.0.1:1/api/public/v1"}, AirflowException, "Airbyte does not answer"),
    }
    for name, (change, kind, message) in cases.items():
        if change:
            connect(monkeypatch, {name: {**body, **change}})
        with pytest.raises(kind) as caught:
            operator(server.ids["crm"], connection=name).execute(context(Task()))
        assert message in str(caught.value)
        assert "se-cret" not in str(caught.value)
        assert "wr-ong" not in str(caught.value)
