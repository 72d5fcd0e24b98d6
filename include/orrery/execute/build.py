"""The operator of the task that runs dbt for a whole pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.stages import BUILD
from orrery.execute import build_tries
from orrery.execute.channel import RELEASE
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY, WARNINGS_KEY, outcome, refusal
from orrery.execute.trial import leave_trials_alone
from orrery.plan.model import PipelinePlan

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.execute.assignment import Assignment
    from orrery.execute.build_run import BuildRun, Runner
    from orrery.execute.reporter import Logs
    from orrery.execute.tally import Tally


class DbtBuildOperator(BaseOperator):
    """Runs dbt once for all nodes of a pipeline that wait for it, and ends their tasks.

    It fails only when dbt as a whole cannot run; a failed node fails its own task. A mistake in the
    choices of the run fails it before anything else runs, and is not tried again. The last of its tries
    builds nothing (orrery.execute.build_tries).

    :param plan: the pipeline
    """

    custom_operator_name = "dbt build"
    ui_color = "#d3e4cd"

    def __init__(self, *, plan: PipelinePlan, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self._run: BuildRun | None = None

    def execute(self, context: Context) -> None:
        """Build what waits; raises AirflowFailException when no other try can help."""
        leave_trials_alone(context)
        if build_tries.is_closing(context["ti"]):
            self._close(context)
        try:
            self._build(context)
        except Exception as error:
            mistake = isinstance(error, AirflowFailException)
            if not (mistake or build_tries.is_last(context["ti"])):
                raise
            if self._run.gave_up if self._run else mistake:
                raise AirflowFailException(str(error)) from error
            # Nobody knows what has become of the nodes: the next try ends them.
            raise AirflowException(str(error)) from error

    def _close(self, context: Context) -> NoReturn:
        """The last try that builds has not told its end: end what is left."""
        number = build_tries.number_of(context["ti"])
        reason = f"it has not come to its end in {number} tries; see their logs."
        context["task_state_store"].set(RELEASE, {"reason": reason, "final": False})
        told = f"The build has failed for good: {reason}"
        context["ti"].xcom_push(key=RESULT_KEY, value=outcome(told, status="error"))
        raise AirflowFailException(told)

    def _build(self, context: Context) -> None:
        try:
            options = RunOptions.from_context(context)
            from orrery.execute.build_run import BuildRun

            self._run = BuildRun(self.plan, options, context, self._make_runner)
            states = self._run.execute()
        except OrreryError as error:
            context["ti"].xcom_push(key=RESULT_KEY, value=refusal(error))
            raise AirflowFailException(str(error)) from error
        except KeyboardInterrupt:
            raise AirflowException("The build was stopped; dbt's queries are cancelled.") from None
        told = ", ".join(f"{count} {state}" for state, count in states.most_common()) or "nothing to do"
        self.log.info("dbt build: %s", told)
        warning = self._run.warnings.get(BUILD)
        result = (
            outcome(f"dbt build: {told}. {warning}", status="warn")
            if warning
            else outcome(f"dbt build: {told}")
        )
        context["ti"].xcom_push(key=RESULT_KEY, value=result)
        if self.plan.alerts is not None:
            context["ti"].xcom_push(key=WARNINGS_KEY, value=self._run.warnings)

    def _make_runner(self, assignment: Assignment, tally: Tally, logs: Logs, context: Context) -> Runner:
        """What runs dbt: here, this process."""
        # dbt costs seconds of imports, which parsing must not pay.
        from orrery.execute.dbt_run import DbtRun
        from orrery.execute.profile import use_connection
        from orrery.execute.run_folder import folder_of

        project = Project.find()
        use_connection(project, folder_of(project, assignment.dag_id, assignment.run_id))
        return DbtRun(assignment, tally, logs)

    def on_kill(self) -> None:
        """Airflow stops the task: end dbt as Ctrl-C would, which cancels its queries."""
        if self._run is not None:
            self._run.stop()
        # Airflow calls this from a signal handler in the main thread, and then goes on with the task.
        raise KeyboardInterrupt
