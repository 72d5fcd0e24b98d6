"""When a task that waits without a worker may go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from airflow.configuration import conf
from airflow.triggers.base import TriggerEvent

# The scheduler looks at what its workers have told about once per second.
_SCHEDULER = 2.0


def earliest() -> float:
    """How long a task must at least have waited before it is resumed, in seconds."""
    return conf.getint("workers", "min_heartbeat_interval") + _SCHEDULER


async def unhurried(events: AsyncIterator[TriggerEvent]) -> AsyncIterator[TriggerEvent]:
    """Hold back the events of a trigger that has just begun to wait.

    A worker may notice one heartbeat late that its task has begun to wait. When the task is queued again by
    then, Airflow takes the end of its first part for the end of the second, and fails it ("finished with
    state success, but the task instance's state attribute is queued"): a try more, and with it another pod.
    """
    begun = time.monotonic()
    async for event in events:
        await asyncio.sleep(begun + earliest() - time.monotonic())
        yield event
