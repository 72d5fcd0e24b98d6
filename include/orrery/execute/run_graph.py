"""Which task comes after which in one run: dbt's graph of this invocation, seen as tasks."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Iterable, Mapping
from graphlib import TopologicalSorter

from orrery.plan.model import TaskKind, TaskPlan

# How many bytes the text of a graph unpacks to at most: those of some hundred thousand tasks.
_LONGEST = 50_000_000
FAILED = frozenset({"failed", "upstream_failed"})


class RunGraph:
    """The order of a run's tasks.

    Airflow's edges come from the manifest that the DAG was made of. What dbt runs in this invocation may
    have others: variables choose which models a model reads. Whoever decides what runs, what a failure holds
    back and what a success rests on asks this graph, not Airflow's.

    :param parents: for each task the tasks that it waits for directly. Points that only wait (markers) are
        left out, and so is everything that does not end before dbt can begin with the task
    """

    def __init__(self, parents: Mapping[str, Collection[str]]) -> None:
        self.parents: dict[str, frozenset[str]] = {tid: frozenset(above) for tid, above in parents.items()}
        self._children: dict[str, list[str]] = {tid: [] for tid in self.parents}
        for task_id, above in self.parents.items():
            for other in above:
                self._children[other].append(task_id)

    @classmethod
    def planned(cls, tasks: Mapping[str, TaskPlan]) -> RunGraph:
        """The graph that the DAG was made with, for whoever cannot ask dbt."""
        solid: dict[str, frozenset[str]] = {}

        def above(task_id: str) -> frozenset[str]:
            if task_id not in solid:
                found: set[str] = set()
                for other in tasks[task_id].upstream:
                    if tasks[other].kind is not TaskKind.MARKER:
                        found.add(other)
                    elif not tasks[other].always:
                        found |= above(other)
                solid[task_id] = frozenset(found)
            return solid[task_id]

        order = TopologicalSorter({task_id: task.upstream for task_id, task in tasks.items()}).static_order()
        return cls({task_id: above(task_id) for task_id in order if not stands_apart(tasks[task_id])})

    @classmethod
    def of_text(cls, text: str) -> RunGraph:
        """The graph that `as_text` has packed; raises ValueError for any other text."""
        try:
            packed = zlib.decompressobj().decompress(base64.b64decode(text), _LONGEST)
            tasks, above = json.loads(packed)
            return cls(
                {
                    task: [tasks[index] for index in indexes]
                    for task, indexes in zip(tasks, above, strict=True)
                }
            )
        except (TypeError, LookupError, RecursionError, zlib.error) as error:
            raise ValueError(str(error)) from None

    def as_text(self) -> str:
        """The graph in ASCII letters, some ten bytes a task."""
        tasks = self.ordered()
        number = {task: index for index, task in enumerate(tasks)}
        above = [sorted(number[other] for other in self.parents[task]) for task in tasks]
        return base64.b64encode(zlib.compress(json.dumps([tasks, above]).encode(), 9)).decode()

    def ordered(self) -> list[str]:
        """All tasks, every one after those it waits for."""
        return list(TopologicalSorter(self.parents).static_order())

    def ancestors(self, task_ids: Iterable[str]) -> set[str]:
        """All tasks that one of `task_ids` waits for, directly or not."""
        return _reach(task_ids, self.parents)

    def descendants(self, task_ids: Iterable[str]) -> set[str]:
        """All tasks that wait for one of `task_ids`, directly or not."""
        return _reach(task_ids, self._children)


def stands_apart(task: TaskPlan) -> bool:
    """Whether a task has no place in the order of nodes; what runs for an exposure comes after its nodes."""
    return task.kind in (TaskKind.MARKER, TaskKind.PUBLISH)


def _reach(task_ids: Iterable[str], steps: Mapping[str, Collection[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [task_id for task_id in task_ids if task_id in steps]
    while waiting:
        new = set(steps[waiting.pop()]) - found
        found |= new
        waiting += new
    return found
