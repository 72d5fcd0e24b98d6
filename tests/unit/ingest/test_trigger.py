"""The triggers that wait for files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from orrery.config.ingest import Files
from orrery.config.project import Project
from orrery.ingest import trigger
from orrery.ingest.landing import LandingZone
from orrery.ingest.trigger import FilesArrivedTrigger, LandingTrigger, digest

# Long enough for any number of looks, which take a millisecond each.
SILENCE = 0.3


class Memory(dict[str, Any]):
    """What Airflow remembers with an asset."""

    async def aget(self, key: str) -> Any:
        return self.get(key)

    async def aset(self, key: str, value: Any) -> None:
        self[key] = value


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, resumed_at_once: None) -> None:
    monkeypatch.setattr(trigger, "POLL_SECONDS", 0.001)


def arrivals(zone: Path, memory: Memory, **block: Any) -> FilesArrivedTrigger:
    spec = Files.model_validate({"files": "*.csv", "landing_zone": f"file://{zone}", "settle": 0, **block})
    made = FilesArrivedTrigger.of(spec, Project(zone))
    # What Airflow stores is enough to make the trigger again.
    path, arguments = made.serialize()
    assert path == "orrery.ingest.trigger.FilesArrivedTrigger"
    again = FilesArrivedTrigger(**arguments)
    again.asset_state_store = memory  # type: ignore[assignment]
    return again


async def fires(events: Any, seconds: float = 60.0) -> bool:
    """Whether there is another event within some seconds."""
    waiting = asyncio.ensure_future(anext(events))
    done, _ = await asyncio.wait([waiting], timeout=seconds)
    if not done:
        waiting.cancel()
    return bool(done)


def test_each_arrival_is_told_once(tmp_path: Path) -> None:
    memory = Memory()

    async def scenario() -> None:
        assert not await fires(arrivals(tmp_path, memory).run(), SILENCE)
        events = arrivals(tmp_path, memory).run()
        (tmp_path / "a.csv").write_text("id\n1\n")
        assert await fires(events)
        (tmp_path / "b.csv").write_text("id\n2\n")
        assert await fires(events)
        assert not await fires(events, SILENCE)
        # After a restart, too.
        assert not await fires(arrivals(tmp_path, memory).run(), SILENCE)
        # What a kill has kept from being remembered is told again.
        memory.clear()
        assert await fires(arrivals(tmp_path, memory).run())

    asyncio.run(scenario())


def test_files_that_are_being_written_are_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.csv").write_text("id\n1\n")
    os.utime(tmp_path / "old.csv", (1, 1))
    (tmp_path / "new.csv").write_text("id\n2\n")

    async def scenario() -> None:
        assert not await fires(arrivals(tmp_path, Memory(), settle="1h").run(), SILENCE)
        # But those that are complete do not wait for ever.
        monkeypatch.setattr(trigger, "PATIENCE_SECONDS", 0.0)
        assert await fires(arrivals(tmp_path, Memory(), settle="1h").run())

    asyncio.run(scenario())


def test_a_done_marker_says_that_a_file_is_complete(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")

    async def scenario() -> None:
        events = arrivals(tmp_path, Memory(), done_marker=".done", settle="1h").run()
        assert not await fires(events, SILENCE)
        events = arrivals(tmp_path, Memory(), done_marker=".done", settle="1h").run()
        (tmp_path / "a.csv.done").touch()
        assert await fires(events)

    asyncio.run(scenario())


def test_a_task_waits_until_other_files_are_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    uri = f"file://{tmp_path}"
    known = digest(LandingZone(uri).find("*.csv"))

    async def scenario() -> None:
        made = LandingTrigger(uri, "*.csv", 0.0, None, known=known)
        path, arguments = made.serialize()
        assert path == "orrery.ingest.trigger.LandingTrigger"
        assert arguments["known"] == known
        assert not await fires(made.run(), SILENCE)
        again = LandingTrigger(**arguments).run()
        (tmp_path / "b.csv").write_text("id\n2\n")
        assert await fires(again)

    asyncio.run(scenario())
