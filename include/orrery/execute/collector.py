"""dbt's events as news of Airflow's tasks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from orrery.config.resources import TEST_TYPES, type_of
from orrery.execute.results import NodeResult, read_document, run_result, severity
from orrery.plan.model import TaskPlan

# dbt's levels that are worth showing; the others tell of every statement.
_SHOWN = frozenset({"info", "warn", "error"})


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
    # What dbt said when it was done with a source: its results lack those that it could not read.
    said: NodeResult | None = None


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
        return any(severity(result.status) > severity("warn") for result in self.results)


class Collector:
    """A callback of dbt: sorts its events by task.

    :param tasks: the tasks whose nodes dbt runs
    :param started: called with the record of a task when dbt begins with it
    :param ended: called when dbt is done with it
    :param told: called with every line that dbt shows people

    The functions are called in dbt's threads, one at a time.
    """

    def __init__(
        self,
        tasks: Iterable[TaskPlan],
        *,
        started: Callable[[TaskRecord], None],
        ended: Callable[[TaskRecord], None],
        told: Callable[[Line], None],
    ) -> None:
        self._started, self._ended, self._told = started, ended, told
        self._lock = threading.Lock()
        self._records: dict[str, TaskRecord] = {}
        for task in tasks:
            record = TaskRecord(task, {uid: NodeRecord() for uid in task.nodes})
            self._records.update(dict.fromkeys(task.nodes, record))

    def __call__(self, event: Any) -> None:
        """Take one event, an `EventMsg` of dbt."""
        info = event.info
        name, level = info.name, info.level
        if level not in _SHOWN and name not in ("NodeStart", "NodeFinished"):
            return
        node = getattr(event.data, "node_info", None)
        uid = node.unique_id if node is not None else ""
        with self._lock:
            if level in _SHOWN:
                line = Line(_now(), level, str(info.msg))
                self._told(line)
                if uid in self._records:
                    self._records[uid].nodes[uid].lines.append(line)
            if uid in self._records and name == "NodeStart":
                self._start(uid)
            elif uid in self._records and name == "NodeFinished":
                known = self._records[uid].nodes[uid]
                known.end, known.invocation_id = _now(), info.invocation_id
                result = _result(uid, event.data.run_result)
                # How old a source is comes with the results of the whole command only.
                if uid.startswith("source."):
                    known.said = result
                else:
                    self._finish(uid, result)

    def finish(self, results: Iterable[NodeResult]) -> None:
        """Take results that come after the command: those of sources, and of what dbt did not tell of."""
        with self._lock:
            for result in results:
                record = self._records.get(result.unique_id)
                if record is not None and record.nodes[result.unique_id].result is None:
                    self._finish(result.unique_id, result)
            for uid, record in self._records.items():
                node = record.nodes[uid]
                if node.result is None and node.said is not None:
                    self._finish(uid, node.said)

    def _start(self, uid: str) -> None:
        record = self._records[uid]
        first = record.start is None
        record.nodes[uid].start = _now()
        if first:
            self._started(record)

    def _finish(self, uid: str, result: NodeResult) -> None:
        record = self._records[uid]
        node = record.nodes[uid]
        node.end = node.end or _now()
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


def _result(uid: str, result: Any) -> NodeResult:
    """`run_result` of a NodeFinished event, a protobuf message."""
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
