"""Sends the news of a build to Airflow, in batches."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from orrery.execute.channel import PUBLISH, Update

log = logging.getLogger(__name__)

# At most two batches a second: what is not published yet when a build is killed runs again.
INTERVAL = 0.5
# How often the build tells that it is alive while nothing happens; the other side waits much longer.
ALIVE = 30.0
# How often it looks whether the supervisor of the task is there: nobody else can end the task any more.
_LOOK = 1.0
# Airflow warns of values beyond 64 KiB.
MAX_BYTES = 50_000
# How long Airflow's api-server may be away.
_PATIENCE = 600.0
_PAUSE = 2.0
# How long what is kept may hold up whoever keeps it, while the api-server is away.
_SHORT = 5.0


class Store(Protocol):
    """Airflow's task state store as a task has it in its context."""

    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, or the default."""

    def set(self, key: str, value: Any) -> None:
        """Store a value."""


class Publisher:
    """A thread that publishes updates; later news of a task replace earlier ones that still wait.

    :param store: the task state store of the build
    :param lost: called once, in the thread, when Airflow does not want to hear of this build any more
    """

    def __init__(self, store: Store, lost: Callable[[], None]) -> None:
        self._store, self._lost = store, lost
        self._waiting: dict[str, Update] = {}
        self._kept: dict[str, Any] = {}
        self._condition = threading.Condition()
        self._sending = False
        self._hurry = False
        self._closed = False
        self._dead = False
        self._last = time.monotonic()
        self._parent = os.getppid()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def add(self, update: Update) -> None:
        """Publish an update soon; returns at once."""
        with self._condition:
            self._waiting[update.task_id] = update
            self._condition.notify_all()

    def keep(self, key: str, value: Any) -> None:
        """Store a value, before the news that come after it; waits for that, but not long."""
        with self._condition:
            self._kept[key] = value
        self.flush(_SHORT)

    def flush(self, seconds: float | None = None) -> None:
        """Wait until everything is published or cannot be any more, or for so many seconds."""
        with self._condition:
            self._hurry = True
            self._condition.notify_all()
            self._condition.wait_for(
                lambda: self._dead or not (self._is_waiting or self._sending), timeout=seconds
            )
            self._hurry = False

    def close(self) -> None:
        """Publish the rest and end the thread."""
        self.flush()
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._is_waiting or self._closed or self._is_due() or self._is_orphaned()):
                    self._condition.wait(_LOOK)
                if self._closed:
                    return
                batch, kept = self._take(), self._kept
                self._kept = {}
                self._sending = True
            began = time.monotonic()
            delivered = not self._is_orphaned() and self._send(batch, kept)
            with self._condition:
                self._sending = False
                self._dead = not delivered
                self._condition.notify_all()
                if self._dead:
                    break
                # Whoever flushes at the end of a build does not wait for the beat.
                pause = INTERVAL - (time.monotonic() - began)
                self._condition.wait_for(lambda: self._hurry or self._closed, timeout=max(pause, 0))
        self._lost()

    @property
    def _is_waiting(self) -> bool:
        return bool(self._waiting or self._kept)

    def _is_due(self) -> bool:
        return time.monotonic() - self._last > ALIVE

    def _is_orphaned(self) -> bool:
        """Whether the supervisor, this process's parent, was killed."""
        return os.getppid() != self._parent

    def _take(self) -> list[Update]:
        """The next batch: what fits into one message, at least one update."""
        batch: list[Update] = []
        size = 0
        for task_id, update in list(self._waiting.items()):
            size += len(json.dumps(update.as_dict()))
            if batch and size > MAX_BYTES:
                break
            batch.append(self._waiting.pop(task_id))
        return batch

    def _send(self, batch: list[Update], kept: dict[str, Any]) -> bool:
        alive = self._is_due()
        messages = dict(kept)
        if batch or alive:
            messages[PUBLISH] = {"updates": [update.as_dict() for update in batch], "alive": alive}
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                for key, value in messages.items():
                    self._store.set(key, value)
            except Exception as error:
                if _is_final(error) or time.monotonic() > deadline:
                    log.warning("Airflow does not take the states of this build any more: %s", error)
                    return False
                log.warning("The states of the nodes cannot be published now, trying again: %s", error)
                time.sleep(_PAUSE)
            else:
                if alive:
                    self._last = time.monotonic()
                return True


def _is_final(error: Exception) -> bool:
    """Whether the task is gone (cleared, deleted), or the supervisor that talks to Airflow for it."""
    if isinstance(error, OSError | EOFError):
        return True
    detail = getattr(getattr(error, "error", None), "detail", None) or {}
    status = detail.get("status_code") if isinstance(detail, dict) else None
    return isinstance(status, int) and 400 <= status < 500
