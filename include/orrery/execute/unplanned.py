"""What the vars of a run enable, and a DAG has no task for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orrery.config.resources import NODE_TYPES, TEST_TYPES, type_of
from orrery.execute.assignment import Assignment
from orrery.manifest.dbt import Dbt
from orrery.manifest.packages import ELEMENTARY

# How many nodes are named.
_NAMED = 10


def unplanned(assignment: Assignment, dbt: Dbt) -> str:
    """What to say of nodes that the pipeline selects with the vars of this run only; empty without any."""
    if assignment.selection is None:
        return ""
    planned = {uid for task in assignment.tasks.values() for uid in task.nodes}
    types = (*NODE_TYPES, *(TEST_TYPES if assignment.tests != "off" else ()))
    selected = _select(assignment.selection, dbt)
    missing = {uid for uid in selected - planned if type_of(uid) in types}
    manifest: Any = dbt.manifest
    nodes = {**manifest.nodes, **manifest.functions, **manifest.unit_tests}
    missing = {uid for uid in missing if not _is_elementarys(nodes[uid])}
    # dbt runs a unit test with its model only.
    models = planned | missing
    missing -= {
        uid for uid in missing if type_of(uid) == "unit_test" and not models & {*nodes[uid].depends_on.nodes}
    }
    return _in_words(sorted(missing)) if missing else ""


def _select(selection: Mapping[str, Any], dbt: Dbt) -> set[str]:
    # Lists, when it comes by way of JSON.
    return dbt.select(tuple(selection["select"]), tuple(selection["exclude"]), selection["selector"])


def _is_elementarys(node: Any) -> bool:
    test = getattr(node, "test_metadata", None)
    return ELEMENTARY in (node.package_name, test.namespace if test else None)


def _in_words(unique_ids: list[str]) -> str:
    names = [f"{type_of(uid).replace('_', ' ')} {uid.split('.', 2)[2]}" for uid in unique_ids]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return (
        "The vars of this run enable nodes for which the DAG has no tasks, so they do not run: "
        f"{', '.join(names[:_NAMED])}{more}. Write the vars into the pipeline's file for them to have tasks."
    )
