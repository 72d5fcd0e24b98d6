"""The tasks of an ingestion in chunks; see orrery.plan.chunks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator, XComArg
from airflow.sdk.definitions.mappedoperator import MappedOperator

from orrery.ingest.chunk_operators import MergeChunksOperator, SplitFilesOperator, StageChunkOperator
from orrery.plan.model import Step, TaskPlan


def chunk_operator(
    task: TaskPlan, tasks: Mapping[str, BaseOperator | MappedOperator], arguments: dict[str, Any]
) -> BaseOperator | MappedOperator:
    """The operator of a step, or of the ingestion itself.

    :param tasks: the operators of the tasks before it
    :param arguments: those of every operator
    """
    arguments = {"stage": task.stage, "nodes": task.nodes, "work": task.work, **arguments}
    if task.step is Step.SPLIT:
        return SplitFilesOperator(**arguments)
    if task.step is Step.CHUNKS:
        (split,) = (tasks[other] for other in task.upstream)
        template = "{{ task.chunk_label }}"
        return StageChunkOperator.partial(map_index_template=template, **arguments).expand(
            chunk=XComArg(split)
        )
    return MergeChunksOperator(**arguments)
