"""Who comes after whom among the tasks of a plan."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import TopologicalSorter

from orrery.plan.model import TaskKind, TaskPlan

_FAILED = ("failed", "upstream_failed")


class Descent:
    """The graph of the tasks, for questions about single ones."""

    def __init__(self, tasks: Mapping[str, TaskPlan]) -> None:
        self._tasks = tasks
        # Only what a failure holds back: a task that runs always is no child.
        self._children: dict[str, list[str]] = {task_id: [] for task_id in tasks}
        self._parents = {task_id: list(task.upstream) for task_id, task in tasks.items()}
        for task_id, task in tasks.items():
            if not task.always:
                for other in task.upstream:
                    self._children[other].append(task_id)

    def ordered(self) -> list[str]:
        """All tasks, every one after those it waits for."""
        return list(TopologicalSorter(self._parents).static_order())

    def ancestors(self, task_id: str) -> set[str]:
        """All tasks that the task waits for, directly or not."""
        return _reach([task_id], self._parents)

    def descendants(self, task_ids: Iterable[str]) -> set[str]:
        """All tasks that a failure of `task_ids` holds back."""
        return _reach(task_ids, self._children)

    def waits_for_none(
        self, task: TaskPlan, states: Mapping[str, str | None], done: Collection[str | None]
    ) -> bool:
        """Whether all that the task waits for is done; points that only wait are looked through."""
        ended = {*done, *_FAILED} if task.always else done
        for other in task.upstream:
            if states.get(other) in ended:
                continue
            upstream = self._tasks[other]
            if upstream.kind is not TaskKind.MARKER or not self.waits_for_none(upstream, states, done):
                return False
        return True

    def runnable(
        self, candidates: Collection[str], states: Mapping[str, str | None], done: Collection[str | None]
    ) -> set[str]:
        """Those of the candidates that wait for nothing but each other and what is done."""
        taken = "to be run"
        known: dict[str, str | None] = {**states, **dict.fromkeys(candidates)}
        accepted = (*done, taken)
        for task_id in self.ordered():
            task = self._tasks[task_id]
            possible = task_id in candidates or (task.kind is TaskKind.MARKER and known.get(task_id) is None)
            if possible and self.waits_for_none(task, known, accepted):
                known[task_id] = taken
        return {task_id for task_id in candidates if known[task_id] == taken}


def _reach(task_ids: Iterable[str], steps: Mapping[str, list[str]]) -> set[str]:
    """What is reached from `task_ids`, without themselves unless something leads back."""
    found: set[str] = set()
    waiting = list(task_ids)
    while waiting:
        new = set(steps[waiting.pop()]) - found
        found |= new
        waiting += new
    return found
