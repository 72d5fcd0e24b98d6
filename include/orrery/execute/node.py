"""The operators of dbt's nodes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowRescheduleException

from orrery.config.errors import OrreryError
from orrery.execute.channel import FAIL_METHOD, ORPHANED, REBUILD
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, summary
from orrery.plan.model import TaskKind

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.execute.per_model import PerModelRun

# How often a node asks for a build that has not come yet.
_ASK_AGAIN = timedelta(seconds=30)


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
    :param select: one dbt selector per node
    """

    template_fields: Sequence[str] = ("compiled_sql",)
    template_fields_renderers = {"compiled_sql": "sql"}  # noqa: RUF012 - as Airflow declares it
    ui_color = "#e8eef7"

    def __init__(
        self,
        *,
        kind: TaskKind,
        stage: str,
        nodes: tuple[str, ...],
        select: tuple[str, ...],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kind = kind
        self.stage = stage
        self.nodes = nodes
        self.select = select
        self.compiled_sql = ""

    @property
    def custom_operator_name(self) -> str:
        """What Airflow shows as the operator."""
        return f"dbt {self.kind}"

    def _report(self, context: Context, result: dict[str, Any], compiled_sql: str) -> None:
        context["ti"].xcom_push(key=RESULT_KEY, value=result)
        self.compiled_sql = compiled_sql
        self.overwrite_rtif_after_execution = True


class PerModelOperator(DbtNodeOperator):
    """`execute: per_model`: the task is one dbt process of its own, run by Cosmos."""

    _run: PerModelRun | None = None

    def execute(self, context: Context) -> None:
        """Run dbt for the nodes; raises AirflowSkipException when the run leaves them out."""
        options = check_choices(self, context)
        # dbt and Cosmos' operators cost seconds of imports, which parsing must not pay.
        from orrery.execute.per_model import PerModelRun

        run = self._run = PerModelRun(self.kind, self.select, options, context["ti"])
        failure: str | None = None
        try:
            run.execute(context)
        except Exception as error:
            failure = str(error)
            raise
        finally:
            result = summary(run.results)
            if failure and not result["message"]:
                result.update(status="error", message=failure)
            self._report(context, result, run.compiled_sql)

    def on_kill(self) -> None:
        """Airflow stops the task."""
        if self._run is not None:
            self._run.on_kill()


class BuiltNodeOperator(DbtNodeOperator):
    """`execute: build`: the task `build` runs the node and ends this task, without a process here.

    A worker sees it in two cases only: when the node failed, and when it was cleared.
    """

    def execute(self, context: Context) -> None:
        """The node was cleared: have it built, together with all others that wait."""
        context["task_state_store"].set(REBUILD, {})
        self.log.info("The task 'build' of this run is asked to build it.")
        raise _later()

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the build: fail with what dbt said, or, if the build has vanished, see what is left."""
        if next_method == FAIL_METHOD:
            return super().resume_execution(next_method, next_kwargs, context)
        context["task_state_store"].set(ORPHANED, {})
        self.log.warning("Nothing has been heard from the task 'build' of this run for minutes.")
        raise _later()

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
