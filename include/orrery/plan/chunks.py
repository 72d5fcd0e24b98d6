"""The tasks that come before the one that loads files, when big files are loaded in chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from orrery.plan.model import Step, TaskPlan

_DOC = {
    Step.SPLIT: "Waits for the files of {table}, and finds out where the big ones can be cut.",
    Step.CHUNKS: "Stages the chunks of big files, each in an instance of this task; {table} loads them all.",
}


def steps_before(task: TaskPlan) -> Iterator[TaskPlan]:
    """The steps before an ingestion, without what they wait for: each for the one before it."""
    if task.work is None or task.work.kind != "files" or task.work.block.chunk_size is None:
        return
    for step in Step:
        doc = _DOC[step].format(table=f"`{task.task_id}`")
        yield replace(task, task_id=f"{task.task_id}{step}", step=step, doc=doc)
