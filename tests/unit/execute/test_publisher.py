"""The news of a build on their way to Airflow."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time.comms import ErrorResponse

from orrery.execute import publisher as module
from orrery.execute.channel import PUBLISH, NodeState, Update
from orrery.execute.publisher import Publisher

# Longer than anything here takes; a test that fails waits for it.
LONG = 60.0


class FakeStore:
    """Airflow's task state store: records what is set, can be held up, and can fail."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.tried = 0
        self.messages: list[dict[str, Any]] = []
        self.open = threading.Event()
        self.open.set()
        self._changed = threading.Condition()

    def get(self, key: str, default: Any = None) -> Any:
        raise AssertionError("a publisher reads nothing")

    def set(self, key: str, value: Any) -> None:
        assert key == PUBLISH
        with self._changed:
            self.tried += 1
            self._changed.notify_all()
        assert self.open.wait(LONG)
        with self._changed:
            self._changed.notify_all()
            if self.errors:
                raise self.errors.pop(0)
            self.messages.append(json.loads(json.dumps(value)))

    def wait(self, condition: Callable[[], object]) -> None:
        """Wait for something that a call changes."""
        with self._changed:
            assert self._changed.wait_for(condition, LONG)

    @property
    def batches(self) -> list[list[str]]:
        """The tasks of each message that told of any."""
        return [[update["task_id"] for update in m["updates"]] for m in self.messages if m["updates"]]

    @property
    def states(self) -> dict[str, str]:
        """The last news of each task."""
        return {update["task_id"]: update["state"] for m in self.messages for update in m["updates"]}


@pytest.fixture
def store() -> Iterator[FakeStore]:
    store = FakeStore()
    yield store
    # Whatever a test has left, no thread stays behind.
    store.open.set()


class Lost:
    """Counts the calls, and notes who calls."""

    def __init__(self) -> None:
        self.threads: list[str] = []
        self.called = threading.Event()

    def __call__(self) -> None:
        self.threads.append(threading.current_thread().name)
        self.called.set()


def never() -> None:
    raise AssertionError("Airflow was not lost")


def news(task_id: str, state: NodeState = NodeState.SUCCESS, **more: Any) -> Update:
    return Update(task_id, state, **more)


def api_error(status: int) -> AirflowRuntimeError:
    """What the supervisor answers when Airflow's api-server has refused."""
    return AirflowRuntimeError(
        ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status, "message": "m"})
    )


def in_time(act: Callable[[], object]) -> bool:
    """Whether `act` returns."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    thread.join(LONG)
    return not thread.is_alive()


def fill(store: FakeStore, publisher: Publisher) -> None:
    """Hold up the publisher in its first message."""
    store.open.clear()
    publisher.add(news("first"))
    store.wait(lambda: store.tried == 1)


def test_many_updates_are_few_messages(store: FakeStore) -> None:
    publisher = Publisher(store, never)
    began = time.monotonic()
    pace = threading.Event()
    for i in range(500):
        publisher.add(news(f"t{i}"))
        # News come all the time, not in one heap.
        pace.wait(max(0, began + (i + 1) / 500 - time.monotonic()))
    while_adding, took = len(store.messages), time.monotonic() - began
    publisher.close()
    # One at once, then at most two a second; the last is that of the flush.
    assert 2 <= while_adding <= 1 + took * 2
    assert len(store.messages) <= while_adding + 2
    assert [task for batch in store.batches for task in batch] == [f"t{i}" for i in range(500)]


def test_the_first_news_do_not_wait(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 600.0)
    publisher = Publisher(store, never)
    publisher.add(news("a", NodeState.RUNNING, start="2026-01-31T00:00:00+00:00"))
    store.wait(lambda: store.tried == 1)
    publisher.close()
    update = {"task_id": "a", "state": "running", "start": "2026-01-31T00:00:00+00:00"}
    assert store.messages == [{"updates": [update], "alive": False}]


def test_later_news_replace_earlier_ones_that_wait(store: FakeStore) -> None:
    publisher = Publisher(store, never)
    fill(store, publisher)
    publisher.add(news("a", NodeState.RUNNING))
    publisher.add(news("b", NodeState.RUNNING))
    publisher.add(news("a", NodeState.SUCCESS, note="n"))
    # What is on its way is not taken back; it is followed by what is newer.
    publisher.add(news("first", NodeState.FAILED))
    store.open.set()
    publisher.close()
    first, second = store.messages
    assert first["updates"] == [{"task_id": "first", "state": "success"}]
    assert sorted(second["updates"], key=lambda update: str(update["task_id"])) == [
        {"task_id": "a", "state": "success", "note": "n"},
        {"task_id": "b", "state": "running"},
        {"task_id": "first", "state": "failed"},
    ]


def test_messages_are_not_too_long(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    monkeypatch.setattr(module, "MAX_BYTES", 400)
    publisher = Publisher(store, never)
    fill(store, publisher)
    for i in range(20):
        publisher.add(news(f"t{i}", note="n" * (2000 if i == 7 else 50)))
    store.open.set()
    publisher.close()
    batches = store.batches[1:]
    assert [task for batch in batches for task in batch] == [f"t{i}" for i in range(20)]
    # What is too long by itself goes alone, and the others fill their messages.
    assert ["t7"] in batches
    assert max(len(batch) for batch in batches) > 1
    for message in store.messages:
        updates = message["updates"]
        assert len(updates) == 1 or sum(len(json.dumps(update)) for update in updates) <= 400


def test_airflow_takes_what_is_sent_at_most() -> None:
    # Airflow warns of values beyond 64 KiB; the frame of a message and its commas come on top.
    assert module.MAX_BYTES < 64 * 1024 - 1000


def test_flush_waits_until_everything_has_arrived(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 600.0)
    publisher = Publisher(store, never)
    fill(store, publisher)
    publisher.add(news("second"))
    flush = threading.Thread(target=publisher.flush, daemon=True)
    flush.start()
    flush.join(0.05)
    assert flush.is_alive()
    store.open.set()
    # It does not wait for the beat, only for Airflow.
    flush.join(LONG)
    assert not flush.is_alive()
    assert store.batches == [["first"], ["second"]]
    # And again, from a standstill.
    publisher.add(news("third"))
    assert in_time(publisher.flush)
    assert store.batches[2:] == [["third"]]
    assert in_time(publisher.close)


def test_flush_of_what_is_being_sent_waits_too(store: FakeStore) -> None:
    publisher = Publisher(store, never)
    fill(store, publisher)
    flush = threading.Thread(target=publisher.flush, daemon=True)
    flush.start()
    flush.join(0.05)
    assert flush.is_alive()
    store.open.set()
    flush.join(LONG)
    assert store.batches == [["first"]]
    publisher.close()


def test_flush_with_nothing_to_say_says_nothing(store: FakeStore) -> None:
    publisher = Publisher(store, never)
    assert in_time(publisher.flush)
    assert in_time(publisher.close)
    assert store.messages == []


def test_close_ends_the_thread(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "INTERVAL", 600.0)
    before = set(threading.enumerate())
    publisher = Publisher(store, never)
    (thread,) = set(threading.enumerate()) - before
    publisher.add(news("a"))
    publisher.add(news("b"))
    assert in_time(publisher.close)
    assert not thread.is_alive()
    assert store.states == {"a": "success", "b": "success"}
    # A second time does no harm.
    assert in_time(publisher.close)


@pytest.mark.parametrize("error", [api_error(500), api_error(503), RuntimeError("away"), ValueError("odd")])
def test_a_store_that_fails_is_asked_again(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    store.errors = [error, error]
    publisher = Publisher(store, never)
    publisher.add(news("a"))
    publisher.add(news("b"))
    assert in_time(publisher.close)
    assert store.states == {"a": "success", "b": "success"}
    assert store.tried == len(store.messages) + 2


def test_news_that_come_while_airflow_is_away_are_not_lost(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.0)
    store.errors = [api_error(502)]
    publisher = Publisher(store, never)
    fill(store, publisher)
    publisher.add(news("first", NodeState.RELEASED))
    publisher.add(news("a"))
    store.open.set()
    assert in_time(publisher.close)
    assert store.batches == [["first"], ["first", "a"]]
    assert store.states == {"first": "released", "a": "success"}


@pytest.mark.parametrize(
    "error",
    [api_error(404), api_error(409), api_error(410), EOFError("closed"), BrokenPipeError("gone")],
    ids=lambda error: f"{type(error).__name__}-{error}",
)
def test_a_build_that_airflow_has_forgotten_ends(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    store.errors = [error]
    lost = Lost()
    before = set(threading.enumerate())
    publisher = Publisher(store, lost)
    (thread,) = set(threading.enumerate()) - before
    fill(store, publisher)
    publisher.add(news("never told"))
    # Who waits for the rest is not left waiting.
    flush = threading.Thread(target=publisher.flush, daemon=True)
    flush.start()
    store.open.set()
    assert lost.called.wait(LONG)
    flush.join(LONG)
    assert not flush.is_alive()
    thread.join(LONG)
    assert not thread.is_alive()
    publisher.add(news("too late"))
    assert in_time(publisher.flush)
    assert in_time(publisher.close)
    assert (store.tried, store.messages) == (1, [])
    # Once, in the publisher's thread: the main one is dbt's.
    assert lost.threads == ["publisher"]


def test_patience_ends(store: FakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PAUSE", 0.01)
    monkeypatch.setattr(module, "_PATIENCE", 1.0)
    store.errors = [api_error(500)] * 1_000_000
    lost = Lost()
    publisher = Publisher(store, lost)
    publisher.add(news("a"))
    assert lost.called.wait(LONG)
    assert in_time(publisher.close)
    assert store.tried > 1
    assert (store.messages, lost.threads) == ([], ["publisher"])


def test_a_build_without_news_tells_that_it_is_alive(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALIVE", 0.01)
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    publisher = Publisher(store, never)
    store.wait(lambda: len(store.messages) >= 2)
    publisher.close()
    assert {json.dumps(message) for message in store.messages} == {'{"updates": [], "alive": true}'}


def test_a_build_with_news_all_the_time_tells_that_it_is_alive(
    store: FakeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ALIVE", 1.0)
    monkeypatch.setattr(module, "INTERVAL", 0.0)
    publisher = Publisher(store, never)
    deadline = time.monotonic() + LONG
    # Each update is sent before the next one comes: the wait for news never takes as long as ALIVE.
    while time.monotonic() < deadline and not any(m["alive"] and m["updates"] for m in store.messages):
        publisher.add(news("a"))
        publisher.flush()
    publisher.close()
    told = [message["alive"] for message in store.messages]
    assert any(m["alive"] and m["updates"] for m in store.messages)
    # Not in every message.
    assert told[0] is False
    assert told.count(True) < len(told) / 2


_ORPHAN = """
import os, sys, time
from orrery.execute.publisher import Publisher

class Store:
    def set(self, key, value): print("set", flush=True)

if os.fork():
    sys.stdin.read()  # until it is killed
else:
    Publisher(Store(), lost=lambda: (print("lost", flush=True), os._exit(0)))
    print("begun", flush=True)
    time.sleep(60)
"""


def test_a_build_notices_that_its_supervisor_was_killed() -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", _ORPHAN], **pipes) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "begun\n"
        supervisor.kill()
        assert supervisor.stdout.read() == "lost\n"
