"""What the results of a pipeline's last runs say. Nothing here reads or prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

from orrery.config.resources import TEST_TYPES
from orrery.execute.node_runs import NodeRun

# A node is slower when it takes that many times the median of the earlier runs, and that much longer.
FACTOR = 2
SECONDS = 1.0
_BLOCKS = "▁▂▃▄▅▆▇█"
# Only what ran to its end tells how long it takes and how many rows it has.
RAN = ("success", "pass", "warn")
_PASSED = ("pass", "warn")
_FAILED = ("fail", "error")


@dataclass(frozen=True)
class Run:
    """One DAG run, with at least one node that began."""

    run_id: str
    nodes: tuple[NodeRun, ...]

    @property
    def started_at(self) -> datetime:
        """When dbt began with the first node."""
        return min(node.started_at for node in self.nodes if node.started_at)

    @property
    def seconds(self) -> float:
        """How long dbt's commands took from their first node to their last.

        A node that was cleared days later adds its own time only, as it is a command of its own.
        """
        spans: dict[str | None, list[datetime]] = defaultdict(list)
        for node in self.nodes:
            if node.started_at and node.ended_at:
                spans[node.invocation_id] += (node.started_at, node.ended_at)
        return sum((max(span) - min(span)).total_seconds() for span in spans.values())


@dataclass(frozen=True)
class Share:
    """A node, and its part of the seconds of all nodes of the run (0 to 1)."""

    node: NodeRun
    share: float


@dataclass(frozen=True)
class Change:
    """A figure of a node of the last run, and its median in so many earlier runs."""

    node: NodeRun
    now: float
    before: float
    runs: int


@dataclass(frozen=True)
class Flaky:
    """A test, and in how many runs it failed and passed."""

    node: NodeRun
    failed: int
    passed: int


def runs_of(rows: Iterable[NodeRun]) -> list[Run]:
    """The runs, oldest first; those in which no node began are left out."""
    nodes: dict[str, list[NodeRun]] = defaultdict(list)
    for row in rows:
        nodes[row.run_id].append(row)
    runs = [
        Run(run_id, tuple(members))
        for run_id, members in nodes.items()
        if any(member.started_at for member in members)
    ]
    return sorted(runs, key=lambda run: run.started_at)


def slowest(run: Run, most: int = 10) -> list[Share]:
    """The nodes that took longest, those first."""
    total = sum(node.seconds for node in run.nodes)
    nodes = sorted((node for node in run.nodes if node.seconds), key=lambda node: -node.seconds)
    return [Share(node, node.seconds / total) for node in nodes[:most]]


def regressions(runs: Sequence[Run]) -> list[Change]:
    """Nodes of the last run that took much longer than before, the worst first."""
    changes = [
        change
        for change in _changes(runs, "seconds")
        if change.now >= FACTOR * change.before and change.now - change.before >= SECONDS
    ]
    return sorted(changes, key=lambda change: change.before - change.now)


def row_changes(runs: Sequence[Run]) -> list[Change]:
    """Nodes of the last run with at most half, or at least twice, as many rows as before; by name."""
    changes = [
        change
        for change in _changes(runs, "rows_affected")
        if change.now != change.before
        and (change.now >= FACTOR * change.before or FACTOR * change.now <= change.before)
    ]
    return sorted(changes, key=lambda change: change.node.name)


def flaky(runs: Sequence[Run]) -> list[Flaky]:
    """Tests that failed in some runs and passed in others, the most undecided first."""
    tests: dict[str, list[NodeRun]] = defaultdict(list)
    for run in runs:
        for node in run.nodes:
            if node.resource_type in TEST_TYPES:
                tests[node.unique_id].append(node)
    found = [
        Flaky(
            nodes[-1],
            failed=sum(node.status in _FAILED for node in nodes),
            passed=sum(node.status in _PASSED for node in nodes),
        )
        for nodes in tests.values()
    ]
    undecided = [test for test in found if test.failed and test.passed]
    return sorted(undecided, key=lambda test: (-min(test.failed, test.passed), test.node.name))


def blocks(values: Sequence[float]) -> str:
    """A line of block characters, one per value; the tallest is the greatest value."""
    top = max(values, default=0) or 1
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(value / top * last)] for value in values)


def _changes(runs: Sequence[Run], figure: str) -> list[Change]:
    """A figure of all nodes of the last run that have it, and had it before."""
    before: dict[str, list[float]] = defaultdict(list)
    for run in runs[:-1]:
        for uid, (_, value) in _figures(run, figure).items():
            before[uid].append(value)
    return [
        Change(node, value, median(before[uid]), len(before[uid]))
        for run in runs[-1:]
        for uid, (node, value) in _figures(run, figure).items()
        if uid in before
    ]


def _figures(run: Run, figure: str) -> dict[str, tuple[NodeRun, float]]:
    return {
        node.unique_id: (node, getattr(node, figure))
        for node in run.nodes
        if node.status in RAN and getattr(node, figure) is not None
    }
