"""What a pod is told to do, as arguments of its command."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from orrery.execute.assignment import Assignment
from orrery.execute.channel import Try
from orrery.execute.options import RunOptions
from orrery.plan.model import TaskKind, TaskPlan

# Linux takes 128 KiB for one argument; Kubernetes 1.5 MiB for an object.
_ARGUMENT = 100_000


@dataclass(frozen=True)
class Order:
    """An assignment, and which of its tasks are to be run, by their ids."""

    assignment: Assignment
    tries: Mapping[str, Try]

    def arguments(self) -> list[str]:
        """The order in letters and digits, `_`, `-` and `=` only."""
        assignment = replace(self.assignment, tasks={})
        values: dict[str, Any] = {
            **asdict(assignment),
            "tries": {tid: asdict(each) for tid, each in self.tries.items()},
        }
        values["options"]["skip_stages"] = sorted(values["options"]["skip_stages"])
        values["tasks"] = [_as_list(task) for task in self.assignment.tasks.values()]
        packed = base64.urlsafe_b64encode(zlib.compress(json.dumps(values).encode(), 9)).decode()
        return [packed[at : at + _ARGUMENT] for at in range(0, len(packed), _ARGUMENT)]

    @classmethod
    def of(cls, arguments: Sequence[str]) -> Order:
        """The order that `arguments` has packed."""
        values: dict[str, Any] = json.loads(zlib.decompress(base64.urlsafe_b64decode("".join(arguments))))
        tries = {task_id: Try(**each) for task_id, each in values.pop("tries").items()}
        options = values.pop("options")
        for key in ("select", "exclude"):
            options[key] = tuple(options[key])
        options["skip_stages"] = frozenset(options["skip_stages"])
        tasks = [_of_list(each) for each in values.pop("tasks")]
        by_id = {task.task_id: task for task in tasks}
        return cls(Assignment(**values, options=RunOptions(**options), tasks=by_id), tries)


def _as_list(task: TaskPlan) -> list[Any]:
    """What dbt's side needs of a task."""
    return [task.task_id, task.stage, task.kind, task.nodes, sorted(task.upstream), task.always]


def _of_list(values: Sequence[Any]) -> TaskPlan:
    task_id, stage, kind, nodes, upstream, always = values
    return TaskPlan(
        task_id=task_id,
        stage=stage,
        kind=TaskKind(kind),
        nodes=tuple(nodes),
        upstream=frozenset(upstream),
        owner=None,
        doc="",
        always=always,
    )
