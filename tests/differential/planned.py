"""What each task of a pipeline stands for, as plain values."""

from __future__ import annotations

from typing import Any

from orrery.config.project import Project
from orrery.manifest.store import ManifestStore, read_version
from orrery.plan.model import PipelinePlan
from orrery.plan.planner import plan_pipeline


def read_plan(project: Project, pipeline: str) -> PipelinePlan:
    """The plan of the version of a pipeline that has been built last."""
    entry = ManifestStore(project).index().of_environment("")[pipeline]
    return plan_pipeline(*read_version(project.manifest_dir / entry.manifest, pipeline))


def tasks_of(plan: PipelinePlan) -> dict[str, Any]:
    """The tasks by their ids."""
    return {
        task_id: {
            "kind": str(task.kind),
            "stage": task.stage,
            "nodes": list(task.nodes),
            "upstream": sorted(task.upstream),
            "always": task.always,
        }
        for task_id, task in plan.tasks.items()
    }
