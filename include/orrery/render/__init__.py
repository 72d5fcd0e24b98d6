"""Plans as Airflow DAGs, through Cosmos; here is what the files in dags/ call."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import DAG


def load_dags(file: str) -> dict[str, DAG]:
    """The DAGs of all pipelines by name, each of its last good version.

    :param file: the DAG file, which tells the project
    Raises ConfigError when orrery.env or ORRERY_ENVIRONMENT is broken, without which no pipeline has a name.
    """
    from airflow.sdk import get_parsing_context

    from orrery.config.project import Project
    from orrery.render.loader import make_dags

    # A worker that runs one task needs the DAG of that task alone.
    return make_dags(Project.of_dag_file(file), only=get_parsing_context().dag_id).dags


def raise_problems(file: str) -> None:
    """Raise OrreryError with all that is wrong with the pipelines, as `./orrery build` says it."""
    from orrery.config.errors import OrreryError
    from orrery.config.project import Project
    from orrery.render.problems import problems

    if causes := problems(Project.of_dag_file(file)):
        raise OrreryError("\n\n".join(causes))
