"""The operator of every dbt task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY, summary
from orrery.plan.model import TaskKind

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.execute.per_model import PerModelRun


class DbtNodeOperator(BaseOperator):
    """Runs one dbt node, or the tests of one node.

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
        self._run: PerModelRun | None = None

    @property
    def custom_operator_name(self) -> str:
        """What Airflow shows as the operator."""
        return f"dbt {self.kind}"

    def execute(self, context: Context) -> None:
        """Run dbt for the nodes; raises AirflowSkipException when the run leaves the stage out."""
        options = RunOptions.from_params(context["params"])
        if self.stage in options.skip_stages:
            raise AirflowSkipException(f"This run leaves out the stage {self.stage!r} (skip_stages).")
        # dbt and Cosmos' operators cost seconds of imports, which parsing must not pay.
        from orrery.execute.per_model import PerModelRun

        run = self._run = PerModelRun(self.kind, self.select, options)
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
            context["ti"].xcom_push(key=RESULT_KEY, value=result)
            self.compiled_sql = run.compiled_sql
            self.overwrite_rtif_after_execution = True

    def on_kill(self) -> None:
        """Airflow stops the task."""
        if self._run is not None:
            self._run.on_kill()
