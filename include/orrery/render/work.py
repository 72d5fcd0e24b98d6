"""The operators of work beside dbt, and of what is published at the end."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from typing import Any

from airflow.sdk import BaseOperator
from airflow.sdk.definitions.mappedoperator import MappedOperator

from orrery.config.publish import Publish
from orrery.config.resources import DATA_TYPES, type_of
from orrery.plan.model import PipelinePlan, TaskPlan, Work

# By the kind of work; imported when a pipeline has such work, for some of them bring
# the library of a provider with them.
_OPERATORS = {
    "files": "orrery.ingest.operator.IngestFilesOperator",
    "airbyte": "orrery.ingest.airbyte.AirbyteOperator",
    "transfer": "orrery.ingest.transfer.TransferOperator",
    "job": "orrery.ingest.kubernetes.JobOperator",
    "spark": "orrery.ingest.kubernetes.SparkOperator",
    "http": "orrery.ingest.exposure.HttpOperator",
    "pipeline": "orrery.ingest.exposure.PipelineOperator",
}
# What does no harm when it comes twice is tried once more: workers get lost, and a scheduler that is very
# busy may notice their end too late (see orrery.ingest.resume).
_REPEATABLE = ("files", "transfer", "airbyte", "job", "spark")
_RETRY_DELAY = timedelta(seconds=5)


def work_operator(
    task: TaskPlan, work: Work, tasks: Mapping[str, BaseOperator | MappedOperator], arguments: dict[str, Any]
) -> BaseOperator | MappedOperator:
    """The operator of a task beside dbt.

    :param tasks: the operators of the tasks before it
    :param arguments: those of every operator
    """
    if work.kind in _REPEATABLE:
        arguments |= {"retries": max(1, arguments["retries"]), "retry_delay": _RETRY_DELAY}
    if work.kind == "files" and work.block.chunk_size:
        # Few pipelines need it.
        from orrery.render.chunks import chunk_operator

        return chunk_operator(task, tasks, arguments)
    module, _, name = _OPERATORS[work.kind].rpartition(".")
    operator: type[BaseOperator] = getattr(import_module(module), name)
    return operator(stage=task.stage, nodes=task.nodes, work=work, **arguments)


def publish_operator(
    task: TaskPlan, block: Publish, plan: PipelinePlan, arguments: dict[str, Any]
) -> BaseOperator:
    """The operator of a task that publishes something of a run."""
    # Few pipelines need it.
    from orrery.publish.operator import OPERATORS

    nodes = {uid for other in plan.tasks.values() for uid in other.nodes}
    documented = tuple(sorted(uid for uid in nodes if type_of(uid) in DATA_TYPES))
    return OPERATORS[task.name](stage=task.stage, publish=block, documented=documented, **arguments)
