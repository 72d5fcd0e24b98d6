"""The parts of Airflow that alerts use, where no Airflow runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from orrery.alert.ending import Ending
from orrery.alert.failure import FailureAlert
from orrery.config.alerts import Alerts

RUN_ID = "manual__2026-11-22T02:00:00+00:00"


class FakeMemory:
    """Airflow's store of state for one asset."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value

    def delete(self, key: str) -> None:
        self.values.pop(key, None)


def node(uid: str, status: str, message: str | None = None, failures: int | None = None) -> dict[str, Any]:
    """What dbt says of a node, as XComs have it."""
    return {"unique_id": uid, "status": status, "message": message, "failures": failures}


def result(*nodes: dict[str, Any], status: str = "error", message: str | None = None) -> dict[str, Any]:
    """The XCom of a task."""
    told = message or "\n".join(each["message"] for each in nodes if each["message"])
    return {"status": status, "message": told or None, "nodes": list(nodes)}


@dataclass
class Run:
    """A run: the states of its tasks, and their XComs by task and key."""

    dag: Any
    run_id: str = RUN_ID
    states: dict[str, str] = field(default_factory=dict)
    xcoms: dict[tuple[str, str], Any] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)

    def context(self, task_id: str, map_index: int = -1, **more: Any) -> Any:
        """The context of a task."""
        known = self.dag.get_task(task_id) if self.dag.has_task(task_id) else None
        ti = SimpleNamespace(
            dag_id=self.dag.dag_id,
            run_id=self.run_id,
            task_id=task_id,
            map_index=map_index,
            task=known,
            get_task_states=lambda dag_id, run_ids: {self.run_id: dict(self.states)},
            xcom_pull=lambda task_ids, key, map_indexes: self.xcoms.get((task_ids, key)),
        )
        return {"ti": ti, "dag": self.dag, "params": self.params, "dag_run": SimpleNamespace(conf={}), **more}

    def fail(self, alerts: Alerts, task_id: str, xcom: Any = None, error: str = "It failed.") -> None:
        """A task fails on a worker."""
        if xcom is not None:
            self.xcoms[task_id, "dbt"] = xcom
        FailureAlert(alerts, "analytics")(self.context(task_id, exception=RuntimeError(error)))
        self.states[task_id] = "failed"

    def end(self, alerts: Alerts) -> None:
        """The task `alert` runs."""
        states: dict[str, str | None] = dict(self.states)
        Ending(self.context("alert"), alerts, "analytics", states).tell()
