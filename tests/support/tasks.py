"""Tries of tasks without an Airflow: what operators get as the context."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from pydantic import JsonValue, TypeAdapter


class TaskInstance(SimpleNamespace):
    """A try of a task of the pipeline `shop`."""

    def __init__(self, task_id: str, try_number: int = 1, max_tries: int = 1) -> None:
        super().__init__(dag_id="shop", task_id=task_id, run_id="manual__1", map_index=-1, log_url="")
        self.try_number, self.max_tries = try_number, max_tries
        self.start_date = datetime.now(UTC)
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = value


def store_of(kept: dict[str, Any]) -> Any:
    """A task's store in Airflow, which keeps its values there, and takes what JSON has."""
    return SimpleNamespace(
        get=kept.get, set=lambda key, value: kept.update({key: _JSON.validate_python(value)})
    )


_JSON = TypeAdapter[Any](JsonValue)


def context_of(task_id: str, **numbers: int) -> Any:
    """The context of a try; `numbers` are those of TaskInstance."""
    ti = TaskInstance(task_id, **numbers)
    return {
        "ti": ti,
        "task_instance": ti,
        "run_id": ti.run_id,
        "params": {},
        "dag_run": SimpleNamespace(conf={}, run_id=ti.run_id),
        "dag": SimpleNamespace(task_ids=[task_id], params={}),
        "task_state_store": store_of({}),
    }
