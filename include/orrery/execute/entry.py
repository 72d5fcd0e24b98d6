"""What a task does before anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.stages import INGEST
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY, refusal
from orrery.execute.trial import leave_trials_alone
from orrery.plan.objects import check_object

if TYPE_CHECKING:
    from airflow.sdk import Context


def check_choices(task: Any, context: Context) -> RunOptions:
    """The choices of the run, for a task with `nodes` and a `stage`.

    Raises AirflowFailException for a mistake in them, which no retry mends and which the task's XCom tells,
    and AirflowSkipException when the run leaves the task out.
    """
    leave_trials_alone(context)
    # It leads to dbt, for which parsing must not pay.
    from orrery.execute.narrow import reason_to_skip

    try:
        options = RunOptions.from_context(context)
        reason = reason_to_skip(task, options)
        if options.uri and (dag := task.get_dag()):
            works = [
                other.work
                for other in dag.tasks
                if getattr(other, "stage", None) == INGEST and hasattr(other, "work")
            ]
            check_object(works, options.uri, Project.find())
    except OrreryError as error:
        context["ti"].xcom_push(key=RESULT_KEY, value=refusal(error))
        raise AirflowFailException(str(error)) from error
    if reason:
        raise AirflowSkipException(reason)
    return options
