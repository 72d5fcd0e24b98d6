"""The geometry of the plots; the templates draw it. All lengths are in the units of the plot's view box."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from orrery.config.resources import TEST_TYPES
from orrery.execute import history
from orrery.execute.node_runs import NodeRun
from orrery.pages.metadata import Run
from orrery.pages.product import Product
from orrery.pages.words import count, duration, kind, moment

# A seldom run is no reason for a bar as wide as a page.
_FEWEST_BARS = 12
_MOST_TESTS = 30
_MOST_MODELS = 12


@dataclass(frozen=True)
class Bar:
    """A bar that stands on the base line, and the run that it leads to."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str
    run_id: str


@dataclass(frozen=True)
class Bars:
    """One bar for each run, ticks (height and label), and what is usual (likewise), where that is known."""

    width: float
    height: float
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...] = ()
    usual: tuple[float, str] | None = None


def duration_bars(
    runs: Sequence[Run], width: float, height: float, *, most: int, usual: history.Usual | None = None
) -> Bars:
    """How long the runs took; a bar at its least is two units high, so that each run is seen."""
    seconds = [run.seconds or 0.0 for run in runs]
    ticks = nice_ticks(max(seconds, default=0.0))
    top = ticks[-1] or 1.0
    step = width / max(min(most, max(len(runs), _FEWEST_BARS)), 1)
    bars = []
    for index, (run, value) in enumerate(zip(runs, seconds, strict=True)):
        tall = max(value / top * height, 2.0)
        title = f"{run.state} · {duration(run.seconds)} · {moment(run.started_at or run.run_after)}"
        x = width - (len(runs) - index) * step
        bars.append(
            Bar(
                round(x, 1),
                round(height - tall, 1),
                round(step * 0.76, 1),
                round(tall, 1),
                kind(run.state),
                title,
                run.run_id,
            )
        )
    return Bars(
        width,
        height,
        tuple(bars),
        tuple((round(height - tick / top * height, 1), duration(tick) if tick else "0") for tick in ticks),
        (round(height - usual.median / top * height, 1), duration(usual.median)) if usual else None,
    )


def nice_ticks(top: float, intervals: int = 4) -> list[float]:
    """From zero to at least `top`, in steps that people count in; at most so many steps."""
    if top <= 0:
        return [0.0, 1.0]
    rough = top / intervals
    steps = [
        *(base * 10.0**power for power in range(-3, 2) for base in (1, 2, 5) if base * 10.0**power <= 10),
        *(15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600, 7200, 10800, 21600, 43200),
    ]
    step = next((each for each in steps if each >= rough), math.ceil(rough / 86400) * 86400.0)
    return [number * step for number in range(math.ceil(top / step - 1e-9) + 1)]


@dataclass(frozen=True)
class Trend:
    """The rows of a model over the runs.

    `points` go from left to right; `change` says by how much the rows of the last run differ from usual.
    """

    node: NodeRun
    width: float
    height: float
    points: tuple[tuple[float, float, str], ...]
    change: str

    @property
    def line(self) -> str:
        """The points of a polyline."""
        return " ".join(f"{x},{y}" for x, y, _ in self.points)


def row_trends(product: Product, width: float, height: float) -> list[Trend]:
    """One trend for each seed, snapshot and model that reports rows, those with the most rows first."""
    runs = product.history
    changes = {change.node.unique_id: change for change in history.changes(runs, "rows_affected")}
    found: dict[str, list[tuple[int, NodeRun, int]]] = defaultdict(list)
    for index, run in enumerate(runs):
        for node in run.nodes:
            # Tests affect no rows.
            if node.status in history.RAN and node.rows_affected is not None:
                found[node.unique_id].append((index, node, node.rows_affected))
    trends = [
        _trend(values, len(runs), width, height, _percent(changes.get(uid))) for uid, values in found.items()
    ]
    trends.sort(key=lambda trend: (-(trend.node.rows_affected or 0), trend.node.name))
    return trends[:_MOST_MODELS]


def _percent(change: history.Change | None) -> str:
    before = change.usual.median if change else 0
    return f"{(change.now - before) / before:+.0%}" if change and before and change.now != before else ""


def _trend(
    values: list[tuple[int, NodeRun, int]], runs: int, width: float, height: float, change: str
) -> Trend:
    rows = [value for _, _, value in values]
    low, high = min(rows), max(rows)
    points = tuple(
        (
            round(index / max(runs - 1, 1) * width, 1) if runs > 1 else width / 2,
            round(height / 2 if high == low else height - (value - low) / (high - low) * height, 1),
            f"{count(value)} rows · {moment(node.started_at)}",
        )
        for index, node, value in values
    )
    return Trend(values[-1][1], width, height, points, change)


@dataclass(frozen=True)
class Cell:
    """What a test said in a run; `kind` as in orrery.pages.words, `none` where it did not run."""

    kind: str
    title: str


@dataclass(frozen=True)
class ResultRow:
    """A test with one cell for each run."""

    node: NodeRun
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ResultGrid:
    """The tests over the runs, those that fail now first, then those that have failed most."""

    runs: tuple[Run, ...]
    rows: tuple[ResultRow, ...]
    left_out: int


def result_grid(product: Product) -> ResultGrid:
    """A row for each test and a column for each run that had tests."""
    tests: dict[str, dict[str, NodeRun]] = defaultdict(dict)
    for run_id, nodes in product.nodes.items():
        for node in nodes:
            if node.resource_type in TEST_TYPES:
                tests[node.unique_id][run_id] = node
    runs = tuple(run for run in product.runs if any(run.run_id in those for those in tests.values()))
    rows = []
    for results in tests.values():
        last = next(results[run.run_id] for run in reversed(runs) if run.run_id in results)
        rows.append(
            (
                _badness(results, runs),
                ResultRow(last, tuple(_cell(results.get(run.run_id), run) for run in runs)),
            )
        )
    rows.sort(key=lambda row: (*row[0], row[1].node.name))
    return ResultGrid(runs, tuple(row for _, row in rows[:_MOST_TESTS]), max(len(rows) - _MOST_TESTS, 0))


# Sorts; the least comes first.
def _badness(results: dict[str, NodeRun], runs: Sequence[Run]) -> tuple[int, int, int]:
    now = kind(results[runs[-1].run_id].status) if runs[-1].run_id in results else "off"
    kinds = [kind(node.status) for node in results.values()]
    return {"bad": 0, "warn": 1}.get(now, 2), -kinds.count("bad"), -kinds.count("warn")


def _cell(node: NodeRun | None, run: Run) -> Cell:
    if node is None:
        return Cell("none", f"did not run · {moment(run.run_after)}")
    rows = f" · {count(node.failures)} failing rows" if node.failures else ""
    return Cell(kind(node.status), f"{node.status}{rows} · {moment(node.started_at or run.run_after)}")


@dataclass(frozen=True)
class Slow:
    """A node, its part of the slowest one (0 to 1), and how many seconds are usual, where that is known."""

    node: NodeRun
    part: float
    before: float | None


def slowest(product: Product, most: int = 8) -> list[Slow]:
    """The nodes that took longest in the last run in which any began."""
    runs = product.history
    if not runs:
        return []
    usual = history.usual_figures(runs, "seconds")
    shares = history.slowest(runs[-1], most)
    top = max((share.node.seconds for share in shares), default=0.0) or 1.0
    return [
        Slow(share.node, share.node.seconds / top, found.median if found else None)
        for share in shares
        for found in (usual.get(share.node.unique_id),)
    ]
