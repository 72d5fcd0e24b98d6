"""Where the task of a node or a source stands, and what it does."""

from __future__ import annotations

from typing import Any

from orrery.config.resources import FUNCTION, SOURCE
from orrery.config.stages import CORE, SEED, SNAPSHOT, SOURCE_FRESHNESS, STAGING
from orrery.plan.model import TaskKind

Resource = dict[str, Any]


def stage_of(resource: Resource) -> str:
    """The stage of a node or a source: a pipeline's own, or that of its kind and folder."""
    if resource.get("stage"):
        return str(resource["stage"])
    if resource["resource_type"] == SOURCE:
        return SOURCE_FRESHNESS
    if resource["resource_type"] in (SEED, SNAPSHOT, FUNCTION):
        return str(resource["resource_type"])
    return STAGING if STAGING in resource["fqn"][1:-1] else CORE


def kind_of(resource: Resource) -> TaskKind:
    """What a node's task does."""
    if resource["resource_type"] == SOURCE:
        return TaskKind.FRESHNESS
    ephemeral = resource["config"].get("materialized") == "ephemeral"
    return TaskKind.MARKER if ephemeral else TaskKind(resource["resource_type"])
