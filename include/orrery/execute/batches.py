"""What becomes of the batches of a microbatch model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import Any

from orrery.manifest.known_secrets import conceal

# The batches of microbatch models by unique id: `successful` and `failed`, each as [start, end] in ISO 8601.
Batches = dict[str, dict[str, list[list[str]]]]
# How often, in seconds, it is told that batches have succeeded; so much slower with every so many batches, of
# which all are told each time.
_BEAT, _FEW = 0.5, 100
# What dbt says of a batch that failed, and of a model with such a batch; the reason stands elsewhere.
_BARE = ("ERROR", "SKIPPED")
_PREFIX = "Exception on worker thread. "
# dbt's events that tell an error: of what it runs, of what it compiles, of its own.
ERRORS = ("GenericExceptionOnRun", "CatchableExceptionOnRun", "InternalErrorOnRun")


class BatchErrors:
    """Why batches failed, from dbt's events; a callback of dbt.

    dbt tells the error of a batch in an event of its own, in the thread of the batch and before its result.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_thread: dict[str, str] = {}
        self._by_model: dict[str, list[str]] = {}

    def __call__(self, event: Any) -> None:
        """Take one event."""
        with self._lock:
            self._take(event)

    def _take(self, event: Any) -> None:
        name, data, thread = event.info.name, event.data, event.info.thread
        if name in ERRORS:
            self._by_thread[thread] = data.exc.removeprefix(_PREFIX).strip()
        elif name == "LogBatchResult" and data.status == "error":
            batch = data.description.partition(" of ")[0]
            error = self._by_thread.pop(thread, None)
            if error:
                self._by_model.setdefault(data.node_info.unique_id, []).append(f"{batch}: {error}")
        elif name == "NodeStart":
            self._by_thread.pop(thread, None)

    def explain(self, uid: str, message: str) -> str:
        """The message of a failed node, with the reasons of its batches."""
        reasons = self._by_model.pop(uid, [])
        if not reasons:
            return message
        return conceal("\n".join(reasons if message in _BARE else [message, *reasons]))


class BatchProgress:
    """Which batches are done, while dbt runs them in several threads.

    A batch counts as failed from the beginning of its model until it has succeeded: dbt may be killed. Where
    dbt itself says that none has succeeded, it begins anew.

    :param known: those of earlier tries
    :param told: called with the `unfinished` ones when something has changed, at most twice a second (less
        often with hundreds of batches) unless a model begins or ends, or a batch has failed
    """

    def __init__(self, known: Batches, told: Callable[[Batches], None]) -> None:
        self._known = dict(known)
        self._told = told
        # How many batches of a model have not ended.
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        self._last = 0.0
        self._untold = False

    @property
    def unfinished(self) -> Batches:
        """Those of models of which some have failed or are not done."""
        return {uid: known for uid, known in self._known.items() if known["failed"]}

    def again(self, uid: str) -> None:
        """Take that a model is to be built of other data than its batches were: all of them are to run."""
        with self._lock:
            if known := self.unfinished.get(uid):
                batches = sorted({*map(tuple, known["successful"]), *map(tuple, known["failed"])})
                self._known[uid] = {**known, "failed": [list(batch) for batch in batches]}
                self._tell()

    def begin(self, uid: str, batches: Collection[tuple[Any, Any]]) -> None:
        """Take that dbt begins with a model; what it does not run now has succeeded before."""
        with self._lock:
            before = self.unfinished.get(uid, {"successful": []})
            todo = [_times(batch) for batch in batches]
            self._known[uid] = {"successful": before["successful"], "failed": todo}
            self._open[uid] = len(todo)
            self._tell()

    def end(self, uid: str, successful: Collection[tuple[Any, Any]]) -> None:
        """Take that dbt is done with a batch; one that has failed is not among the successful ones."""
        with self._lock:
            done = [_times(batch) for batch in successful]
            succeeded = [*self._known[uid]["successful"], *done]
            failed = [batch for batch in self._known[uid]["failed"] if batch not in done]
            self._open[uid] -= 1
            if not (succeeded or self._open[uid]):
                failed = []
            self._known[uid] = {"successful": succeeded, "failed": failed}
            self._untold = True
            beat = _BEAT * (1 + (len(failed) + len(succeeded)) / _FEW)
            if not (done and failed) or time.monotonic() - self._last > beat:
                self._tell()

    def close(self) -> None:
        """Tell what has not been told."""
        with self._lock:
            if self._untold:
                self._tell()

    def _tell(self) -> None:
        self._untold, self._last = False, time.monotonic()
        self._told(self.unfinished)


def _times(batch: tuple[Any, Any]) -> list[str]:
    # As JSON has it, which knows no tuples.
    return [moment.isoformat() for moment in batch]
