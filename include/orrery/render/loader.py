"""Makes the DAGs of the pipelines, each from its last good version and by itself."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from orrery.config.environment import environment
from orrery.config.errors import OrreryError
from orrery.manifest.store import ManifestStore, read_version
from orrery.plan.installed import absent, lacking
from orrery.plan.planner import plan_pipeline
from orrery.plan.proof import proof
from orrery.render.check import check_dag
from orrery.render.dag import render

if TYPE_CHECKING:
    from airflow.sdk import DAG

    from orrery.config.project import Project

log = logging.getLogger(__name__)


class LackingError(OrreryError):
    """A pipeline needs a package that is not installed here."""


@dataclass(frozen=True)
class Made:
    """The DAGs by name, and what is wrong with the pipelines that have become none."""

    dags: dict[str, DAG] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def make_dags(project: Project, *, only: str | None = None) -> Made:
    """The DAGs of all pipelines that were ever good, or of one.

    What keeps one pipeline from becoming a DAG does not touch the others. A manifest that is stale, and a
    build that has failed since, are told elsewhere: Airflow schedules no task of a DAG that has vanished, so
    an edit would freeze every run that has started.
    """
    index = ManifestStore(project).index()
    entries = {name: entry for name, entry in index.of_environment(environment()).items() if entry.manifest}
    awaited = {other for entry in entries.values() for other in entry.after}
    known = proof() if only is None else ""
    made = Made()
    for name, entry in entries.items():
        if only not in (None, name):
            continue
        try:
            dag = make_dag(project, name, project.manifest_dir / entry.manifest, announced=name in awaited)
            if standing := index.standing(name):
                sentence, first = standing
                dag.doc_md = f"**{sentence}**\n\n    {first}\n\n{dag.doc_md}"
            # A DAG that Airflow cannot store takes all others of the file with it. A worker stores nothing.
            if only is None and entry.proof != known:
                check_dag(dag)
            made.dags[name] = dag
        except Exception as error:
            made.problems[name] = why_not(name, error)
            log.warning("The pipeline %s does not become a DAG", name, exc_info=error)
    return made


def make_dag(project: Project, name: str, version: Path, *, announced: bool) -> DAG:
    """The DAG of a stored version of a pipeline; raises LackingError and whatever else is wrong with it."""
    pipeline, slim = read_version(version, name)
    plan = plan_pipeline(pipeline, slim)
    if message := lacking(plan, absent()):
        raise LackingError(message)
    return render(plan, project, version, announced=announced)


def why_not(name: str, error: Exception) -> str:
    """What to say of a pipeline that does not become a DAG."""
    if isinstance(error, OrreryError):
        return str(error)
    return f"{name}: Airflow cannot load this pipeline: {type(error).__name__}: {error}"
