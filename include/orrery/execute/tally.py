"""What has become of the tasks of a build so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from orrery.execute.batches import Batches
from orrery.execute.channel import NodeState, Update


class Outlet(Protocol):
    """Whoever takes the news of tasks."""

    def add(self, update: Update) -> None:
        """Take the news of one task; returns at once."""


class Tally:
    """Passes the news of tasks on, and counts.

    `ended` holds the state of each task that has ended. `held_back` are tasks that dbt did not run, each with
    the reason: the build keeps them, and decides about them when dbt's command is over.

    :param outlet: takes the news of tasks
    :param remember: takes which batches of microbatch models have failed, or are not done yet
    """

    def __init__(self, outlet: Outlet, remember: Callable[[Batches], None] = lambda batches: None) -> None:
        self.remember = remember
        self.ended: dict[str, NodeState] = {}
        self.held_back: dict[str, str] = {}
        self._outlet = outlet

    def begin(self, task_ids: Iterable[str]) -> None:
        """Forget what became of tasks that are run (again) now."""
        for task_id in task_ids:
            self.ended.pop(task_id, None)
            self.held_back.pop(task_id, None)

    def add(self, update: Update) -> None:
        """Take the news of one task, and pass it on."""
        if update.state not in (NodeState.RUNNING, NodeState.RELEASED):
            self.ended[update.task_id] = update.state
        self._outlet.add(update)

    def release(self, task_id: str) -> None:
        """Give a task back to Airflow."""
        self.add(Update(task_id, NodeState.RELEASED))

    def hold_back(self, task_id: str, reason: str) -> None:
        """Take that dbt does not run a task in this command."""
        self.held_back[task_id] = reason
