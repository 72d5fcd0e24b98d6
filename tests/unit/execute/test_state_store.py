"""What Airflow's execution API answers to messages that no build sends."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from airflow.api_fastapi.common.db.common import _get_session
from airflow.api_fastapi.execution_api.routes import task_state_store
from airflow.api_fastapi.execution_api.security import require_auth
from airflow.state import TaskScope
from fastapi import FastAPI
from fastapi.testclient import TestClient

from orrery.execute import build_end, task_instances
from orrery.execute.state_store import NodeStateStore

ID = UUID(int=1)
HELD = {"tasks": ["core.a"], "host": "here", "pid": 1}
NEWS = {"updates": [{"task_id": "core.a", "state": "running"}], "alive": True}


class Calls:
    """Stands where the database is written, and in the place of the session that reads the task."""

    def __init__(self, task_id: str = "build") -> None:
        self.made: list[str] = []
        self._ti = SimpleNamespace(dag_id="shop", run_id="r1", task_id=task_id, map_index=-1)

    def get(self, *_: Any) -> Any:
        return self._ti


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls()
    names = {
        task_instances: ("hold", "publish", "keep_alive"),
        build_end: ("release", "settle", "rebuild", "adopt_orphans"),
    }
    for module, of_module in names.items():
        for name in of_module:
            monkeypatch.setattr(module, name, lambda *_, name=name: made.made.append(name))
    monkeypatch.setattr(NodeStateStore, "graph", lambda *_: None)
    return made


@pytest.fixture
def client(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Airflow's own routes, with the store that they would find in its configuration."""
    monkeypatch.setattr(task_state_store, "get_state_backend", NodeStateStore)
    app = FastAPI()
    app.include_router(task_state_store.router, prefix="/state")
    app.dependency_overrides[_get_session] = lambda: calls
    app.dependency_overrides[require_auth] = lambda: None
    with TestClient(app) as client:
        yield client


def put(client: TestClient, key: str, value: Any) -> tuple[int, Any]:
    """The status, and the reason of a refusal."""
    answer = client.put(f"/state/{ID}/orrery/{key}", json={"value": value})
    return answer.status_code, answer.json()["detail"] if answer.content else None


@pytest.mark.parametrize(
    ("key", "value", "done"),
    [
        ("hold", HELD, ["hold"]),
        ("publish", NEWS, ["publish", "keep_alive"]),
        ("publish", {**NEWS, "alive": False}, ["publish"]),
        ("release", {"reason": "it was stopped.", "final": False}, ["release"]),
        ("settle", {}, ["settle"]),
        ("rebuild", {}, ["rebuild"]),
        ("orphaned", {}, ["adopt_orphans"]),
    ],
)
def test_messages_are_obeyed(client: TestClient, calls: Calls, key: str, value: Any, done: list[str]) -> None:
    assert put(client, key, value) == (204, None)
    assert calls.made == done


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("hold", "core.a", "orrery/hold: not a valid Hold: Input should be an object"),
        ("hold", {**HELD, "tasks": "core.a"}, "orrery/hold: not a valid Hold: tasks: Input should be"),
        ("hold", {**HELD, "pid": 1 << 31}, "orrery/hold: not a valid Hold: pid: Input should be less than"),
        ("hold", {**HELD, "host": "h" * 1001}, "orrery/hold: not a valid Hold: host: String should have"),
        (
            "hold",
            {**HELD, "graph": "bm8="},
            "orrery/hold: not a valid Hold: graph: Value error, this is no graph",
        ),
        ("publish", {}, "orrery/publish: not a valid Publish: updates: "),
        ("publish", {**NEWS, "alive": "yes"}, "orrery/publish: not a valid Publish: alive: "),
        (
            "publish",
            {**NEWS, "updates": [{"task_id": "core.a", "state": "lost"}]},
            "orrery/publish: not a valid Publish: updates.0.state: Input should be 'running', 'success'",
        ),
        (
            "publish",
            {
                "updates": [{"task_id": "core.a", "state": "running", "start": "9999-12-31T23:59:59-14:00"}],
                "alive": True,
            },
            "orrery/publish: not a valid Publish: updates.0.start: Value error, a time is out of range",
        ),
        ("hodl", HELD, "orrery/hodl: Orrery has no such key"),
    ],
)
def test_a_malformed_message_is_refused(
    client: TestClient, calls: Calls, key: str, value: Any, told: str
) -> None:
    status, detail = put(client, key, value)
    assert status == 422
    assert detail["message"].startswith(told)
    assert calls.made == []


@pytest.mark.parametrize("key", ["hold", "publish", "release"])
def test_another_task_than_the_build_is_refused(client: TestClient, calls: Calls, key: str) -> None:
    calls._ti.task_id = "core.a"
    status, detail = put(client, key, HELD)
    assert status == 403
    assert detail["message"] == f"orrery/{key}: only the task 'build' may use it, not 'core.a'"
    assert calls.made == []


def test_what_is_not_json_is_refused(calls: Calls) -> None:
    from fastapi import HTTPException

    scope = TaskScope("shop", "r1", "build")
    with pytest.raises(HTTPException) as caught:
        NodeStateStore().set(scope, "orrery/publish", "{", session=calls)  # type: ignore[arg-type]
    assert caught.value.status_code == 422
