"""The `run` blocks of exposures: what happens after the models of a pipeline."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from orrery.config.environment import named
from orrery.config.errors import ConfigError, Problem, suggest
from orrery.config.exposure import PipelineRun
from orrery.config.kinds import RUN_KINDS, ExposureMeta
from orrery.config.project import Project
from orrery.config.resources import SOURCE, type_of
from orrery.manifest.blocks import BlockReader

Resource = dict[str, Any]


def exposure_runs(
    project: Project, exposures: Mapping[str, Resource], built: Collection[str], pipelines: Collection[str]
) -> list[Resource]:
    """The exposures that run something after a pipeline, as the slim manifest has them.

    An exposure belongs to each pipeline that builds all models, seeds and snapshots that it depends on.
    Raises ConfigError.

    :param built: the unique ids of what the pipeline builds
    :param pipelines: the names of all pipelines
    """
    found: list[Resource] = []
    problems: list[Problem] = []
    for _, exposure in sorted(exposures.items()):
        meta = (exposure.get("config", {}).get("meta") or exposure.get("meta") or {}).get("orrery")
        reads = exposure["depends_on"]["nodes"]
        parents = [parent for parent in reads if type_of(parent) not in (SOURCE, "metric")]
        if meta is None or not parents or not all(parent in built for parent in parents):
            continue
        reader = BlockReader.of_exposure(project, exposure)
        try:
            run = reader.meta(ExposureMeta, meta).run
            if run is None:
                continue
            kind = reader.kind_of(run, ("run",), RUN_KINDS, "run")
            block = reader.block(run, ("run",), RUN_KINDS[kind])
            if isinstance(block, PipelineRun) and named(block.pipeline) not in pipelines:
                what = f"unknown pipeline {block.pipeline!r}"
                fix = suggest(block.pipeline, pipelines, "pipeline")
                raise ConfigError([reader.problem(("run", "pipeline"), what, fix, at_value=True)])
        except ConfigError as error:
            problems += error.problems
            continue
        found.append(
            {
                **{key: exposure[key] for key in ("unique_id", "name", "package_name", "original_file_path")},
                "resource_type": "exposure",
                "description": exposure.get("description") or "",
                "owner": exposure.get("owner") or {},
                "kind": kind,
                "block": run,
                "depends_on": {"nodes": parents},
                "reads": [parent for parent in reads if type_of(parent) == SOURCE],
            }
        )
    if problems:
        raise ConfigError(problems)
    return found
