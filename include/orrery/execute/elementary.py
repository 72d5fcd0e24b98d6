"""What dbt's commands in a run do for Elementary, a dbt package that collects their results."""

from __future__ import annotations

import logging
from typing import Any

from orrery.config.pipeline import Pipeline
from orrery.config.project import Project
from orrery.manifest.dbt import Dbt, DbtError
from orrery.manifest.packages import ELEMENTARY, RESULTS, has_elementary

log = logging.getLogger(__name__)


def takes_part(config: Pipeline, project: Project) -> bool:
    """Whether Elementary collects the results of a pipeline: when it is installed, and asked for a report."""
    return config.publish is not None and config.publish.elementary and has_elementary(project)


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


def is_to_blame(error: BaseException) -> bool:
    """Whether a hook of Elementary has ended a command of dbt; says in the log that the run goes on."""
    node = getattr(error, "node", None)
    blamed = getattr(node, "package_name", None) == ELEMENTARY or f"{ELEMENTARY}-on-run-" in str(error)
    if blamed:
        log.warning(
            "Elementary lacks results of this run: its hook failed. The run goes on without it.\n%s",
            str(error).strip(),
        )
    return blamed


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
