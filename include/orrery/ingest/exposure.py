"""The operators of exposures that call a service or start another pipeline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from orrery.config.errors import OrreryError
from orrery.config.exposure import Http, PipelineRun
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY
from orrery.ingest.connections import require
from orrery.plan.model import Work

if TYPE_CHECKING:
    from airflow.sdk import Context

_EXAMPLE = "http://user:password@host:443/https"
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
        """Call; raises AirflowException for an answer that is an error, or none."""
        check_choices(self, context)
        call: Http = self.work.block.http
        try:
            known = require(call.connection, _EXAMPLE)
        except OrreryError as error:
            raise AirflowFailException(str(error)) from error
        host = str(known.host or "")
        base = host if "://" in host else f"{known.schema or 'http'}://{host}"
        if known.port:
            base += f":{known.port}"
        body = {**(call.json_body or {}), "pipeline": self.dag_id, "run_id": context["ti"].run_id}
        body["exposure"] = self.work.of
        try:
            answer = httpx.request(
                call.method,
                base + call.endpoint,
                json=body if call.method != "GET" else None,
                auth=(known.login, known.password or "") if known.login else None,
                headers={name: str(value) for name, value in known.extra_dejson.items()},
                timeout=call.timeout.total_seconds(),
            )
        except httpx.HTTPError as error:
            what = str(error) or type(error).__name__
            raise AirflowException(
                f"{call.method} {call.endpoint} of the connection {call.connection!r} fails: {what}"
            ) from None
        self.log.info("%s %s: %s", call.method, call.endpoint, answer.status_code)
        if not answer.is_success:
            raise AirflowException(
                f"{call.method} {call.endpoint} of the connection {call.connection!r} is answered with "
                f"{answer.status_code}: {answer.text[:_LONGEST]}"
            )
        context["ti"].xcom_push(
            key=RESULT_KEY,
            value={
                "status": "success",
                "seconds": round(answer.elapsed.total_seconds(), 3),
                "rows_affected": None,
                "message": f"{call.method} {call.endpoint}: {answer.status_code}",
                "nodes": [],
            },
        )


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
            trigger_dag_id=block.pipeline,
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
