"""Waits for files without a worker."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from orrery.ingest.landing import LandingFile, LandingZone

POLL_SECONDS = 5.0


class LandingTrigger(BaseTrigger):
    """Fires when files match that are complete, and that are not the same as before.

    :param zone: the URI of the landing zone
    :param settle: for how many seconds a local file must not have changed
    :param known: the digest of the files that are known, see `digest`
    """

    def __init__(
        self, zone: str, pattern: str, settle: float, done_marker: str | None, known: str | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.zone, self.pattern, self.settle = zone, pattern, settle
        self.done_marker, self.known = done_marker, known

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("zone", "pattern", "settle", "done_marker", "known")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        while not await asyncio.to_thread(self._arrived):
            await asyncio.sleep(POLL_SECONDS)
        yield TriggerEvent({})  # type: ignore[no-untyped-call]

    def _arrived(self) -> bool:
        zone = LandingZone(self.zone)
        found = zone.find(self.pattern)
        complete = zone.complete(found, settle=timedelta(seconds=self.settle), done_marker=self.done_marker)
        settled = len(complete) == len(found) or self.done_marker is not None
        return bool(complete) and settled and digest(complete) != self.known


def digest(files: Iterable[LandingFile]) -> str:
    """The digest of files as they are now."""
    return hashlib.sha256("\n".join(f"{file.name} {file.version}" for file in files).encode()).hexdigest()
