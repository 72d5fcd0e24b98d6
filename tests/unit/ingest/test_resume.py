"""When a task that waits without a worker goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from airflow.triggers.base import TriggerEvent

from orrery.ingest import resume
from orrery.local.settings import EVERYWHERE


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    async def sleep(self, seconds: float) -> None:
        self.now += max(0.0, seconds)

    async def events(self, *pauses: float) -> AsyncIterator[TriggerEvent]:
        for pause in pauses:
            await self.sleep(pause)
            yield TriggerEvent({})  # type: ignore[no-untyped-call]


def test_an_event_waits_until_airflow_has_heard_of_the_first_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(resume.time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(resume.asyncio, "sleep", clock.sleep)
    monkeypatch.setattr(resume, "earliest", lambda: 3.0)

    async def scenario() -> list[float]:
        return [clock.now - 100.0 async for _ in resume.unhurried(clock.events(1.0, 0.5, 4.0))]

    # Held back at first only.
    assert asyncio.run(scenario()) == [3.0, 3.5, 7.5]


def test_the_wait_follows_the_setting_of_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = EVERYWHERE["workers"]["min_heartbeat_interval"]
    for interval in ("60", ours):
        monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", interval)
        assert resume.earliest() > float(interval)
