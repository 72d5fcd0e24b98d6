"""What has become of the tasks of a build so far."""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from orrery.execute.channel import NodeState, Update


class Outlet(Protocol):
    """Whoever takes the news of tasks."""

    def add(self, update: Update) -> None:
        """Take the news of one task; returns at once."""


class Tally:
    """Passes the news of tasks on, and counts.

    `ended` holds the state of each task that has ended.
    """

    def __init__(self, outlet: Outlet) -> None:
        self.ended: dict[str, NodeState] = {}
        self._outlet = outlet
        self._released: Counter[str] = Counter()

    def add(self, update: Update) -> None:
        """Take the news of one task, and pass it on."""
        if update.state is NodeState.RELEASED:
            self._released[update.task_id] += 1
        elif update.state is not NodeState.RUNNING:
            self.ended[update.task_id] = update.state
        self._outlet.add(update)

    def release(self, task_id: str) -> None:
        """Give a task back to Airflow."""
        self.add(Update(task_id, NodeState.RELEASED))

    def is_open(self, task_id: str) -> bool:
        """Whether the build may take the task (again): one that it gives back twice is not for it."""
        return task_id not in self.ended and self._released[task_id] < 2

    def was_released(self, task_id: str) -> bool:
        """Whether the build has given the task back."""
        return self._released[task_id] > 0
