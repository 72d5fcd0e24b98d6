"""dbt's events, as dbt itself makes them, become news of tasks."""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from dbt.events.types import (
    LogModelResult,
    MainReportVersion,
    NodeFinished,
    NodeStart,
    NoNodesForSelectionCriteria,
)
from dbt_common.events.base_types import BaseEvent, EventLevel, EventMsg, msg_from_base_event

from orrery.execute.collector import Collector, Line, TaskRecord, read_records
from orrery.execute.results import NodeResult, run_result
from orrery.plan.model import TaskKind, TaskPlan

A, B, C = "model.shop.a", "test.shop.t", "unit_test.shop.u"
SOURCE = "source.shop.app.orders"


def task(task_id: str, *nodes: str, kind: TaskKind = TaskKind.MODEL) -> TaskPlan:
    stage = task_id.split(".", maxsplit=1)[0]
    return TaskPlan(task_id, stage, kind, nodes, (), frozenset(), None, "")


def message(event: BaseEvent, level: EventLevel | None = None) -> EventMsg:
    """The event as dbt passes it to callbacks."""
    made: EventMsg = msg_from_base_event(event, level)
    return made


def info(uid: str) -> dict[str, Any]:
    return {"unique_id": uid, "node_name": uid.rsplit(".", maxsplit=1)[-1]}


def start(uid: str) -> EventMsg:
    return message(NodeStart(node_info=info(uid)))


def finish(uid: str, status: str = "success", **more: Any) -> EventMsg:
    """The end of a node; `more` replaces parts of dbt's result."""
    result = {
        "status": status,
        "message": "SELECT 3",
        "thread": "Thread-1",
        "execution_time": 0.25,
        "num_failures": 0,
        "timing_info": [],
        "adapter_response": {},
        **more,
    }
    return message(NodeFinished(node_info=info(uid), run_result=result))


def line(uid: str, status: str = "SUCCESS", level: EventLevel = EventLevel.INFO) -> EventMsg:
    """What dbt prints about a model."""
    event = LogModelResult(
        node_info=info(uid), description=f"model {uid}", status=status, index=1, total=1, execution_time=0.25
    )
    return message(event, level)


class Listener:
    """Notes what a collector calls, and that it does not call twice at once."""

    def __init__(self, *tasks: TaskPlan) -> None:
        self.calls: list[tuple[str, str]] = []
        self.records: dict[str, TaskRecord] = {}
        self.lines: list[Line] = []
        self.at_once = False
        self._busy = threading.Lock()
        self.collector = Collector(
            tasks, started=self._note("started"), ended=self._note("ended"), told=self._tell
        )

    def _note(self, what: str) -> Callable[[TaskRecord], None]:
        def note(record: TaskRecord) -> None:
            self._enter(lambda: self.calls.append((what, record.task.task_id)))
            self.records[record.task.task_id] = record

        return note

    def _tell(self, line: Line) -> None:
        self._enter(lambda: self.lines.append(line))

    def _enter(self, act: Callable[[], None]) -> None:
        if not self._busy.acquire(blocking=False):
            self.at_once = True
            return
        act()
        # Long enough for another thread to come in, if it can.
        threading.Event().wait(0.001)
        self._busy.release()

    def feed(self, *events: EventMsg) -> None:
        for event in events:
            self.collector(event)


def test_one_node() -> None:
    listener = Listener(task("core.a", A))
    listener.feed(start(A))
    assert listener.calls == [("started", "core.a")]
    record = listener.records["core.a"]
    assert (record.ended, record.end, record.results) == (False, None, [])
    response = {"_message": "SELECT 3", "code": "SELECT", "rows_affected": 3, "bytes": 1.5, "flag": True}
    listener.feed(finish(A, adapter_response=response))
    assert listener.calls == [("started", "core.a"), ("ended", "core.a")]
    assert record.results == [NodeResult(A, "success", 0.25, 3, None, "SELECT 3", response)]
    assert (record.ended, record.failed, record.skipped) == (True, False, False)
    assert record.start is not None
    assert record.end is not None
    began, ended = datetime.fromisoformat(record.start), datetime.fromisoformat(record.end)
    assert began <= ended
    assert began.utcoffset() is not None
    # Integers are integers again, though protobuf knows none, and everything goes through JSON.
    assert json.dumps(record.results[0].adapter_response["rows_affected"]) == "3"


def test_an_event_tells_what_the_file_tells() -> None:
    listener = Listener(task("core.a", A))
    response = {"_message": "INSERT 0 7", "rows_affected": 7}
    listener.feed(start(A), finish(A, message="INSERT 0 7", adapter_response=response))
    entry = {
        "unique_id": A,
        "status": "success",
        "execution_time": 0.25,
        "failures": None,
        "message": "INSERT 0 7",
        "adapter_response": response,
    }
    assert listener.records["core.a"].results == [run_result(entry)]


def test_several_nodes_in_one_task() -> None:
    listener = Listener(task("tests.a", B, C, kind=TaskKind.TEST))
    listener.feed(start(C), start(B))
    assert listener.calls == [("started", "tests.a")]
    listener.feed(finish(C, "pass"))
    record = listener.records["tests.a"]
    first = record.nodes[C].start
    assert (record.ended, record.start) == (False, first)
    assert listener.calls == [("started", "tests.a")]
    listener.feed(finish(B, "fail", num_failures=4, message="Got 4 results"))
    assert listener.calls == [("started", "tests.a"), ("ended", "tests.a")]
    # In the order of the task, not in that of the events.
    assert [(node.unique_id, node.status, node.failures) for node in record.results] == [
        (B, "fail", 4),
        (C, "pass", 0),
    ]
    assert record.end == record.nodes[B].end
    assert (record.start, record.failed) == (first, True)


def test_a_node_that_starts_after_another_has_ended_starts_no_task() -> None:
    listener = Listener(task("tests.a", B, C))
    listener.feed(start(B), finish(B, "pass"), start(C), finish(C, "pass"))
    assert listener.calls == [("started", "tests.a"), ("ended", "tests.a")]


@pytest.mark.parametrize(
    ("status", "failed", "skipped"),
    [
        ("success", False, False),
        ("pass", False, False),
        ("no-op", False, False),
        ("warn", False, False),
        ("skipped", False, True),
        ("fail", True, False),
        ("error", True, False),
        ("runtime error", True, False),
        # Some batches of a microbatch model failed.
        ("partial success", True, False),
    ],
)
def test_what_becomes_of_a_task(status: str, failed: bool, skipped: bool) -> None:
    listener = Listener(task("tests.a", B, C))
    listener.feed(start(B), finish(B, "pass"), start(C), finish(C, status, message="m"))
    record = listener.records["tests.a"]
    assert (record.ended, record.failed, record.skipped) == (True, failed, skipped)
    assert record.results[1].status == status


def test_an_empty_message_is_none() -> None:
    listener = Listener(task("core.a", A))
    listener.feed(start(A), finish(A, message=""))
    assert listener.records["core.a"].results[0].message is None


def test_lines_go_to_people_and_to_their_task() -> None:
    listener = Listener(task("core.a", A), task("tests.a", B, C))
    general = message(MainReportVersion(version="1.11", log_version=3))
    listener.feed(
        general,
        start(A),
        line(A, level=EventLevel.DEBUG),
        line(A),
        finish(A),
        line(C, "ERROR", EventLevel.ERROR),
        line(B, "WARN", EventLevel.WARN),
        line("model.shop.other"),
    )
    assert [shown.level for shown in listener.lines] == ["info", "info", "error", "warn", "info"]
    assert "1.11" in listener.lines[0].text
    listener.feed(start(C))
    about = listener.records["core.a"].lines
    assert [(shown.level, A in shown.text) for shown in about] == [("info", True)]
    # Node by node, as the results are.
    assert [shown.level for shown in listener.records["tests.a"].lines] == ["warn", "error"]
    assert datetime.fromisoformat(about[0].time).utcoffset() is not None


def test_how_nodes_are_selected_is_not_told() -> None:
    told: list[Line] = []
    collector = Collector([], started=lambda _: None, ended=lambda _: None, told=told.append)
    collector(message(NoNodesForSelectionCriteria(spec_raw="result:success"), EventLevel.WARN))
    collector(message(MainReportVersion(version="1", log_version=3), EventLevel.WARN))
    assert [line.text for line in told] == ["Running with dbt1"]


def test_nodes_of_others_and_events_without_a_node_are_nobodys() -> None:
    listener = Listener(task("core.a", A))
    listener.feed(start("model.shop.other"), finish("model.shop.other"), message(MainReportVersion()))
    assert listener.calls == []


def test_sources_end_with_the_results_of_the_command() -> None:
    sources = task("source_freshness.app__orders", SOURCE, kind=TaskKind.FRESHNESS)
    listener = Listener(sources)
    listener.feed(start(SOURCE), finish(SOURCE, "error"))
    # How old it is has not been told yet, nor whether that matters.
    assert listener.calls == [("started", sources.task_id)]
    told = listener.records[sources.task_id].end
    result = NodeResult(SOURCE, "error", 0.5, None, None, "loaded 7201 s ago")
    other = NodeResult("source.shop.app.other", "pass", 0.5, None, None, None)
    listener.collector.finish([other, result])
    record = listener.records[sources.task_id]
    assert listener.calls == [("started", sources.task_id), ("ended", sources.task_id)]
    assert (record.results, record.failed) == ([result], True)
    # The end is that of the check itself, not of the command.
    assert record.end == told


def test_a_source_that_cannot_be_read_ends_with_what_dbt_said() -> None:
    # dbt leaves it out of sources.json.
    sources = task("source_freshness.app__orders", SOURCE, kind=TaskKind.FRESHNESS)
    listener = Listener(sources)
    listener.feed(start(SOURCE), finish(SOURCE, "error"))
    listener.collector.finish([])
    assert listener.calls == [("started", sources.task_id), ("ended", sources.task_id)]
    assert listener.records[sources.task_id].failed


def test_results_that_come_after_the_command_end_what_dbt_did_not_tell_of() -> None:
    listener = Listener(task("tests.a", B, C), task("core.a", A))
    listener.feed(start(A), finish(A), start(B), finish(B, "pass"))
    late = NodeResult(C, "skipped", 0, None, None, None)
    # What is known already stays as it is, and ends nothing twice.
    known = [NodeResult(A, "error", 9, None, None, None), NodeResult(B, "error", 9, None, None, None)]
    listener.collector.finish([*known, late])
    listener.collector.finish([late])
    assert Counter(listener.calls) == {
        ("started", "core.a"): 1,
        ("ended", "core.a"): 1,
        ("started", "tests.a"): 1,
        ("ended", "tests.a"): 1,
    }
    assert listener.records["core.a"].results[0].status == "success"
    record = listener.records["tests.a"]
    assert ([node.status for node in record.results], record.skipped) == (["pass", "skipped"], True)


def test_records_of_a_command_whose_events_nobody_took(tmp_path: Path) -> None:
    times = [
        {
            "name": name,
            "started_at": f"2026-01-31T06:00:0{at}Z",
            "completed_at": f"2026-01-31T06:00:0{at + 1}Z",
        }
        for name, at in (("compile", 1), ("execute", 2))
    ]
    ended = {"unique_id": "model.shop.a", "status": "success", "execution_time": 2.0, "timing": times}
    skipped = {"unique_id": "model.shop.b", "status": "skipped", "execution_time": 0.0, "timing": []}
    document = {
        "metadata": {"invocation_id": "i", "generated_at": "2026-01-31T06:00:09Z"},
        "results": [ended, skipped],
    }
    assert read_records(tmp_path) == []
    (tmp_path / "run_results.json").write_text(json.dumps(document))
    assert [
        (node.start, node.end, node.result and node.result.status, node.invocation_id)
        for node in read_records(tmp_path)
    ] == [
        ("2026-01-31T06:00:01Z", "2026-01-31T06:00:03Z", "success", "i"),
        (None, "2026-01-31T06:00:09Z", "skipped", "i"),
    ]
    # A source that could not be checked.
    lost = {"unique_id": "source.shop.a.b", "status": "runtime error", "error": "no such table"}
    (tmp_path / "sources.json").write_text(json.dumps(document | {"results": [lost]}))
    (record,) = read_records(tmp_path)
    assert (record.start, record.result and record.result.message) == (None, "no such table")


def test_several_threads_at_once() -> None:
    # As dbt's threads do: the nodes of one task end in different ones.
    tasks = [task(f"tests.m{i}", *(f"test.shop.t{i}_{j}" for j in range(8))) for i in range(12)]
    listener = Listener(*tasks)
    ready = threading.Barrier(8)

    def work(j: int) -> None:
        for i in range(len(tasks)):
            uid = f"test.shop.t{i}_{j}"
            events = start(uid), line(uid), finish(uid, "pass")
            ready.wait()
            listener.feed(*events)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(j,)) for j in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not listener.at_once
    assert Counter(listener.calls) == {(what, t.task_id): 1 for t in tasks for what in ("started", "ended")}
    assert len(listener.lines) == 96
    for record in listener.records.values():
        assert (len(record.results), len(record.lines)) == (8, 8)
