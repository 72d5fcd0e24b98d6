"""The triggers that wait for files."""

from __future__ import annotations

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk.exceptions import TaskDeferred

from orrery.config.ingest import Files
from orrery.config.project import Project
from orrery.ingest import landing, settle, trigger
from orrery.ingest.landing import LandingFile, LandingZone, Watch
from orrery.ingest.operator import IngestFilesOperator
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
        # What replaces a table does: without one of its files it would hold less than before.
        replacing = arrivals(tmp_path, Memory(), settle="1h", load="replace").run()
        assert not await fires(replacing, SILENCE)
        # So do files with a key that come behind the one that is written: they may hold newer rows.
        keyed = arrivals(tmp_path, Memory(), settle="1h", key=["id"]).run()
        assert not await fires(keyed, SILENCE)
        (tmp_path / "a-first.csv").write_text("id\n0\n")
        os.utime(tmp_path / "a-first.csv", (1, 1))
        assert await fires(arrivals(tmp_path, Memory(), settle="1h", key=["id"]).run())

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


def test_files_that_go_start_nothing(tmp_path: Path) -> None:
    """A run puts files away, or somebody removes one: there is nothing new to load."""
    memory = Memory()

    async def scenario() -> None:
        for name in "abc":
            (tmp_path / f"{name}.csv").write_text(f"id\n{name}\n")
        events = arrivals(tmp_path, memory).run()
        assert await fires(events)
        waiting = asyncio.ensure_future(anext(events))
        for names in ("a", "bc"):
            for name in names:
                (tmp_path / f"{name}.csv").unlink()
            await asyncio.wait([waiting], timeout=SILENCE)
            assert not waiting.done()
        waiting.cancel()
        assert not await fires(arrivals(tmp_path, memory).run(), SILENCE)
        # One that comes again, or is another one, is an arrival.
        events = arrivals(tmp_path, memory).run()
        (tmp_path / "b.csv").write_text("id\nb\n")
        assert await fires(events)
        (tmp_path / "b.csv").write_text("id\nbb\n")
        assert await fires(events)
        assert not await fires(events, SILENCE)

    asyncio.run(scenario())


def test_a_task_that_waits_is_not_woken_by_files_that_go(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text("id\n1\n")
    uri = f"file://{tmp_path}"
    known = digest(LandingZone(uri).find("*.csv"))

    async def scenario() -> None:
        events = LandingTrigger(uri, "*.csv", 0.0, None, known=known).run()
        waiting = asyncio.ensure_future(anext(events))
        await asyncio.wait([waiting], timeout=SILENCE)
        (tmp_path / "a.csv").unlink()
        await asyncio.wait([waiting], timeout=SILENCE)
        assert not waiting.done()
        (tmp_path / "a.csv").write_text("id\n1\n")
        await asyncio.wait([waiting], timeout=60)
        assert waiting.done()

    asyncio.run(scenario())


FUTURE = 1 << 33


def test_a_time_of_change_in_the_future_holds_up_nothing(tmp_path: Path) -> None:
    """A copy may have any; when its entry was made, the file system knows itself."""
    (tmp_path / "a.csv").write_text("id\n1\n")
    os.utime(tmp_path / "a.csv", (FUTURE, FUTURE))
    look = LandingZone(f"file://{tmp_path}").look("*.csv", settle=timedelta(0), done_marker=None)
    assert [file.name for file in look.complete] == ["a.csv"]


def test_a_file_settles_as_it_is_watched_also_when_the_clock_is_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that nobody sets; what the triggerer has seen, the task is told."""
    behind = SimpleNamespace(time=lambda: 1000.0, monotonic=time.monotonic)
    monkeypatch.setattr(landing, "time", behind)
    (tmp_path / "a.csv").write_text("id\n1\n")
    zone = LandingZone(f"file://{tmp_path}")
    (file,) = zone.find("*.csv")
    event: Any = None

    async def scenario() -> None:
        nonlocal event
        assert not await fires(arrivals(tmp_path, Memory(), settle="1h").run(), SILENCE)
        assert await fires(arrivals(tmp_path, Memory(), settle="0.2s").run())
        written = LandingTrigger(zone.uri, "*.csv", 0.2, None, known=digest([]), settling=True).run()
        event = (await anext(written)).payload

    asyncio.run(scenario())
    assert event == {"settled": {"a.csv": file.version}}
    look = zone.look("*.csv", settle=timedelta(hours=1), done_marker=None, watch=Watch(event["settled"]))
    assert look.complete == [file]
    # Not for what is there in its place by now.
    (tmp_path / "a.csv").write_text("id\n1\n2\n")
    look = zone.look("*.csv", settle=timedelta(hours=1), done_marker=None, watch=Watch(event["settled"]))
    assert [each.name for each in look.unsettled] == ["a.csv"]


def test_a_file_that_changes_all_the_time_does_not_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    watch, seconds = Watch(), [0.0]
    monkeypatch.setattr(settle, "time", SimpleNamespace(monotonic=lambda: seconds[0]))
    steady = LandingFile("b.csv", 1, "1", 0.0, "b.csv")
    for number in range(4):
        seconds[0] = 2.0 * number
        grown = LandingFile("a.csv", number, str(number), 0.0, "a.csv")
        settled = watch.find_settled([grown, steady], timedelta(seconds=5))
        assert settled == ({"b.csv"} if number == 3 else set())
    # One that was away begins anew.
    assert watch.find_settled([], timedelta(seconds=5)) == set()
    seconds[0] = 100.0
    assert watch.find_settled([grown], timedelta(seconds=5)) == set()


def test_a_task_does_not_wait_on_when_all_that_was_written_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("id\n1\n")

    async def scenario() -> None:
        made = LandingTrigger(f"file://{tmp_path}", "*.csv", 3600.0, None, known=digest([]), settling=True)
        waiting = asyncio.ensure_future(anext(made.run()))
        await asyncio.wait([waiting], timeout=SILENCE)
        assert not waiting.done()
        path.unlink()
        await asyncio.wait([waiting], timeout=60)
        assert waiting.done()

    asyncio.run(scenario())


class NothingLoaded:
    """In the place of a loader: no file has been loaded yet."""

    def pending(self, files: list[LandingFile]) -> list[LandingFile]:
        return files


def test_a_task_takes_over_what_the_triggerer_has_seen_settle(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.csv").write_text("id\n1\n")
    os.utime(tmp_path / "a.csv", (1, 1))
    block = Files.model_validate({"files": "*.csv", "settle": "1h", "key": ["id"]})
    work: Any = SimpleNamespace(block=block, table="t")
    task = IngestFilesOperator(task_id="t", stage="ingest", nodes=(), work=work)
    zone, loader = LandingZone(f"file://{tmp_path}"), cast("Any", NothingLoaded())
    with pytest.raises(TaskDeferred) as waits:
        task._find(loader, zone, None, None)
    made = waits.value.trigger
    assert isinstance(made, LandingTrigger)
    assert (made.settling, made.load_mode, made.known) == (True, "upsert", digest([]))
    # After a while it loads what is before the first that is still written, and no more.
    assert [file.name for file in task._find(loader, zone, None, {})[1]] == ["a.csv"]
    settled = {file.name: file.version for file in zone.find("*.csv")}
    assert [file.name for file in task._find(loader, zone, None, settled)[1]] == ["a.csv", "b.csv", "c.csv"]
    # Without anything to load it goes on waiting, for the one file of the run.
    del settled["b.csv"]
    with pytest.raises(TaskDeferred) as waits:
        task._find(loader, zone, "b.csv", settled)
    assert waits.value.trigger.only == "b.csv"  # type: ignore[attr-defined]
