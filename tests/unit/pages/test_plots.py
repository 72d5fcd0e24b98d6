"""What the plots show of the figures, and how figures are told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from orrery.config.pipeline import Pipeline
from orrery.execute.history import Usual
from orrery.execute.node_runs import NodeRun
from orrery.pages import plots, words
from orrery.pages.metadata import Run
from orrery.pages.product import Product, by_run

BEGAN = datetime(2026, 1, 31, 6, tzinfo=UTC)


def run(number: int, seconds: float | None = 10, state: str = "success") -> Run:
    began = BEGAN + timedelta(hours=number)
    return Run(
        f"r{number}", state, began, began, None if seconds is None else began + timedelta(seconds=seconds)
    )


def node(number: int, uid: str, status: str = "success", **more: object) -> NodeRun:
    began = BEGAN + timedelta(hours=number)
    values = {"seconds": 1.0, "started_at": began, "ended_at": began + timedelta(seconds=1), **more}
    return NodeRun("shop", f"r{number}", uid, uid.split(".", maxsplit=1)[0], status, **values)  # type: ignore[arg-type]


def product(runs: int, *nodes: NodeRun) -> Product:
    return Product(
        "shop", None, tuple(run(number) for number in range(runs)), nodes=by_run(nodes).get("shop", {})
    )


def test_bars_stand_on_the_base_line_and_the_newest_is_on_the_right() -> None:
    usual = Usual(10, 0, 5)
    plot = plots.duration_bars([run(0, 10), run(1, 40, "failed"), run(2, 0)], 120, 100, most=20, usual=usual)
    assert [bar.kind for bar in plot.bars] == ["good", "bad", "good"]
    assert [round(bar.y + bar.height, 1) for bar in plot.bars] == [100, 100, 100]
    assert [bar.height for bar in plot.bars] == [25, 100, 2]
    assert [bar.x for bar in plot.bars] == [90, 100, 110]
    assert plot.usual == (75.0, "10 s")
    assert "failed · 40 s · 2026-01-31 07:00:00 UTC" in plot.bars[1].title
    assert plots.duration_bars([], 120, 100, most=20).bars == ()


def test_how_long_runs_take_is_told_by_enough_runs_like_the_last_one() -> None:
    def usual(*runs: Run) -> Usual | None:
        return Product("shop", None, runs).usual_seconds

    plain, last = [run(number, 10) for number in range(5)], run(9, 99)
    part, failed = replace(run(6, 1), choices="select: a"), run(7, 1, "failed")
    assert usual(*plain, part, failed, last) == Usual(10, 0, 5)
    assert usual(*plain[1:], part, failed, last) is None
    assert usual(*plain, part) is None
    assert usual() is None


def test_a_run_that_has_not_begun_has_a_bar_too() -> None:
    waiting = Run("q", "queued", BEGAN, None, None)
    (bar,) = plots.duration_bars([waiting], 100, 50, most=20).bars
    assert (bar.kind, bar.height) == ("busy", 2)


@pytest.mark.parametrize("top", [0.003, 0.9, 1, 7, 59, 60, 61, 250, 3599, 3601, 86400, 1e6])
def test_ticks_reach_to_the_top_in_few_steps(top: float) -> None:
    ticks = plots.nice_ticks(top)
    assert ticks[0] == 0
    assert top <= ticks[-1] < top * 2.6
    assert len(ticks) <= 6


def test_rows_over_the_runs() -> None:
    rows = (100, 100, 100, 100, 100, 250)
    nodes = [
        *(node(number, "model.p.big", rows_affected=rows) for number, rows in enumerate(rows)),
        *(node(number, "model.p.new", rows_affected=7 + number) for number in (4, 5)),
        *(node(number, "model.p.gone", rows_affected=3 + number) for number in range(5)),
        node(1, "model.p.big_failed", "error", rows_affected=7),
        node(2, "model.p.view"),
    ]
    big, new, gone = plots.row_trends(product(6, *nodes), 200, 40)
    assert [(x, y) for x, y, _ in big.points] == [(x, 40) for x in (0, 40, 80, 120, 160)] + [(200, 0)]
    assert (big.node.rows_affected, big.change) == (250, "+150%")
    # There are not enough runs; it was not in the last one.
    assert [(trend.node.name, trend.change) for trend in (new, gone)] == [("new", ""), ("gone", "")]


def test_tests_that_fail_now_stand_on_top() -> None:
    nodes = [
        *(node(number, "test.p.fine.1", "pass") for number in range(3)),
        *(node(number, "test.p.once.1", status) for number, status in enumerate(("fail", "pass", "pass"))),
        *(node(number, "test.p.now.1", status, failures=2) for number, status in ((0, "pass"), (2, "fail"))),
        *(node(number, "test.p.maybe.1", status) for number, status in enumerate(("pass", "pass", "warn"))),
    ]
    grid = plots.result_grid(product(5, *nodes))
    assert [row.node.name for row in grid.rows] == ["now", "maybe", "once", "fine"]
    assert [cell.kind for cell in grid.rows[0].cells] == ["good", "none", "bad"]
    assert "fail · 2 failing rows" in grid.rows[0].cells[2].title
    many = plots.result_grid(product(1, *(node(0, f"test.p.t{n}.1", "pass") for n in range(45))))
    assert (len(many.rows), many.left_out) == (30, 15)


def test_slowest_nodes_with_what_is_usual() -> None:
    nodes = [
        *(node(number, "model.p.slow", seconds=float(number + 1)) for number in range(6)),
        node(5, "model.p.new", seconds=3),
    ]
    slow, new = plots.slowest(product(6, *nodes))
    assert (slow.node.name, slow.part, slow.before) == ("slow", 1.0, 3.0)
    assert (new.part, new.before) == (0.5, None)
    assert plots.slowest(product(0)) == []


def test_health_is_that_of_the_worst() -> None:
    assert product(0).health == "off"
    assert product(1).health == "good"
    assert product(1, node(0, "source.p.a.b", "warn")).health == "warn"
    assert product(2, node(0, "test.p.t.1", "fail")).health == "bad"
    assert product(2, node(0, "test.p.t.1", "fail"), node(1, "test.p.t.1", "pass")).health == "good"
    ended_badly = Product("shop", None, (run(0, 1, "failed"), run(1, None, "running")))
    assert ended_badly.health == "bad"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (None, words.NOTHING),
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (200, "3 min 20 s"),
        (7505, "2 h 5 min"),
        (90000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float | None, told: str) -> None:
    assert words.duration(seconds) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (3, "just now"),
        (59, "just now"),
        (61, "1 min ago"),
        (7300, "2 h ago"),
        (200_000, "2 d ago"),
        (-120, "in 2 min"),
    ],
)
def test_times(seconds: float, told: str) -> None:
    assert words.ago(BEGAN, BEGAN + timedelta(seconds=seconds)) == told


@pytest.mark.parametrize(
    ("schedule", "told"),
    [
        ("@daily", "@daily"),
        (None, "no schedule"),
        ({"after": ["a", "b"]}, "after a and b"),
        ({"after": ["a", "b"], "when": "any"}, "after a or b"),
        ({"on": "files"}, "when files arrive"),
    ],
)
def test_schedules(schedule: object, told: str) -> None:
    assert words.schedule(Pipeline.model_validate({"select": "a", "schedule": schedule})) == told


def test_counts() -> None:
    assert [words.count(each) for each in (None, 0, 48211, 1_234_567, 5e9)] == [
        words.NOTHING,
        "0",
        "48,211",
        "1.23 M",
        "5 G",
    ]
