"""Late runs: Airflow's deadline alerts, whose callback runs in the triggerer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineAlert, DeadlineReference

from orrery.config.alerts import Alerts, SlaBlock
from orrery.config.stages import ALERT

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

_ENDED = ("success", "failed")
# A run for an earlier time than this before now makes up for one that was missed; it is late anyway.
_OLD = timedelta(days=1)


@dataclass(eq=False)
class TimeOfDayDeadline(BaseDeadlineReference):
    """The first such time of day after the time that a run is for; a plugin makes it known to Airflow."""

    hour: int = 0
    minute: int = 0
    timezone: str = "UTC"
    required_kwargs: ClassVar[set[str]] = {"dag_id", "run_id"}

    def serialize_reference(self) -> dict[str, Any]:
        """As Airflow stores it."""
        own = {"hour": self.hour, "minute": self.minute, "timezone": self.timezone}
        return {**super().serialize_reference(), **own}

    @classmethod
    def deserialize_reference(cls, reference_data: dict[str, Any]) -> TimeOfDayDeadline:
        """What `serialize_reference` has made."""
        return cls(reference_data["hour"], reference_data["minute"], reference_data["timezone"])

    def _evaluate_with(self, *, session: Session, dag_id: str, run_id: str) -> datetime | None:
        from airflow.models import DagRun
        from sqlalchemy import select

        run_after = session.scalar(
            select(DagRun.run_after).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)
        )
        return self.after(run_after, datetime.now(UTC)) if run_after else None

    def after(self, run_after: datetime, now: datetime) -> datetime | None:
        """The deadline of a run; None for one that makes up for a time long ago."""
        if now - run_after > _OLD:
            return None
        zone = ZoneInfo(self.timezone)
        day = run_after.astimezone(zone).date()
        at = time(self.hour, self.minute)
        found = datetime.combine(day, at, zone)
        if found <= run_after:
            found = datetime.combine(day + timedelta(days=1), at, zone)
        return found.astimezone(UTC)


def deadline_of(sla: SlaBlock, alerts: Alerts, owner: str | None) -> DeadlineAlert:
    """Airflow's deadline of a pipeline."""
    callback = AsyncCallback(
        tell_late,
        # As text: Airflow wants kwargs that have a hash.
        {"alerts": alerts.model_dump_json(exclude_unset=True), "owner": owner, "sla": text_of(sla)},
    )
    if sla.by is None:
        assert sla.within is not None
        return DeadlineAlert(DeadlineReference.DAGRUN_QUEUED_AT, sla.within, callback)
    reference = TimeOfDayDeadline(sla.by.hour, sla.by.minute, sla.timezone)
    return DeadlineAlert(reference, timedelta(0), callback)


def text_of(sla: SlaBlock) -> str:
    """When a run has to end, in words."""
    from orrery.alert.describe import duration

    if sla.within is not None:
        return f"within {duration(sla.within.total_seconds())}"
    return f"by {sla.by:%H:%M} {sla.timezone}"


async def tell_late(alerts: str, owner: str | None, sla: str, context: Mapping[str, Any]) -> None:
    """The callback: tell that the run of a context has not ended in time."""
    run = context["dag_run"]
    if run["state"] in _ENDED:
        # Airflow forgets the deadlines of runs that succeed, not of those that fail.
        return
    await asyncio.to_thread(_tell, Alerts.model_validate_json(alerts), owner, sla, run)


def _tell(alerts: Alerts, owner: str | None, sla: str, run: Mapping[str, Any]) -> None:
    from orrery.alert.describe import late
    from orrery.alert.memory import Memory, late_key
    from orrery.alert.scope import Scope
    from orrery.alert.send import Sender

    pipeline, run_id = run["dag_id"], run["dag_run_id"]
    if _is_ending(pipeline, run_id):
        return
    scope = Scope(SimpleNamespace(dag_id=pipeline), alerts, owner)
    sent = Sender(alerts).tell(late(scope, run_id, sla, run["state"]), scope.route())
    Memory(pipeline).keep(late_key(run_id), {"sent": sent.as_dict() if sent else None})


def _is_ending(pipeline: str, run_id: str) -> bool:
    """Whether the task that tells of the end has been reached: then nobody would end what is told here.

    What the context says of the run is from when the deadline was noticed.
    """
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    try:
        states = RuntimeTaskInstance.get_task_states(dag_id=pipeline, task_ids=[ALERT], run_ids=[run_id])
    except Exception as error:
        log.warning("How far the run is, is not known: %s", type(error).__name__)
        return False
    return states.get(run_id, {}).get(ALERT) is not None
