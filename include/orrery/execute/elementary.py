"""What dbt's commands in a run do for Elementary, a dbt package that collects their results."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import yaml

from orrery.config.pipeline import Pipeline
from orrery.config.project import Project
from orrery.manifest.dbt import Dbt, DbtError
from orrery.manifest.packages import ELEMENTARY, RESULTS, has_elementary, packages_folder

log = logging.getLogger(__name__)


def takes_part(config: Pipeline, project: Project) -> bool:
    """Whether Elementary collects the results of a pipeline: when it is installed, and asked for a report."""
    return config.publish is not None and config.publish.elementary and has_elementary(project)


def why_absent(project: Project) -> str | None:
    """Why there is no report of Elementary; None when it takes part."""
    if has_elementary(project):
        return None
    folder = project.relative(packages_folder(project))
    return f"Elementary is not installed in {folder}: ./orrery build --packages installs it."


def run_environment(ti: Any, *, results: bool) -> dict[str, str]:
    """Environment variables for dbt's commands in a task.

    They say whether Elementary gets the results, and where these come from: its report links to the run.
    """
    if not results:
        return {RESULTS: "0"}
    run_url = ti.log_url.partition("/tasks/")[0]
    return {
        RESULTS: "1",
        "ORCHESTRATOR": "airflow",
        "JOB_ID": ti.dag_id,
        "JOB_NAME": ti.dag_id,
        "JOB_RUN_ID": ti.run_id,
        "JOB_URL": run_url.partition("/runs/")[0],
        "JOB_RUN_URL": run_url,
    }


def is_to_blame(due: Iterable[str], results: Iterable[str]) -> bool:
    """Whether it was Elementary's hook that ended a command after its last node.

    dbt does not always tell; but hooks that came to their end are among its results.

    :param due: the unique ids of all hooks at the end of the command
    :param results: those of all its results
    """
    missing = set(due) - set(results)
    return bool(missing) and all(uid.startswith(f"operation.{ELEMENTARY}.") for uid in missing)


def end_hooks(project: Project) -> list[str]:
    """The unique ids of the hooks at the end of each command, of the project and of Elementary."""
    settings = yaml.safe_load((project.dbt_dir / "dbt_project.yml").read_bytes())
    own = settings.get("on-run-end") or []
    counts = {settings["name"]: 1 if isinstance(own, str) else len(own), ELEMENTARY: 1}
    return [f"operation.{name}.{name}-on-run-end-{n}" for name, count in counts.items() for n in range(count)]


def warn(error: BaseException) -> None:
    """Say in the log that a hook of Elementary has failed."""
    log.warning(
        "Elementary lacks results of this run: its hook failed. The run goes on without it.\n%s",
        str(error).strip(),
    )


def make_tables(dbt: Dbt) -> None:
    """Have dbt make Elementary's tables where they are missing. Never raises: no run fails for them."""
    try:
        missing = dbt.missing_tables(ELEMENTARY)
        if not missing:
            return
        log.info("Making Elementary's tables: %s are missing.", len(missing))
        result = dbt.run(["run"], lambda event: None, **dbt.exactly(missing))
        if not result.success:
            raise DbtError(str(result.exception or "dbt run failed"))
    except Exception as error:
        reason = " ".join(str(error).split())
        log.warning("Elementary's tables are not there, so it collects nothing: %s", reason)
