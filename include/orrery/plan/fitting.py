"""Cuts what dbt says of nodes to what Airflow's database can hold; otherwise no DAG of the file is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orrery.config.text import fit
from orrery.plan.model import TaskPlan

# Airflow keeps the owners of a DAG in one text of 2,000 characters; some are left for its own.
_ALL_OWNERS = 1900
_OWNER = 200
# Below that, a name says nothing any more.
_SHORTEST_OWNER = 10
_TOO_MANY = "many owners"
# Each parse of the DAG stores the documentation of all tasks in one document.
_DOC = 100_000


def fitted(tasks: Mapping[str, TaskPlan]) -> dict[str, TaskPlan]:
    """The tasks with owners and documentation that can be stored."""
    shown = _owners({task.owner for task in tasks.values() if task.owner})
    return {
        task_id: replace(task, owner=shown.get(task.owner or ""), doc=fit(task.doc, _DOC))
        for task_id, task in tasks.items()
    }


def _owners(owners: set[str]) -> dict[str, str]:
    """How each owner is shown."""
    shown = {owner: fit(owner, _OWNER) for owner in owners}
    if sum(len(name) + 2 for name in set(shown.values())) <= _ALL_OWNERS:
        return shown
    most = _ALL_OWNERS // len(owners) - 2
    return {owner: fit(owner, most) if most >= _SHORTEST_OWNER else _TOO_MANY for owner in owners}
