"""The operators of exposures that call a service or start another pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException

from orrery.config.environment import named
from orrery.config.exposure import Http, PipelineRun
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, outcome
from orrery.ingest.errors import IngestError, explained
from orrery.plan.model import Work

if TYPE_CHECKING:
    from airflow.sdk import Context

# Of an answer, in an error.
_LONGEST = 500


class HttpOperator(BaseOperator):
    """Calls a web service after the models of an exposure.

    :param stage: the stage that the task is in
    :param nodes: the exposure's unique id
    :param work: what is called
    """

    custom_operator_name = "http"
    ui_color = "#e6dff5"

    def __init__(self, *, stage: str, nodes: tuple[str, ...], work: Work, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage, self.nodes, self.work = stage, nodes, work

    def execute(self, context: Context) -> None:
        """Call; raises AirflowException for an answer that is no success, or none."""
        check_choices(self, context)
        with explained(context):
            answer = self._call(context["ti"].run_id)
        self.log.info("%s", answer)
        context["ti"].xcom_push(key=RESULT_KEY, value=outcome(answer))

    def _call(self, run_id: str) -> str:
        """What the service answered, in short; raises IngestError."""
        # The hook of the provider, which parsing must not pay for.
        from orrery.ingest.http import NoAnswerError, Service

        call: Http = self.work.block.http
        service = Service(call.connection, call.method)
        what = f"{call.method} {call.endpoint} of the connection {call.connection!r}"
        context = {"pipeline": self.dag_id, "run_id": run_id, "exposure": self.work.of}
        seconds = call.timeout.total_seconds()
        try:
            answer = service.call(
                call.endpoint,
                (call.json_body or {}) | context if call.method != "GET" else None,
                timeout=seconds if "timeout" in call.model_fields_set else None,
                default_timeout=seconds,
            )
        except NoAnswerError as error:
            raise IngestError(f"{what} fails: {error}\n  Check the connection, and the service.") from None
        if problem := service.problem(answer):
            fix = (
                "Set the host of the connection to that address."
                if answer.is_redirect
                else answer.text.strip() or "the answer is empty."
            )
            raise IngestError(f"{what} is answered with {problem}: {fix[:_LONGEST]}")
        return f"{call.method} {call.endpoint}: {answer.status_code}"


class PipelineOperator(TriggerDagRunOperator):
    """Starts another pipeline after the models of an exposure, and waits without a worker for its end.

    :param stage: the stage that the task is in
    :param nodes: the exposure's unique id
    :param work: which pipeline
    """

    custom_operator_name = "pipeline"
    ui_color = "#e6dff5"

    def __init__(self, *, stage: str, nodes: tuple[str, ...], work: Work, **kwargs: Any) -> None:
        block: PipelineRun = work.block
        super().__init__(
            trigger_dag_id=named(block.pipeline),
            wait_for_completion=block.wait,
            deferrable=block.wait,
            poke_interval=5,
            allowed_states=["success"],
            failed_states=["failed"],
            **kwargs,
        )
        self.stage, self.nodes, self.work = stage, nodes, work

    def execute(self, context: Context) -> None:
        """Start the pipeline; raises what Airflow's own operator raises."""
        check_choices(self, context)
        super().execute(context)

    def execute_complete(self, context: Context, event: tuple[str, dict[str, Any]]) -> None:
        """Take over how the run has ended; raises AirflowException when it has failed."""
        with explained(context):
            try:
                super().execute_complete(context, event)
            except AirflowException as error:
                name = named(self.work.block.pipeline)
                raise IngestError(f"{name}: {error}\n  ./orrery retry {name} --failed") from None
