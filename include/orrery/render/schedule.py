"""When a pipeline runs: by the clock, after others, or when files have arrived."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Asset, AssetAll, AssetAny, AssetWatcher

from orrery.config.environment import named
from orrery.config.pipeline import After
from orrery.config.project import Project
from orrery.plan.model import PipelinePlan, Work


def asset_of(pipeline: str) -> Asset:
    """The asset that a pipeline updates when it has succeeded."""
    return Asset(name=f"orrery_{pipeline}", uri=f"orrery://pipeline/{pipeline}")


def schedule_of(plan: PipelinePlan, project: Project) -> Any:
    """What Airflow takes as the schedule of a DAG."""
    config = plan.config
    if isinstance(config.schedule, After):
        condition = AssetAny if config.schedule.when == "any" else AssetAll
        return condition(*(asset_of(name) for name in config.after))
    if config.on_files:
        files = (task for task in plan.tasks.values() if task.work and task.work.kind == "files")
        return AssetAny(
            *(_landing_asset(task.work, project) for task in files if task.work and not task.step)
        )
    return config.schedule


def _landing_asset(work: Work, project: Project) -> Asset:
    """The asset that the arrival of files for a source updates."""
    # Few pipelines need it, and every parse would pay for it.
    from orrery.ingest.trigger import FilesArrivedTrigger

    of = named(work.of)
    name = f"orrery_landing_{of}"
    trigger = FilesArrivedTrigger.of(work.block, project)
    return Asset(
        name=name,
        uri=f"orrery://landing/{of}",
        watchers=[AssetWatcher(name=f"{name}_watcher", trigger=trigger)],
    )
