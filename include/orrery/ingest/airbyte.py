"""The operator that has Airbyte synchronise a connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

from airbyte_api.api import ListConnectionsRequest, ListJobsRequest
from airbyte_api.models import JobStatusEnum
from airflow.providers.airbyte.hooks.airbyte import AirbyteHook
from airflow.providers.airbyte.operators.airbyte import AirbyteTriggerSyncOperator
from airflow.providers.airbyte.triggers.airbyte import AirbyteSyncTrigger
from airflow.sdk.exceptions import AirflowException
from airflow.triggers.base import TriggerEvent

from orrery.config.airbyte import Airbyte
from orrery.config.errors import suggest
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, outcome
from orrery.ingest.airbyte_errors import SyncRunsError, reached, reason
from orrery.ingest.connections import require
from orrery.ingest.errors import IngestError, SetupError, explained, without_secrets
from orrery.ingest.resume import unhurried
from orrery.plan.model import Work

if TYPE_CHECKING:
    from airflow.sdk import Context

EXAMPLE = "airbyte://CLIENT_ID:CLIENT_SECRET@http%3A%2F%2Fairbyte%3A8000%2Fapi%2Fpublic%2Fv1"
_ENDED = (JobStatusEnum.SUCCEEDED, JobStatusEnum.FAILED, JobStatusEnum.CANCELLED)
_PAGE = 100


class AirbyteOperator(AirbyteTriggerSyncOperator):
    """Starts a sync, or takes over the one that runs, and waits for it in the triggerer.

    :param stage: the stage that the task is in; a run may leave whole stages out
    :param nodes: dbt unique ids of the tables that the sync fills
    :param work: which connection, and how long to wait
    """

    custom_operator_name = "airbyte"

    def __init__(self, *, stage: str, nodes: tuple[str, ...], work: Work, **kwargs: Any) -> None:
        self.block = cast("Airbyte", work.block)
        super().__init__(
            connection_id=self.block.airbyte, airbyte_conn_id=self.block.connection, deferrable=True, **kwargs
        )
        self.stage = stage
        self.nodes = nodes
        self.work = work
        self.job_id: int | None = None

    def execute(self, context: Context) -> None:
        """Start the sync; raises AirflowSkipException when the run leaves it out."""
        check_choices(self, context)
        with explained(context):
            hook = self._hook()
            job = self._start(hook, self._find(hook))
            self.job_id = job.job_id
            self._wait(job.job_id, time.time() + self.block.timeout.total_seconds())

    def execute_complete(self, context: Context, event: Any = None) -> None:
        """Go on when the job has ended, or its time is over."""
        self.job_id = job_id = int(event["job_id"])
        with explained(context):
            hook = self._hook()
            with reached(self.block):
                job = hook.get_job_details(job_id)
            if job.status == JobStatusEnum.SUCCEEDED:
                context["ti"].xcom_push(key=RESULT_KEY, value=_summary(job))
                return
            if job.status in _ENDED:
                why = reason(hook, job_id)
                what = "has failed" if job.status == JobStatusEnum.FAILED else "was cancelled"
                raise IngestError(
                    f"Airbyte's job {job_id} for {self.block.airbyte!r} {what}"
                    + (f": {why}" if why else ".")
                    + f"\n  Its log is in Airbyte, with the job {job_id} of this connection."
                )
            hook.cancel_job(job_id)
            raise IngestError(
                f"Airbyte's job {job_id} for {self.block.airbyte!r} was still {job.status.value} after"
                f" {self.block.timeout}, and is cancelled.\n  Set a longer timeout, if it needs one."
            )

    def on_kill(self) -> None:
        """Cancel the job; while the task is deferred, its trigger does."""
        if self.job_id is not None:
            self.log.info("Cancelling Airbyte's job %s.", self.job_id)
            self._hook().cancel_job(self.job_id)

    def _hook(self) -> AirbyteHook:
        require(self.block.connection, EXAMPLE)
        return AirbyteHook(airbyte_conn_id=self.block.connection)

    def _find(self, hook: AirbyteHook) -> str:
        """The id of the connection in Airbyte. Raises SetupError when no or several ones have its name."""
        name = self.block.airbyte
        try:
            return str(UUID(name))
        except ValueError:
            known: list[tuple[str, str]] = []
        while len(known) % _PAGE == 0:
            with reached(self.block):
                request = ListConnectionsRequest(limit=_PAGE, offset=len(known))
                page = hook.airbyte_api.connections.list_connections(request=request).connections_response
            if page is None or not page.data:
                break
            known += [(each.name, each.connection_id) for each in page.data]
        found = [uid for other, uid in known if other == name]
        if len(found) == 1:
            return found[0]
        if found:
            raise SetupError(
                f"Airbyte has {len(found)} connections with the name {name!r}.\n"
                f"  Write the id of one of them: {', '.join(found)}."
            )
        names = {other for other, _ in known}
        raise SetupError(
            f"Airbyte has no connection with the name {name!r}.\n  {suggest(name, names, 'connection')}"
        )

    def _start(self, hook: AirbyteHook, connection_id: str) -> Any:
        """The job of a new sync, or of the one that runs: a retry comes back to its own."""
        for _ in range(2):
            try:
                with reached(self.block):
                    job = hook.submit_sync_connection(connection_id)
                self.log.info("Airbyte's job %s has started.", job.job_id)
                return job
            except SyncRunsError:
                if (job := self._running(hook, connection_id)) is not None:
                    self.log.info("Airbyte's job %s runs already; the task waits for it.", job.job_id)
                    return job
        raise IngestError(
            f"Airbyte says that a sync of {self.block.airbyte!r} is running, but lists none.\n  Try again."
        )

    def _running(self, hook: AirbyteHook, connection_id: str) -> Any:
        with reached(self.block):
            request = ListJobsRequest(connection_id=connection_id, order_by="createdAt|DESC")
            answer = hook.airbyte_api.jobs.list_jobs(request=request).jobs_response
        return next((job for job in answer.data if job.status not in _ENDED), None) if answer else None

    def _wait(self, job_id: int, end_time: float) -> None:
        self.defer(
            trigger=AirbyteJobTrigger(
                job_id=job_id,
                conn_id=self.block.connection,
                end_time=end_time,
                poll_interval=self.block.poll.total_seconds(),
            ),
            method_name="execute_complete",
        )


class AirbyteJobTrigger(AirbyteSyncTrigger):
    """Fires when a job has ended, or at `end_time`; an Airbyte that does not answer is asked again.

    Unlike the provider's it does not hold up the other triggers while it asks, and cancels the job when
    somebody ends the task.
    """

    _hook: AirbyteHook | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        _, arguments = super().serialize()
        return f"{__name__}.{type(self).__name__}", arguments

    def run(self) -> AsyncIterator[TriggerEvent]:
        return unhurried(self._events())

    async def _events(self) -> AsyncIterator[TriggerEvent]:
        while time.time() < self.end_time:
            try:
                if await asyncio.to_thread(self._status) in _ENDED:
                    break
            except AirflowException as error:
                why = without_secrets(str(error))
                self.log.warning("Airbyte does not tell the state of job %s: %s", self.job_id, why)
            await asyncio.sleep(self.poll_interval)
        yield TriggerEvent({"job_id": self.job_id})  # type: ignore[no-untyped-call]

    async def on_kill(self) -> None:
        await asyncio.to_thread(lambda: AirbyteHook(self.conn_id).cancel_job(self.job_id))

    def _status(self) -> str:
        self._hook = self._hook or AirbyteHook(self.conn_id)
        try:
            return str(self._hook.get_job_details(self.job_id).status.value)
        except AirflowException:
            # The connection may be another one when it is asked for again.
            self._hook = None
            raise


def _summary(job: Any) -> dict[str, Any]:
    """The XCom value."""
    synced = f"{job.rows_synced:,} rows" if job.rows_synced is not None else "synchronised"
    return outcome(f"Airbyte's job {job.job_id}: {synced}", rows=job.rows_synced)
