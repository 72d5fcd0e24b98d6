"""Keeps Airflow able to draw the stages of a plan."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter


def tangled_stage(
    order: tuple[str, ...], stage_of: Mapping[str, str], upstream: Mapping[str, set[str]]
) -> str | None:
    """A stage that waits for itself by way of other stages, or None.

    Airflow orders the task groups of a graph, and shows an empty page when two groups wait for each
    other. A group counts as waiting for what its first tasks wait for: those that wait for no task of
    the same group. Of several tangled stages this is the last in `order`.
    """
    waits: dict[str, set[str]] = {stage: set() for stage in order}
    for task in first_tasks(stage_of, upstream):
        waits[stage_of[task]] |= {stage_of[other] for other in upstream[task]}
    try:
        TopologicalSorter(waits).prepare()
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return max(cycle, key=order.index)
    return None


def first_tasks(stage_of: Mapping[str, str], upstream: Mapping[str, set[str]]) -> list[str]:
    """The tasks that wait for no task of their own stage."""
    return [
        task for task, stage in stage_of.items() if all(stage_of[other] != stage for other in upstream[task])
    ]
