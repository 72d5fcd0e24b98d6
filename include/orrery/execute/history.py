"""What the results of a pipeline's last runs say. Nothing here reads or prints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median

from orrery.config.resources import SOURCE, TEST_TYPES
from orrery.execute.node_runs import NodeRun

# What is usual takes so many earlier runs that are like the last one; with fewer there is nothing to say.
FEWEST = 5
# A figure is unusual if it is that many times the median (or less than that part of it), and further from the
# median than that many times the median distance: rows of an incremental model vary by nature.
FACTOR = 2
SPREAD = 5
# And a node is slower only if it took that much longer.
SECONDS = 1.0
_BLOCKS = "▁▂▃▄▅▆▇█"
# Only what ran to its end tells how long it takes and how many rows it has.
RAN = ("success", "pass", "warn")
_PASSED = ("pass", "warn")
_FAILED = ("fail", "error")


@dataclass(frozen=True)
class Usual:
    """What a figure was in so many earlier runs: its median, and the median distance from that."""

    median: float
    distance: float
    runs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Usual | None:
        """What is usual, or None where there are fewer values than FEWEST."""
        if len(values) < FEWEST:
            return None
        middle = median(values)
        return cls(middle, median(abs(value - middle) for value in values), len(values))

    def is_more(self, value: float) -> bool:
        """Whether it is unusually much."""
        return value > self.median + SPREAD * self.distance and value >= FACTOR * self.median

    def is_less(self, value: float) -> bool:
        """Whether it is unusually little."""
        return value < self.median - SPREAD * self.distance and FACTOR * value <= self.median


@dataclass(frozen=True)
class Run:
    """One DAG run, with at least one node that began."""

    run_id: str
    nodes: tuple[NodeRun, ...]

    @property
    def choices(self) -> str:
        """What whoever started the run has chosen (RunOptions.choices); empty for a run as scheduled."""
        return self.nodes[0].choices

    @property
    def whole(self) -> bool:
        """Whether each node ran once: nothing was held back by a failure, and nothing was repeated."""
        return all(
            node.try_number == 1 and node.status in (*RAN, "fail")
            for node in self.nodes
            if node.resource_type != SOURCE
        )

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
    """A figure of a node of the last run, and what it was before."""

    node: NodeRun
    now: float
    usual: Usual


@dataclass(frozen=True)
class Flaky:
    """A test that changed its mind more than once, and in how many runs it failed and passed."""

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


def earlier(runs: Sequence[Run]) -> list[Run]:
    """The runs before the last one that were made with the same choices, and so do the same work."""
    return [run for run in runs[:-1] if run.choices == runs[-1].choices]


def usual_seconds(runs: Sequence[Run]) -> Usual | None:
    """How long runs like the last one take."""
    return Usual.of([run.seconds for run in earlier(runs) if run.whole])


def usual_figures(runs: Sequence[Run], figure: str) -> dict[str, Usual]:
    """What a figure of each node is in runs like the last one, by unique id.

    :param figure: an attribute of NodeRun
    """
    found: dict[str, list[float]] = defaultdict(list)
    for run in earlier(runs):
        for uid, (_, value) in _figures(run, figure).items():
            found[uid].append(value)
    return {uid: usual for uid, values in found.items() if (usual := Usual.of(values))}


def changes(runs: Sequence[Run], figure: str) -> list[Change]:
    """A figure of all nodes of the last run that have it, and of which it is known what is usual."""
    usual = usual_figures(runs, figure)
    return [
        Change(node, value, usual[uid])
        for run in runs[-1:]
        for uid, (node, value) in _figures(run, figure).items()
        if uid in usual
    ]


def regressions(runs: Sequence[Run]) -> list[Change]:
    """Nodes of the last run that took much longer than before, the worst first."""
    found = [
        change
        for change in changes(runs, "seconds")
        if change.usual.is_more(change.now) and change.now - change.usual.median >= SECONDS
    ]
    return sorted(found, key=lambda change: change.usual.median - change.now)


def row_changes(runs: Sequence[Run]) -> list[Change]:
    """Nodes of the last run with many more or many fewer rows than before; by name."""
    found = [
        change
        for change in changes(runs, "rows_affected")
        if change.usual.is_more(change.now) or change.usual.is_less(change.now)
    ]
    return sorted(found, key=lambda change: change.node.name)


def flaky(runs: Sequence[Run]) -> list[Flaky]:
    """Tests that went from passing to failing and back, or the other way round; the most undecided first.

    One that fails since some run, or passes since it was fixed, has changed once: it is not flaky.
    """
    tests: dict[str, list[NodeRun]] = defaultdict(list)
    for run in runs:
        for node in run.nodes:
            if node.resource_type in TEST_TYPES and node.status in (*_PASSED, *_FAILED):
                tests[node.unique_id].append(node)
    found = []
    for nodes in tests.values():
        failed = [node.status in _FAILED for node in nodes]
        if sum(before != after for before, after in pairwise(failed)) > 1:
            found.append(Flaky(nodes[-1], sum(failed), len(failed) - sum(failed)))
    return sorted(found, key=lambda test: (-min(test.failed, test.passed), test.node.name))


def blocks(values: Sequence[float]) -> str:
    """A line of block characters, one per value; the tallest is the greatest value."""
    top = max(values, default=0) or 1
    last = len(_BLOCKS) - 1
    return "".join(_BLOCKS[round(value / top * last)] for value in values)


def _figures(run: Run, figure: str) -> dict[str, tuple[NodeRun, float]]:
    """A figure of the nodes that ran to their end, by unique id.

    A repeated node is left out: it may have found its work done already, and has run beside fewer others.
    """
    return {
        node.unique_id: (node, getattr(node, figure))
        for node in run.nodes
        if node.status in RAN and node.try_number == 1 and getattr(node, figure) is not None
    }
