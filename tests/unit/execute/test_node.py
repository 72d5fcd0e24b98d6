"""A node's task on a worker, which asks for a build."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException

from orrery.execute import node as module
from orrery.execute import per_model
from orrery.execute.channel import ORPHANED, REBUILD, Answer
from orrery.execute.node import BuiltNodeOperator
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY, NodeResult
from orrery.plan.model import TaskKind


class Asked:
    """Airflow's task state store: answers what is asked."""

    def __init__(self, answer: Any) -> None:
        self.keys: list[str] = []
        self._answer = answer

    def set(self, key: str, value: Any) -> None:
        self.keys.append(key)

    def get(self, key: str, default: Any = None) -> Any:
        assert key == self.keys[-1]
        return self._answer


@pytest.fixture
def node() -> BuiltNodeOperator:
    return BuiltNodeOperator(task_id="a", kind=TaskKind.MODEL, stage="core", nodes=())


# Airflow's own store, where Orrery's is not configured, has no answer.
@pytest.mark.parametrize("answer", [{"answer": Answer.COMING}, None])
def test_a_node_waits_for_a_build_that_is_coming(node: BuiltNodeOperator, answer: Any) -> None:
    store = Asked(answer)
    context = cast(Context, {"task_state_store": store})
    with pytest.raises(AirflowRescheduleException):
        node.execute(context)
    with pytest.raises(AirflowRescheduleException):
        node.resume_execution("__fail__", None, context)
    assert store.keys == [REBUILD, ORPHANED]


def test_a_node_whose_build_is_over_says_why_and_waits_to_be_stopped(
    node: BuiltNodeOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNTIL_STOPPED", 0.0)
    context = cast(Context, {"task_state_store": Asked({"answer": Answer.OVER, "why": "It was stopped."})})
    with pytest.raises(AirflowFailException, match="It was stopped"):
        node.execute(context)
    with pytest.raises(AirflowFailException, match="It was stopped"):
        node.resume_execution("__fail__", None, context)


UID = "model.shop.orders"


class Ran:
    """Stands for a dbt process of the node's own."""

    def __init__(
        self, kind: TaskKind, nodes: tuple[str, ...], options: RunOptions, ti: Any, **more: Any
    ) -> None:
        self.nodes, self.more = nodes, more
        self.results: list[NodeResult] = []
        self.compiled_sql = "select 1"

    def execute(self, context: Any) -> None:
        """Run dbt."""
        asked.append((self.nodes, self.more))
        self.results = [NodeResult(UID, "success", 1.0, 5, None, None, {})]


asked: list[Any] = []


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> BuiltNodeOperator:
    asked.clear()
    monkeypatch.delenv("AIRFLOW_TEST_MODE", raising=False)
    monkeypatch.setattr(per_model, "PerModelRun", Ran)
    monkeypatch.setattr(module, "check_choices", lambda *_: RunOptions())
    return BuiltNodeOperator(task_id="orders", kind=TaskKind.MODEL, stage="core", nodes=(UID,))


def run(task: BuiltNodeOperator) -> dict[str, Any]:
    """Execute the task; returns what it has told Airflow."""
    told: dict[str, Any] = {}
    context: Any = {
        "ti": SimpleNamespace(xcom_push=lambda key, value: told.update({key: value})),
        "task_state_store": SimpleNamespace(
            set=lambda key, value: told.update({key: value}), get=lambda key: {"answer": Answer.COMING}
        ),
    }
    BuiltNodeOperator.execute.__wrapped__(task, context)  # type: ignore[attr-defined]
    return told


def test_a_cleared_node_asks_for_a_build(task: BuiltNodeOperator) -> None:
    with pytest.raises(AirflowRescheduleException):
        run(task)
    assert asked == []


def test_airflow_tasks_test_builds_the_node_itself(
    task: BuiltNodeOperator, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Airflow sets it for the task, and for nothing else.
    monkeypatch.setenv("AIRFLOW_TEST_MODE", "True")
    told = run(task)
    # Its DAG run does not count, so that the ledger has nothing of it.
    assert asked == [((UID,), {"trial": True, "memory": None})]
    assert told[RESULT_KEY]["status"] == "success"
    assert REBUILD not in told
    assert task.compiled_sql == "select 1"
