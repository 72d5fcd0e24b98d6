"""What dags/orrery.py loads."""

from __future__ import annotations

from airflow.sdk import DAG, get_parsing_context

from orrery.config.errors import OrreryError
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.manifest.store import ManifestStore
from orrery.plan.installed import absent, lacking
from orrery.plan.planner import plan_pipeline
from orrery.render.dag import render


def load_dags(file: str) -> dict[str, DAG]:
    """The DAGs of all valid pipelines by name; what is broken is raised by orrery.plan.problems.

    A manifest that is stale is an error there, but its DAGs are still made here: Airflow schedules
    no task of a DAG that has vanished, so an edit would freeze every run that has started.

    :param file: the DAG file, which tells the project
    Raises ConfigError when orrery.env or ORRERY_ENVIRONMENT is broken, without which no pipeline has a name.
    """
    project = Project.of_dag_file(file)
    running = get_parsing_context().dag_id
    store = ManifestStore(project)
    pipelines = load_pipelines(project)
    awaited = {name for pipeline in pipelines.valid.values() for name in pipeline.config.after}
    packages = absent()
    dags: dict[str, DAG] = {}
    for name, pipeline in pipelines.valid.items():
        # A worker that runs one task needs the DAG of that task alone.
        if running not in (None, name):
            continue
        try:
            plan = plan_pipeline(pipeline, store.read(name))
            if not lacking(plan, packages):
                dags[name] = render(plan, project, announced=name in awaited)
        except OrreryError:
            continue
    return dags
