"""What dbt tells of the batches of a microbatch model."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

# The batches of microbatch models by unique id: `successful` and `failed`, each as (start, end) in ISO 8601.
Batches = dict[str, dict[str, list[tuple[str, str]]]]
# What dbt says of a batch that failed, and of a model with such a batch; the reason stands elsewhere.
_BARE = ("ERROR", "SKIPPED")
_PREFIX = "Exception on worker thread. "


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
        if name == "GenericExceptionOnRun":
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
        return "\n".join(reasons if message in _BARE else [message, *reasons])


def unfinished(batches: Batches) -> Batches:
    """Those of models of which some have failed and some have not: where none has, dbt begins anew."""
    return {uid: known for uid, known in batches.items() if known["successful"] and known["failed"]}


def read_batches(target: Path) -> Batches:
    """The batches in dbt's target folder, of the models that its last command has run."""
    path = target / "run_results.json"
    results = json.loads(path.read_bytes())["results"] if path.is_file() else []
    return {
        result["unique_id"]: {
            name: [(start, end) for start, end in result["batch_results"][name]]
            for name in ("successful", "failed")
        }
        for result in results
        if result.get("batch_results")
    }
