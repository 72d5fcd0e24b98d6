"""dbt's events as news of Airflow's tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orrery.config.resources import OPERATION, TEST_TYPES, type_of
from orrery.execute.batches import ERRORS, BatchErrors
from orrery.execute.results import NodeResult, failing, read_document, run_result
from orrery.manifest.known_secrets import conceal
from orrery.plan.model import TaskPlan

# dbt's levels that are worth showing; the others tell of every statement.
_SHOWN = frozenset({"info", "warn", "error"})
# What dbt tells when it begins with a node or a hook, and when it is done with one.
_STARTS = ("NodeStart", "LogHookStartLine")
_ENDS = ("NodeFinished", "LogHookEndLine")
# That a selection is empty: here it says by which trick nodes are selected, and that only hooks run.
_OURS = "NoNodesForSelectionCriteria"


@dataclass(frozen=True)
class Line:
    """A line of dbt's log."""

    time: str
    level: str
    text: str


@dataclass
class NodeRecord:
    """What dbt has told of one node; times are ISO 8601 in UTC."""

    start: str | None = None
    end: str | None = None
    result: NodeResult | None = None
    lines: list[Line] = field(default_factory=list)
    invocation_id: str | None = None
    # What dbt said when it was done with a node whose last word is still to come: how old a source is stands
    # in the results of the whole command, and what it cancels at a first failure has not failed.
    said: NodeResult | None = None
    # How many runs of the node are under way: that of a microbatch model is around those of its batches.
    depth: int = 0


@dataclass
class TaskRecord:
    """What dbt has told of the nodes of one task."""

    task: TaskPlan
    nodes: dict[str, NodeRecord]

    @property
    def start(self) -> str | None:
        """When dbt began with the first node."""
        return min((node.start for node in self.nodes.values() if node.start), default=None)

    @property
    def end(self) -> str | None:
        """When dbt was done with the last node."""
        return max((node.end for node in self.nodes.values() if node.end), default=None)

    @property
    def results(self) -> list[NodeResult]:
        """The results, in the order of the nodes."""
        return [node.result for node in self.nodes.values() if node.result]

    @property
    def message(self) -> str | None:
        """What dbt says about the nodes, if it says anything; of those that it has left out first."""
        results = sorted(self.results, key=lambda result: result.status != "skipped")
        return next((result.message for result in results if result.message), None)

    @property
    def lines(self) -> list[Line]:
        """dbt's log lines about the nodes, node by node."""
        return [line for node in self.nodes.values() for line in node.lines]

    @property
    def ended(self) -> bool:
        """Whether dbt is done with all nodes."""
        return all(node.result for node in self.nodes.values())

    @property
    def skipped(self) -> bool:
        """Whether dbt left a node out because of another one that failed."""
        return any(result.status == "skipped" for result in self.results)

    @property
    def failed(self) -> bool:
        """Whether a node failed."""
        return any(failing(result.status) for result in self.results)


class Collector:
    """A callback of dbt: sorts its events by task.

    :param tasks: the tasks whose nodes dbt runs
    :param started: called with the record of a task when dbt begins with it
    :param ended: called when dbt is done with it
    :param told: called with every line that dbt shows people
    :param fail_fast: whether dbt stops at the first failure, and cancels what is still running

    The functions are called in dbt's threads, one at a time.
    """

    def __init__(
        self,
        tasks: Iterable[TaskPlan],
        *,
        started: Callable[[TaskRecord], None],
        ended: Callable[[TaskRecord], None],
        told: Callable[[Line], None],
        fail_fast: Callable[[], bool] = lambda: False,
    ) -> None:
        self._started, self._ended, self._told, self._fail_fast = started, ended, told, fail_fast
        self._batches = BatchErrors()
        self._stopping = False
        self._lock = threading.Lock()
        self._records: dict[str, TaskRecord] = {}
        for task in tasks:
            record = TaskRecord(task, {uid: NodeRecord() for uid in task.nodes})
            self._records.update(dict.fromkeys(task.nodes, record))

    def __call__(self, event: Any) -> None:
        """Take one event, an `EventMsg` of dbt."""
        info = event.info
        name, level = info.name, info.level
        if level not in _SHOWN and name not in (*_STARTS, *_ENDS, *ERRORS):
            return
        node = getattr(event.data, "node_info", None)
        uid = node.unique_id if node is not None else ""
        with self._lock:
            self._batches(event)
            if level in _SHOWN and name != _OURS:
                line = Line(_now(), level, conceal(str(info.msg)))
                self._told(line)
                if uid in self._records:
                    self._records[uid].nodes[uid].lines.append(line)
            if uid in self._records and name in _STARTS:
                self._start(uid)
            elif uid in self._records and name in _ENDS:
                known = self._records[uid].nodes[uid]
                known.depth -= 1
                known.end, known.invocation_id = _now(), info.invocation_id
                if known.depth <= 0:
                    self._take(uid, known, _result(uid, event.data))

    def finish(self, results: Iterable[NodeResult]) -> None:
        """Take dbt's results of the whole command: its last word on what it has not ended for good before."""
        with self._lock:
            for result in results:
                record = self._records.get(result.unique_id)
                if record is not None and record.nodes[result.unique_id].result is None:
                    self._finish(result.unique_id, result)
            for uid, record in self._records.items():
                node = record.nodes[uid]
                if node.result is None and node.said is not None:
                    self._finish(uid, node.said)

    def give_up(self, uids: Iterable[str]) -> None:
        """Take that dbt has broken off, and tells nothing more about these nodes."""
        with self._lock:
            for uid in uids:
                if self._records[uid].nodes[uid].result is None:
                    self._finish(uid, NodeResult(uid, "skipped", 0.0, None, None, None))

    def _start(self, uid: str) -> None:
        record = self._records[uid]
        node = record.nodes[uid]
        node.depth += 1
        if node.depth > 1:
            return  # a batch
        first = record.start is None
        node.start = _now()
        if first:
            self._started(record)

    def _take(self, uid: str, node: NodeRecord, result: NodeResult) -> None:
        """Take what dbt says at the end of a node, unless it has the last word later."""
        failed = failing(result.status)
        hook = type_of(uid) == OPERATION
        if uid.startswith("source.") or (failed and (self._stopping or hook)):
            node.said = result
            return
        self._stopping = self._stopping or (failed and self._fail_fast())
        self._finish(uid, result)

    def _finish(self, uid: str, result: NodeResult) -> None:
        record = self._records[uid]
        node = record.nodes[uid]
        node.end = node.end or _now()
        if failing(result.status):
            result = replace(result, message=self._batches.explain(uid, result.message or "") or None)
        node.result = result
        if record.ended:
            self._ended(record)


def read_records(target: Path) -> list[NodeRecord]:
    """What the last command in a target folder has written of its nodes, for when nobody took its events."""
    document, result_of = read_document(target)
    metadata, found = document.get("metadata", {}), []
    for result in document["results"]:
        times = [step[key] for step in result.get("timing") or () for key in ("started_at", "completed_at")]
        times = sorted(time for time in times if time)
        found.append(
            NodeRecord(
                start=times[0] if times else None,
                end=times[-1] if times else metadata.get("generated_at"),
                result=result_of(result),
                invocation_id=metadata.get("invocation_id"),
            )
        )
    return found


def _result(uid: str, data: Any) -> NodeResult:
    """What the event at the end of a node or a hook says, a protobuf message."""
    if not hasattr(data, "run_result"):
        # A hook; why it failed stands in the results of the command, like these messages.
        word = {"success": "passed", "skipped": "skipped"}.get(data.status)
        message = f"{data.statement} {word}" if word else None
        return NodeResult(uid, data.status, round(data.execution_time, 6), None, None, message)
    result = data.run_result
    response = dict(result.adapter_response)
    return run_result(
        {
            "unique_id": uid,
            "status": result.status,
            "execution_time": round(result.execution_time, 6),
            "adapter_response": {key: _plain(value) for key, value in response.items()},
            "failures": result.num_failures if type_of(uid) in TEST_TYPES else None,
            "message": result.message,
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)  # protobuf knows no other numbers
    return value if value is None or isinstance(value, bool | float | str) else str(value)


def _now() -> str:
    return datetime.now(UTC).isoformat()
