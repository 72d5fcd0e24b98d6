"""The operators of dbt's nodes, and of the task that runs them all, by where dbt runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orrery.config.pipeline import Pipeline
from orrery.execute.build import DbtBuildOperator
from orrery.execute.node import BuiltNodeOperator, DbtNodeOperator, PerModelOperator
from orrery.plan.model import TaskPlan


def node_operator(
    task: TaskPlan, config: Pipeline, checks: Iterable[str], arguments: dict[str, Any]
) -> DbtNodeOperator:
    """The operator of a task of dbt.

    :param checks: the ids of the checks of sources that may skip it
    :param arguments: those of every operator
    """
    of_node: dict[str, Any] = {"kind": task.kind, "stage": task.stage, "nodes": task.nodes}
    if config.one_build:
        return BuiltNodeOperator(**of_node, **arguments)
    of_node |= {"stale": config.stale, "checks": tuple(sorted(checks))}
    if config.pods is None:
        return PerModelOperator(**of_node, **arguments)
    from orrery.pods.operators import PodNodeOperator

    return PodNodeOperator(pods=config.pods, retries=config.retries, **of_node, **arguments)


def build_operator(config: Pipeline) -> type[DbtBuildOperator]:
    """The operator of the task that runs all nodes."""
    if config.pods is None:
        return DbtBuildOperator
    # Few pipelines need it.
    from orrery.pods.operators import PodBuildOperator

    return PodBuildOperator
