"""The runs that `airflow tasks test` makes for one task."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowSkipException

if TYPE_CHECKING:
    from airflow.sdk import Context

# How Airflow names the runs that `airflow tasks test` makes. Its scheduler takes them for runs of their own.
_TEMPORARY = "__airflow_temporary_run_"


def is_trial() -> bool:
    """Whether `airflow tasks test` runs the task, in a DAG run that is deleted afterwards."""
    return os.environ.get("AIRFLOW_TEST_MODE") == "True"


def leave_trials_alone(context: Context) -> None:
    """Raise AirflowSkipException for a task that nobody has asked for: beside one that `tasks test` runs."""
    if str(context.get("run_id")).startswith(_TEMPORARY) and not is_trial():
        raise AirflowSkipException("`airflow tasks test` has made this run, for another task.")
