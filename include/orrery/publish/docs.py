"""dbt's documentation of a pipeline after a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orrery.config.project import Project
from orrery.execute import run_folder
from orrery.execute.options import RunOptions
from orrery.execute.profile import use_connection
from orrery.manifest.dbt import Dbt
from orrery.publish.artifacts import DOCS_FOLDER


def publishing_dbt(
    project: Project,
    ti: Any,
    options: RunOptions,
    name: str = DOCS_FOLDER,
    environment: Mapping[str, str] | None = None,
) -> Dbt:
    """dbt with a target folder of its own in the folder of a run, so that what the run has left stays."""
    folder = run_folder.prepare(project, ti.dag_id, ti.run_id)
    use_connection(project, folder)
    target = folder / name
    target.mkdir(exist_ok=True)
    return Dbt(project, target_dir=target, variables=options.variables, environment=environment)


def write_docs(dbt: Dbt, unique_ids: Iterable[str]) -> Path:
    """One HTML file with the documentation of the project, and a catalog of these nodes; raises DbtError."""
    made = dbt.docs(unique_ids)
    run_folder.tidy(dbt.target_dir)
    return made
