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
    from orrery.ingest.settle import Look

POLL_SECONDS = 5.0
# Files that need not wait for one that is still written are not held back for longer.
PATIENCE_SECONDS = 60.0
# Under which name it is remembered what has been told; Airflow keeps JSON.
_SEEN = "seen"
# Of a file's name and version, in hexadecimal digits.
_PRINT = 12


class _Landing(BaseTrigger):
    """What both triggers have in common: which files of a source are there, and which of them are new.

    :param zone: the URI of the landing zone
    :param settle: for how many seconds a local file must not have changed
    :param load_mode: what may be loaded before all files are complete, see orrery.ingest.settle.Look
    """

    def __init__(
        self,
        zone: str,
        pattern: str,
        settle: float,
        done_marker: str | None,
        load_mode: str = "append",
        **more: Any,
    ) -> None:
        super().__init__(**more)  # type: ignore[no-untyped-call]
        self.zone, self.pattern, self.settle, self.done_marker = zone, pattern, settle, done_marker
        self.load_mode = load_mode
        self._watch: Any = None
        self._waited_since: float | None = None

    @classmethod
    def of(cls, block: Files, project: Project, **more: Any) -> Self:
        """The trigger for the files of an ingest block."""
        settle = block.settle.total_seconds()
        return cls(block.zone(project), block.files, settle, block.done_marker, block.load_mode, **more)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("zone", "pattern", "settle", "done_marker", "load_mode")
        return f"{__name__}.{type(self).__name__}", {name: getattr(self, name) for name in names}

    def _look(self, only: str | None = None) -> Look:
        # The clients of stores; parsing must not pay for them.
        from orrery.ingest.landing import LandingZone, Watch

        self._watch = self._watch or Watch()
        return LandingZone(self.zone).look(
            self.pattern,
            settle=timedelta(seconds=self.settle),
            done_marker=self.done_marker,
            only=only,
            watch=self._watch,
        )

    def _is_time(self, look: Look, *, something_new: bool) -> bool:
        """Whether what can be loaded has waited for long enough for what is still written."""
        if not something_new:
            self._waited_since = None
            return False
        self._waited_since = self._waited_since or time.monotonic()
        return not look.unsettled or time.monotonic() - self._waited_since > PATIENCE_SECONDS


class LandingTrigger(_Landing):
    """Fires when files are complete that were not there before, or not as they are now.

    Its event says which files have settled while it looked: who looks only once cannot know that.

    :param known: the digest of the files that are no news, see `digest`
    :param settling: whether it fires also when no file is still written any more
    :param only: the name of the one file that counts
    """

    def __init__(
        self,
        *arguments: Any,
        known: str | None = None,
        settling: bool = False,
        only: str | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*arguments, **more)
        self.known, self.settling, self.only = known, settling, only
        self._prints: set[str] | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        name, arguments = super().serialize()
        return name, {**arguments, "known": self.known, "settling": self.settling, "only": self.only}

    def run(self) -> AsyncIterator[TriggerEvent]:
        return unhurried(self._events())

    async def _events(self) -> AsyncIterator[TriggerEvent]:
        while not await asyncio.to_thread(self._arrived):
            await asyncio.sleep(POLL_SECONDS)
        yield TriggerEvent({"settled": self._watch.settled if self._watch else {}})  # type: ignore[no-untyped-call]

    def _arrived(self) -> bool:
        try:
            look = self._look(self.only)
        except (SetupError, FileError):
            # The task looks, too, and tells what is wrong.
            return True
        except IngestError as error:
            self.log.warning("%s", error)
            return False
        if self.settling and not look.unsettled:
            return True
        return self._is_time(look, something_new=self._has_new(look.free(self.load_mode)))

    def _has_new(self, files: list[LandingFile]) -> bool:
        now = prints(files)
        if self._prints is None:
            if digest(files) != self.known:
                return bool(files)
            self._prints = now
        if now <= self._prints:
            # A file that goes is no news; when it comes again, it is.
            self._prints = now
            return False
        return True


class FilesArrivedTrigger(_Landing, BaseEventTrigger):
    """Fires whenever files have arrived; for the watcher of an asset, which starts pipelines.

    What has been told is remembered with the asset, so that a restart of the triggerer tells nothing twice.
    A file that goes is no arrival: another run has put it away, or somebody has removed it.
    """

    async def run(self) -> AsyncIterator[TriggerEvent]:
        memory = self.asset_state_store
        seen = _split(await memory.aget(_SEEN) if memory is not None else None)
        while True:
            look = await asyncio.to_thread(self._look_patiently)
            if look is not None:
                free = prints(look.free(self.load_mode))
                known = seen & prints([*look.complete, *look.unsettled])
                if self._is_time(look, something_new=bool(free - known)):
                    yield TriggerEvent({"files": len(free - known)})  # type: ignore[no-untyped-call]
                    # Afterwards: what a kill repeats does no harm, what it swallowed would.
                    known |= free
                    self._waited_since = None
                if known != seen and memory is not None:
                    await memory.aset(_SEEN, "".join(sorted(known)))
                seen = known
            await asyncio.sleep(POLL_SECONDS)

    def _look_patiently(self) -> Look | None:
        try:
            return self._look()
        except IngestError as error:
            # Nobody would start the watcher anew.
            self.log.warning("%s", error)
            return None


def digest(files: Iterable[LandingFile]) -> str:
    """The digest of files as they are now."""
    return hashlib.sha256("\n".join(f"{file.name} {file.version}" for file in files).encode()).hexdigest()


def prints(files: Iterable[LandingFile]) -> set[str]:
    """A short digest of each file as it is now."""
    return {hashlib.sha256(f"{file.name}\0{file.version}".encode()).hexdigest()[:_PRINT] for file in files}


def _split(kept: Any) -> set[str]:
    """Digests as they are remembered, one behind the other."""
    text = kept if isinstance(kept, str) else ""
    return {text[at : at + _PRINT] for at in range(0, len(text), _PRINT)}
