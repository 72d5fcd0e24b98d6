"""What a build tells Airflow of its tasks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.collector import Line, NodeRecord, TaskRecord
from orrery.execute.ledger import Ledger
from orrery.execute.reporter import Reporter
from orrery.execute.results import NodeResult
from orrery.execute.run_graph import RunGraph
from orrery.execute.tally import Tally
from orrery.manifest.dbt import Dbt
from orrery.plan.model import PipelinePlan
from unit.manifest.resources import Resource, resource
from unit.plan.projects import FRESH, plan

START, END = "2026-01-31T06:00:00+00:00", "2026-01-31T06:00:02+00:00"


def model(name: str, *parents: str) -> Resource:
    return resource("model", name, list(parents), config={"materialized": "table"})


# raw -> a -> b -> c, and alone.
PLAN = plan(
    resource("source", "app.raw", relation_name="raw", freshness=FRESH),
    model("a", "source.shop.app.raw"),
    model("b", "model.shop.a"),
    model("c", "model.shop.b"),
    model("alone"),
)
RAW, A, B, C, ALONE = "source_freshness.app__raw", "core.a", "core.b", "core.c", "core.alone"
TASKS = {RAW, A, B, C, ALONE}


@dataclass
class Heard:
    """Stands for the publisher, the logs, the ledger and dbt."""

    updates: list[Update] = field(default_factory=list)
    logs: dict[str, tuple[int, list[str]]] = field(default_factory=dict)
    kept: list[tuple[str, int]] = field(default_factory=list)
    manifest: Any = None

    def __post_init__(self) -> None:
        node = SimpleNamespace(compiled_code="select 1", compiled_path="target/a.sql")
        self.manifest = SimpleNamespace(nodes={"model.shop.a": node}, functions={})
        self.tally = Tally(self)

    def add(self, update: Update) -> None:
        self.updates.append(update)

    def write(self, task_id: str, try_number: int, lines: Iterable[Line]) -> None:
        self.logs[task_id] = (try_number, [line.text for line in lines])

    def take(self, nodes: Iterable[NodeRecord], try_number: int) -> None:
        of = {uid: task_id for task_id, task in PLAN.tasks.items() for uid in task.nodes}
        self.kept += [(of[node.result.unique_id], try_number) for node in nodes if node.result]

    @property
    def states(self) -> dict[str, NodeState]:
        """The latest news of each task."""
        return {update.task_id: update.state for update in self.updates}

    def of(self, task_id: str) -> Update:
        """The latest news of one task."""
        return next(update for update in reversed(self.updates) if update.task_id == task_id)


@pytest.fixture
def heard() -> Heard:
    return Heard()


def reporter_of(
    heard: Heard, left: dict[str, str] | None = None, stale: str = "fail", of: PipelinePlan = PLAN
) -> Reporter:
    """A reporter of a build that holds all tasks."""
    made = Reporter(
        heard.tally,
        logs=heard,
        dbt=cast(Dbt, heard),
        ledger=cast(Ledger, heard),
        graph=RunGraph.planned(of.tasks),
        left=left or {},
        stale=stale,
        most=4096,
    )
    made.tries = dict.fromkeys(of.tasks, Try(3))
    return made


def record(task_id: str, status: str = "success", message: str | None = "told") -> TaskRecord:
    task = PLAN.tasks[task_id]
    [uid] = task.nodes
    result = NodeResult(uid, status, 2.0, None, None, message)
    return TaskRecord(task, {uid: NodeRecord(START, END, result, [Line(START, "info", "dbt's line")])})


def test_a_success_has_log_sql_and_result(heard: Heard) -> None:
    reporter = reporter_of(heard)
    reporter.started(record(A))
    assert heard.of(A) == Update(A, NodeState.RUNNING, start=START)
    reporter.finished(record(A))
    news = heard.of(A)
    assert (news.state, news.start, news.end, news.note) == (NodeState.SUCCESS, START, END, None)
    assert news.result is not None
    assert news.result["status"] == "success"
    assert news.rendered == {"compiled_sql": "select 1"}
    built = "Built by the task 'build' of this run."
    assert heard.logs == {A: (3, [built, "dbt's line", "Compiled SQL: target/a.sql"])}
    assert heard.tally.ended == {A: NodeState.SUCCESS}


def test_a_warning_is_a_success_with_a_note(heard: Heard) -> None:
    reporter_of(heard).finished(record(A, "warn", "Got 2 results"))
    assert (heard.of(A).state, heard.of(A).note) == (NodeState.SUCCESS, "Warning: Got 2 results")


def test_a_failure_carries_what_its_task_shows(heard: Heard) -> None:
    reporter = reporter_of(heard)
    reporter.finished(record(A, "error", "Database Error"))
    assert heard.tally.ended == {A: NodeState.FAILED}
    failure = heard.of(A).failure
    assert failure is not None
    assert failure["result"]["message"] == "Database Error"
    assert failure["lines"] == [[START, "info", "dbt's line"]]
    assert failure["compiled_sql"] == "select 1"
    assert failure["compiled_paths"] == ["target/a.sql"]
    assert reporter.barred() == {B, C}


def test_what_is_cancelled_has_not_failed(heard: Heard) -> None:
    reporter = reporter_of(heard)
    reporter.stopping = True
    reporter.finished(record(A, "error"))
    reporter.finished(record(B))
    assert heard.states == {B: NodeState.SUCCESS}
    assert heard.kept == [(B, 3)]
    assert reporter.barred() == set()


def test_whatever_dbt_is_done_with_is_kept(heard: Heard) -> None:
    reporter = reporter_of(heard, stale="skip")
    for ended in (record(A, "error"), record(B, "skipped"), record(RAW, "error"), record(ALONE)):
        reporter.finished(ended)
    assert heard.kept == [(A, 3), (B, 3), (RAW, 3), (ALONE, 3)]


def test_what_dbt_skips_because_of_a_failure_is_upstream_failed(heard: Heard) -> None:
    reporter = reporter_of(heard)
    reporter.finished(record(A, "error"))
    # dbt says that it begins with what it then skips.
    reporter.started(record(B))
    assert B not in heard.states
    reporter.finished(record(B, "skipped"))
    assert heard.states == {A: NodeState.FAILED, B: NodeState.UPSTREAM_FAILED}
    assert heard.of(B).note == "core.a failed."


def test_what_waits_for_another_try_does_not_end(heard: Heard) -> None:
    reporter = reporter_of(heard)
    reporter.tries[A] = Try(1, last=False)
    reporter.finished(record(A, "error"))
    reporter.finished(record(B, "skipped"))
    assert heard.states == {A: NodeState.FAILED}
    assert heard.tally.held_back == {B: "core.a failed, and is tried again."}


@pytest.mark.parametrize(
    ("message", "note"),
    [("Skipping due to fail_fast", "Skipping due to fail_fast"), (None, "dbt skipped it.")],
)
def test_what_dbt_skips_for_reasons_of_its_own_says_so(heard: Heard, message: str | None, note: str) -> None:
    reporter_of(heard).finished(record(B, "skipped", message))
    assert (heard.of(B).state, heard.of(B).note) == (NodeState.UPSTREAM_FAILED, note)


def test_what_is_left_out_is_skipped_when_all_before_it_is_over(heard: Heard) -> None:
    reporter = reporter_of(heard, {RAW: "stage", C: "not selected"})
    reporter.settle_left({A, B, ALONE})
    assert heard.states == {RAW: NodeState.SKIPPED}
    assert heard.of(RAW).note == "stage"
    reporter.finished(record(A))
    reporter.settle_left({B})
    assert C not in heard.states
    reporter.finished(record(B))
    reporter.settle_left(())
    assert heard.of(C).state is NodeState.SKIPPED
    assert heard.of(C).note == "not selected"
    # Once is enough.
    told = len(heard.updates)
    reporter.settle_left(())
    assert len(heard.updates) == told


def test_what_is_left_out_hides_no_failure(heard: Heard) -> None:
    reporter = reporter_of(heard, {B: "not selected", C: "not selected", ALONE: "not selected"})
    reporter.finished(record(A, "error"))
    reporter.settle_left(())
    assert heard.states == {
        A: NodeState.FAILED,
        B: NodeState.UPSTREAM_FAILED,
        C: NodeState.UPSTREAM_FAILED,
        ALONE: NodeState.SKIPPED,
    }


def test_what_the_build_does_not_hold_is_left_alone(heard: Heard) -> None:
    reporter = reporter_of(heard, {C: "not selected", ALONE: "not selected"})
    del reporter.tries[ALONE]
    reporter.settle_left(())
    assert heard.states == {C: NodeState.SKIPPED}


@pytest.mark.parametrize("status", ["warn", "pass"])
@pytest.mark.parametrize("stale", ["fail", "skip", "warn"])
def test_a_source_that_is_fresh_enough(heard: Heard, stale: str, status: str) -> None:
    reporter = reporter_of(heard, stale=stale)
    reporter.finished(record(RAW, status))
    assert heard.states == {RAW: NodeState.SUCCESS}
    assert reporter.left == {}


def test_a_stale_source_fails(heard: Heard) -> None:
    reporter = reporter_of(heard, stale="fail")
    reporter.finished(record(RAW, "error", "loaded 7200 s ago"))
    assert heard.states == {RAW: NodeState.FAILED}
    assert reporter.barred() == {A, B, C}


def test_a_stale_source_leaves_out_what_reads_it(heard: Heard) -> None:
    reporter = reporter_of(heard, {C: "not selected"}, stale="skip")
    reporter.finished(record(RAW, "error", "loaded 7200 s ago"))
    assert heard.states == {RAW: NodeState.SKIPPED}
    assert heard.of(RAW).note == "The source is stale: loaded 7200 s ago"
    reason = "The source app__raw is stale: loaded 7200 s ago"
    assert reporter.left == {A: reason, B: reason, C: "not selected"}
    assert "The source is stale: loaded 7200 s ago" in heard.logs[RAW][1]


def test_a_stale_source_may_only_warn(heard: Heard) -> None:
    reporter_of(heard, stale="warn").finished(record(RAW, "error", "loaded 7200 s ago"))
    assert heard.states == {RAW: NodeState.SUCCESS}
    assert heard.of(RAW).note == "Warning: loaded 7200 s ago"


@pytest.mark.parametrize("stale", ["fail", "skip", "warn"])
def test_a_source_that_cannot_be_read_fails(heard: Heard, stale: str) -> None:
    reporter_of(heard, stale=stale).finished(record(RAW, "runtime error", "no such table"))
    assert heard.states == {RAW: NodeState.FAILED}


def test_long_sql_is_cut(heard: Heard) -> None:
    heard.manifest.nodes["model.shop.a"].compiled_code = "select 1 -- " + "x" * 50_000
    reporter = reporter_of(heard)
    reporter.finished(record(A))
    rendered = heard.of(A).rendered
    assert rendered is not None
    assert rendered["compiled_sql"].startswith("-- The beginning only")
    assert len(rendered["compiled_sql"]) < 10_000
    reporter.finished(record(A, "error"))
    failure = heard.of(A).failure
    assert failure is not None
    assert len(failure["compiled_sql"]) == 20_000
