"""Tasks that do nothing: points in the graph that only wait."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator

from orrery.execute.grounds import DONE
from orrery.execute.run_graph import FAILED
from orrery.plan.model import TaskKind, TaskPlan


class MarkerOperator(EmptyOperator):
    """A point in the graph; the scheduler marks it as done without running anything.

    :param stage: the stage that it is in
    :param nodes: the dbt unique id of an ephemeral model, of which dbt makes nothing
    """

    custom_operator_name = "marker"

    def __init__(self, *, stage: str = "", nodes: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage, self.nodes = stage, nodes


def due_markers(tasks: Mapping[str, TaskPlan], states: Mapping[str, str | None]) -> list[str]:
    """The points that wait for nothing any more and are not done yet, in the order of the graph."""
    known = dict(states)
    due: list[str] = []
    order = TopologicalSorter({task_id: task.upstream for task_id, task in tasks.items()}).static_order()
    for task_id in order:
        task = tasks[task_id]
        enough = DONE | FAILED if task.always else DONE
        waits = task.kind is TaskKind.MARKER and known.get(task_id) is None
        if waits and all(known.get(other) in enough for other in task.upstream):
            known[task_id] = "success"
            due.append(task_id)
    return due
