"""Waits for files without a worker."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from airflow.triggers.base import BaseEventTrigger, BaseTrigger, TriggerEvent

from orrery.config.ingest import Files
from orrery.config.project import Project
from orrery.ingest.errors import FileError, IngestError, SetupError
from orrery.ingest.resume import unhurried

if TYPE_CHECKING:
    from orrery.ingest.landing import LandingFile

POLL_SECONDS = 5.0
# While files arrive one after the other, those that are complete are not held back for longer.
PATIENCE_SECONDS = 60.0
_SEEN = "seen"


class _Landing(BaseTrigger):
    """What both triggers have in common: which files of a source are there.

    :param zone: the URI of the landing zone
    :param settle: for how many seconds a local file must not have changed
    """

    def __init__(self, zone: str, pattern: str, settle: float, done_marker: str | None, **more: Any) -> None:
        super().__init__(**more)  # type: ignore[no-untyped-call]
        self.zone, self.pattern, self.settle, self.done_marker = zone, pattern, settle, done_marker

    @classmethod
    def of(cls, block: Files, project: Project, **more: Any) -> Self:
        """The trigger for the files of an ingest block."""
        return cls(block.zone(project), block.files, block.settle.total_seconds(), block.done_marker, **more)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("zone", "pattern", "settle", "done_marker")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    def _look(self) -> tuple[list[LandingFile], bool]:
        """The files that are complete, and whether these are all."""
        # The clients of stores; parsing must not pay for them.
        from orrery.ingest.landing import LandingZone

        settle = timedelta(seconds=self.settle)
        return LandingZone(self.zone).look(self.pattern, settle=settle, done_marker=self.done_marker)


class LandingTrigger(_Landing):
    """Fires when files are complete that are not the same as before.

    :param known: the digest of the files that are known, see `digest`
    """

    def __init__(self, *arguments: Any, known: str | None = None, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.known = known

    def serialize(self) -> tuple[str, dict[str, Any]]:
        name, arguments = super().serialize()
        return name, {**arguments, "known": self.known}

    def run(self) -> AsyncIterator[TriggerEvent]:
        return unhurried(self._events())

    async def _events(self) -> AsyncIterator[TriggerEvent]:
        while not await asyncio.to_thread(self._arrived):
            await asyncio.sleep(POLL_SECONDS)
        yield TriggerEvent({})  # type: ignore[no-untyped-call]

    def _arrived(self) -> bool:
        try:
            files, settled = self._look()
        except (SetupError, FileError):
            # The task looks, too, and tells what is wrong.
            return True
        except IngestError as error:
            self.log.warning("%s", error)
            return False
        return bool(files) and settled and digest(files) != self.known


class FilesArrivedTrigger(_Landing, BaseEventTrigger):
    """Fires whenever files have arrived; for the watcher of an asset, which starts pipelines.

    What has been told is remembered with the asset, so that a restart of the triggerer tells nothing twice.
    """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        memory = self.asset_state_store
        seen = await memory.aget(_SEEN) if memory is not None else None
        since: float | None = None
        while True:
            try:
                files, settled = await asyncio.to_thread(self._look)
            except IngestError as error:
                # Nobody would start the watcher anew.
                self.log.warning("%s", error)
                files, settled = [], False
            if files and (now := digest(files)) != seen:
                since = since or time.monotonic()
                if settled or time.monotonic() - since > PATIENCE_SECONDS:
                    yield TriggerEvent({"files": len(files)})  # type: ignore[no-untyped-call]
                    # Afterwards: what a kill repeats does no harm, what it swallowed would.
                    seen, since = now, None
                    if memory is not None:
                        await memory.aset(_SEEN, seen)
            await asyncio.sleep(POLL_SECONDS)


def digest(files: Iterable[LandingFile]) -> str:
    """The digest of files as they are now."""
    return hashlib.sha256("\n".join(f"{file.name} {file.version}" for file in files).encode()).hexdigest()
