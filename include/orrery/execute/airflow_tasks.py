"""The tasks of a run in Airflow, as a build takes them and sees them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from orrery.config.errors import OrreryError
from orrery.execute.channel import HELD, HOLD, SETTLE, Try
from orrery.execute.publisher import Publisher, Store
from orrery.execute.run_graph import FAILED, RunGraph


class NotConfiguredError(OrreryError):
    """Airflow's task state store is not Orrery's."""


class AirflowTasks:
    """The tasks of the run that a build belongs to.

    :param ti: the build's own
    """

    def __init__(self, ti: Any, store: Store, publisher: Publisher) -> None:
        self._ti, self._store, self._publisher = ti, store, publisher
        self._graph: RunGraph | None = None

    def hold(self, task_ids: Collection[str], graph: RunGraph, *, again: bool = False) -> dict[str, Try]:
        """Take those of the tasks that have not ended and that nobody works on; returns what the build has.

        :param graph: the graph of the run, which Airflow keeps
        :param again: whether tasks that have ended begin anew
        """
        self._publisher.flush()
        if not task_ids:
            return {}
        message = {
            "tasks": list(task_ids),
            "host": self._ti.hostname or "",
            "pid": os.getpid(),
            "again": again,
        }
        if graph is not self._graph:
            message["graph"] = graph.as_text()
        self._store.set(HOLD, message)
        self._graph = graph
        held: Mapping[str, Mapping[str, Any]] | None = self._store.get(HELD)
        if held is None:
            raise NotConfiguredError(
                "Airflow's api-server does not know how to end the tasks of a build.\n"
                "  Set AIRFLOW__STATE_STORE__BACKEND=orrery.execute.state_store.NodeStateStore for it, or "
                "execute: per_model in the pipeline's file."
            )
        return {tid: Try(**held[tid]) for tid in task_ids if tid in held}

    def settle(self) -> None:
        """Say that nodes have come to their ends: no success is to rest on what has failed since."""
        self._publisher.flush()
        self._store.set(SETTLE, {})

    def flush(self) -> None:
        """Wait until all news are published."""
        self._publisher.flush()

    def states(self, task_ids: Collection[str] = ()) -> dict[str, str | None]:
        """The states of the tasks of the run once all news are published.

        :param task_ids: those that may be mapped; such a task has the state of its worst instance
        """
        self._publisher.flush()
        run_id = self._ti.run_id
        states: dict[str, str | None] = self._ti.get_task_states(
            dag_id=self._ti.dag_id, run_ids=[run_id]
        ).get(run_id, {})
        return {**states, **_of_mapped(task_ids, states)}


def _of_mapped(task_ids: Collection[str], states: Mapping[str, str | None]) -> dict[str, str | None]:
    """The states of mapped tasks, whose instances Airflow calls `<task>_<index>`."""
    found: dict[str, str | None] = {}
    mapped = {tid for tid in task_ids if tid not in states}
    for name, state in states.items():
        task_id, _, index = name.rpartition("_")
        if task_id in mapped and index.isdecimal():
            found[task_id] = min(found.get(task_id, state), state, key=_badness)
    return found


def _badness(state: str | None) -> int:
    if state in FAILED:
        return 0
    return 2 if state in ("success", "skipped") else 1
