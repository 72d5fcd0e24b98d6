"""Failures of a run that its last tasks do not show."""

from __future__ import annotations

from collections.abc import Mapping

from orrery.config.stages import HOOKS_END, PUBLISH
from orrery.execute.channel import NodeState
from orrery.execute.run_graph import FAILED
from orrery.plan.model import TaskKind, TaskPlan

# A worker is about to fail a task of which dbt has said that it failed.
_FAILING = ("scheduled", "queued", "running")


def hidden_failure(
    tasks: Mapping[str, TaskPlan], states: Mapping[str, str | None], ended: Mapping[str, NodeState]
) -> str | None:
    """A failure that leaves a run a success for Airflow, in words.

    Airflow judges a run by the tasks after which nothing comes. After a failed one something may come and
    succeed: a test at the end of the run, or a model that does not read the failed one with these variables.

    :param states: the states of the tasks
    :param ended: what has become of tasks in this build
    """
    failed = {
        task_id
        for task_id in tasks
        if states.get(task_id) in FAILED
        or (ended.get(task_id) is NodeState.FAILED and states.get(task_id) in _FAILING)
    }
    followed = {other for task in tasks.values() if task.stage != PUBLISH for other in task.upstream}
    for task_id, task in tasks.items():
        last = task_id not in followed and task.stage != PUBLISH and task_id != HOOKS_END
        held_back = (
            task.kind is TaskKind.EXPOSURE and states.get(task_id) != "success" and task.upstream & failed
        )
        if last and (task_id in failed or held_back):
            return None
    return f"{min(failed)} failed." if failed else None
