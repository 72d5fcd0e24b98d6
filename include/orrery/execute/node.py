"""The operators of dbt's nodes."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowRescheduleException, AirflowSkipException

from orrery.config.errors import OrreryError
from orrery.execute.channel import FAIL_METHOD, ORPHANED, REBUILD, Answer
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, is_stale, outcome, summary
from orrery.execute.stale import why_stale
from orrery.execute.trial import is_trial, leave_trials_alone
from orrery.manifest.known_secrets import conceal
from orrery.plan.model import TaskKind

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.execute.memory import Memory
    from orrery.execute.options import RunOptions
    from orrery.execute.per_model import PerModelRun

# How often a node asks for a build that has not come yet.
_ASK_AGAIN = timedelta(seconds=30)
# How long a task that has been ended waits to be stopped, in seconds: Airflow notices with a heartbeat.
_UNTIL_STOPPED = 60.0


class NodeFailedError(OrreryError):
    """A dbt node failed; the text is dbt's own."""


class DbtNodeOperator(BaseOperator):
    """One dbt node, or the tests of one node.

    It is light, because thousands are made each time a DAG is parsed: dbt and Cosmos' operators are
    imported when the task runs. The XCom `dbt` holds status, seconds, rows affected and messages
    (orrery.execute.results.summary); the compiled SQL is shown under Rendered Templates.

    :param kind: what to do, and so which dbt command
    :param stage: the stage that the task is in; a run may leave whole stages out
    :param nodes: dbt unique ids
    """

    _run: PerModelRun | None = None

    template_fields: Sequence[str] = ("compiled_sql",)
    template_fields_renderers = {"compiled_sql": "sql"}  # noqa: RUF012 - as Airflow declares it
    ui_color = "#e8eef7"

    def __init__(
        self,
        *,
        kind: TaskKind,
        stage: str,
        nodes: tuple[str, ...],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.stage = stage
        self.nodes = nodes
        self.compiled_sql = ""

    @property
    def custom_operator_name(self) -> str:
        """What Airflow shows as the operator."""
        return f"dbt {self.kind}"

    def on_kill(self) -> None:
        """Airflow stops the task."""
        if self._run is not None:
            self._run.on_kill()

    def _run_alone(self, options: RunOptions, context: Context, *, stale: str = "fail") -> None:
        """Run dbt for the nodes, in a process of its own; raises what PerModelRun raises.

        Raises AirflowSkipException for nodes that the project has not, and for a stale source if it says so.
        """
        # dbt and Cosmos' operators cost seconds of imports, which parsing must not pay.
        from orrery.execute.per_model import PerModelRun, UnknownNodeError

        memory = None if is_trial() else self._memory(context)
        run = self._run = PerModelRun(
            self.kind, self.nodes, options, context["ti"], memory=memory, trial=is_trial()
        )
        try:
            self._run_dbt(run, context, stale)
        except UnknownNodeError as error:
            self._skip(context, str(error))
        if is_stale(run.results):
            told = f"The source is stale: {summary(run.results)['message']}"
            self.log.warning(told)
            if stale == "skip":
                raise AirflowSkipException(told)

    def _memory(self, context: Context) -> Memory | None:
        """What earlier tries have left for this one; models alone may have batches."""
        from orrery.execute.memory import Memory

        return Memory(context["task_state_store"]) if self.kind is TaskKind.MODEL else None

    def _run_dbt(self, run: PerModelRun, context: Context, stale: str) -> None:
        failure: str | None = None
        try:
            run.execute(context)
        except Exception as error:
            failure = conceal(str(error))
            if stale == "fail" or not is_stale(run.results):
                raise
        finally:
            result = summary(run.results)
            if failure and not result["message"]:
                result.update(status="error", message=failure)
            self._report(context, result, run.compiled_sql)

    def _skip(self, context: Context, reason: str) -> NoReturn:
        context["ti"].xcom_push(key=RESULT_KEY, value=outcome(reason, status="skipped"))
        # Airflow logs that the task is skipped, and not why.
        self.log.info(reason)
        raise AirflowSkipException(reason)

    def _report(self, context: Context, result: dict[str, Any], compiled_sql: str) -> None:
        context["ti"].xcom_push(key=RESULT_KEY, value=result)
        self.compiled_sql = compiled_sql
        self.overwrite_rtif_after_execution = True


class SingleNodeOperator(DbtNodeOperator):
    """A task that runs dbt for itself.

    :param stale: what a stale source does: `fail`, `skip` or `warn`
    :param checks: with `skip`, the ids of the tasks before this one that check sources
    """

    def __init__(self, *, stale: str = "fail", checks: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stale = stale
        self.checks = checks

    def _begin(self, context: Context) -> RunOptions:
        """The choices of the run; raises AirflowSkipException when the nodes are not to be run."""
        options = check_choices(self, context)
        if reason := why_stale(self.checks, context):
            self._skip(context, reason)
        return options


class PerModelOperator(SingleNodeOperator):
    """`execute: per_model`: the task is one dbt process of its own, run by Cosmos."""

    def execute(self, context: Context) -> None:
        """Run dbt for the nodes; raises AirflowSkipException when they are not to be run."""
        self._run_alone(self._begin(context), context, stale=self.stale)


class BuiltNodeOperator(DbtNodeOperator):
    """`execute: build`: the task `build` runs the node and ends this task, without a process here.

    A worker sees it in two cases only: when the node failed, and when it was cleared. `airflow tasks test`
    runs it without a build beside it: then it builds the node itself, as with `execute: per_model`.
    """

    def execute(self, context: Context) -> None:
        """The node was cleared: have it built, together with all others that wait."""
        if is_trial():
            if self.kind is TaskKind.HOOK:
                self._skip(context, "Hooks run with dbt's commands only: test a node, or the task 'build'.")
            self._run_alone(check_choices(self, context), context)
            return
        leave_trials_alone(context)
        self._ask(REBUILD, context)
        self.log.info("The task 'build' of this run is asked to build it.")
        raise _later()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the build: fail with what dbt said, or, if the build has vanished, see what is left."""
        if next_method == FAIL_METHOD:
            return super().resume_execution(next_method, next_kwargs, context)
        self.log.warning("Nothing has been heard from the task 'build' of this run for minutes.")
        self._ask(ORPHANED, context)
        raise _later()

    def _ask(self, key: str, context: Context) -> None:
        """Ask for a build; when none will come, wait for the end of this task."""
        store = context["task_state_store"]
        store.set(key, {})
        answer: Any = store.get(key) or {}
        if answer.get("answer") == Answer.OVER:
            self.log.error("%s", answer.get("why"))
            # The task has ended as upstream_failed, together with all others; Airflow stops this process.
            threading.Event().wait(_UNTIL_STOPPED)
            raise AirflowFailException(answer.get("why"))

    def fail(
        self,
        context: Context,
        result: dict[str, Any],
        lines: list[list[str]],
        compiled_sql: str,
        compiled_paths: list[str],
    ) -> None:
        """The build has run the node, and it failed: show what dbt said, and fail."""
        for _, level, text in lines:
            getattr(self.log, {"warn": "warning", "error": "error"}.get(level, "info"))("%s", text)
        if compiled_sql:
            self.log.info("Compiled SQL:\n%s", compiled_sql)
        for path in compiled_paths:
            self.log.info("Compiled SQL in the task 'build': %s", path)
        self._report(context, result, compiled_sql)
        raise NodeFailedError(result["message"] or result["status"])


def _later() -> AirflowRescheduleException:
    return AirflowRescheduleException(datetime.now(UTC) + _ASK_AGAIN)  # type: ignore[no-untyped-call]
