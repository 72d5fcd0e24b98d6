"""What `dbt build` does with unit tests: it runs them together with their model, and not without it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from orrery.plan.model import TaskKind, TaskPlan

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

_TESTS = (TaskKind.TEST, TaskKind.UNIT_TEST)


def tests_apart(tasks: Mapping[str, TaskPlan], manifest: Manifest) -> dict[str, TaskPlan]:
    """Those of the tasks that take `dbt test`: unit tests without their models, or all when all are tests.

    Without a task for an ephemeral model, its unit tests are none of them: see `ephemeral_models`.
    """
    if all(task.kind in _TESTS for task in tasks.values()):
        return dict(tasks)
    built = {uid for task in tasks.values() for uid in task.nodes}
    return {
        task_id: task
        for task_id, task in tasks.items()
        if task.kind is TaskKind.UNIT_TEST
        and any(
            model not in built and not manifest.nodes[model].is_ephemeral_model
            for model in _models(task.nodes, manifest)
        )
    }


def ephemeral_models(tasks: Iterable[TaskPlan], manifest: Manifest) -> set[str]:
    """The models without a table that have to be selected, or `dbt build` would not run their unit tests."""
    models = {model for task in tasks for model in _models(task.nodes, manifest)}
    return {model for model in models if manifest.nodes[model].is_ephemeral_model}


def _models(unique_ids: Iterable[str], manifest: Manifest) -> list[str]:
    tests = [manifest.unit_tests[uid] for uid in unique_ids if uid in manifest.unit_tests]
    return [model for test in tests for model in test.depends_on.nodes if model in manifest.nodes]
