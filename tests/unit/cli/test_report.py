"""What `orrery report` makes of the results of the last runs."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from orrery.cli import report
from orrery.cli.__main__ import main
from orrery.config.project import Project
from orrery.execute import history
from orrery.execute.history import Run, runs_of
from orrery.execute.node_runs import NodeRun

BEGAN = datetime(2026, 1, 31, 6, tzinfo=UTC)


def node(name: str, seconds: float = 1.0, kind: str = "model", **more: Any) -> NodeRun:
    """A node that began at BEGAN; tests pass unless told otherwise."""
    status = "pass" if kind == "test" else "success"
    values = {"status": status, "started_at": BEGAN, "ended_at": BEGAN + timedelta(seconds=seconds)}
    return NodeRun("shop", "r", f"{kind}.shop.{name}", kind, **{"seconds": seconds, **values, **more})


def runs(*nodes: list[NodeRun]) -> list[Run]:
    """Runs, a day apart, of these nodes, which began at the same time."""
    return runs_of(
        replace(
            each,
            run_id=f"r{day}",
            started_at=each.started_at and each.started_at + timedelta(days=day),
            ended_at=each.ended_at and each.ended_at + timedelta(days=day),
        )
        for day, members in enumerate(nodes)
        for each in members
    )


def skipped(name: str) -> NodeRun:
    return node(name, 0.0, status="skipped", started_at=None, ended_at=None)


def test_runs_are_ordered_by_their_start_and_a_run_in_which_nothing_began_is_none() -> None:
    first, second, nothing = runs([node("a")], [node("a")], [node("a")])
    rows = [*second.nodes, *first.nodes, replace(skipped("a"), run_id=nothing.run_id)]
    assert [run.run_id for run in runs_of(rows)] == ["r0", "r1"]


def test_the_time_of_a_run_is_that_of_dbts_commands() -> None:
    later = BEGAN + timedelta(seconds=3)
    cleared = BEGAN + timedelta(days=5)
    (run,) = runs_of(
        [
            node("a", 2.0, invocation_id="1"),
            node("b", started_at=later, ended_at=later + timedelta(seconds=1), invocation_id="1"),
            node("c", started_at=cleared, ended_at=cleared + timedelta(seconds=7), invocation_id="2"),
            skipped("d"),
        ]
    )
    assert run.seconds == 4 + 7


def test_the_slowest_nodes_with_their_shares() -> None:
    (run,) = runs([node("a", 1.0), node("b", 6.0), node("c", 3.0), skipped("d")])
    found = [(entry.node.name, round(entry.share, 6)) for entry in history.slowest(run, most=2)]
    assert found == [("b", 0.6), ("c", 0.3)]
    assert history.slowest(runs([node("a", 0.0)])[0]) == []


@pytest.mark.parametrize(
    ("earlier", "now", "before"),
    [
        ([2.0, 2.0, 100.0, 2.0, 2.0], 4.0, 2.0),
        ([2.0, 2.0, 100.0, 2.0, 2.0], 3.9, None),
        ([0.2] * 5, 1.2, 0.2),
        ([0.2] * 5, 1.1, None),
        # It was slow before, too: a slower node is told of until that is usual.
        ([1.0, 1.0, 1.0, 9.0, 9.0], 9.0, 1.0),
        ([1.0, 1.0, 9.0, 9.0, 9.0], 9.0, None),
        # Twice the median is nothing where seconds vary that much.
        ([1.0, 3.0, 5.0, 7.0, 9.0], 12.0, None),
        ([1.0, 3.0, 5.0, 7.0, 9.0], 16.0, 5.0),
    ],
)
def test_a_regression_is_twice_the_median_a_second_and_out_of_the_ordinary(
    earlier: list[float], now: float, before: float | None
) -> None:
    found = history.regressions(runs(*([node("a", seconds)] for seconds in [*earlier, now])))
    expected = [] if before is None else [("a", now, before, len(earlier))]
    assert [(c.node.name, c.now, c.usual.median, c.usual.runs) for c in found] == expected


@pytest.mark.parametrize("before", range(history.FEWEST + 1))
def test_nothing_is_usual_before_there_are_enough_runs(before: int) -> None:
    quick, slow = [node("a", 1.0, rows_affected=2500)], [node("a", 9.0, rows_affected=26)]
    those = runs(*[quick] * before, slow)
    told = before == history.FEWEST
    assert bool(history.regressions(those)) is told
    assert bool(history.row_changes(those)) is told
    assert bool(history.usual_seconds(those)) is told


@pytest.mark.parametrize(
    "choices", ["full_refresh: yes", "select: a", "vars: day (0123abcd)", "skip_stages: tests"]
)
def test_runs_are_compared_with_those_of_the_same_choices_only(choices: str) -> None:
    plain, other = [node("a", 1.0, rows_affected=26)], [node("a", 9.0, rows_affected=2500, choices=choices)]
    for those in (runs(*[plain] * 9, other), runs(*[other] * 9, plain)):
        assert history.regressions(those) == history.row_changes(those) == []
        assert history.usual_seconds(those) is None
    (change,) = history.row_changes(runs(*[plain, other] * 5, other, [node("a", rows_affected=1)]))
    assert (change.usual.median, change.usual.runs) == (26, 5)
    assert history.regressions(runs(*[plain, other] * 5, other)) == []


def test_an_incremental_model_is_compared_with_what_it_usually_changes() -> None:
    first, later = [node("a", rows_affected=2500)], [node("a", rows_affected=26)]
    assert history.row_changes(runs(first, *[later] * 5)) == []


def test_what_failed_or_was_repeated_is_compared_with_nothing() -> None:
    fine = [node("a", rows_affected=1000)]
    for odd in ({"status": "error"}, {"try_number": 2}):
        worse = [node("a", 100.0, rows_affected=7, **odd)]
        for those in (runs(*[fine] * 9, worse), runs(*[worse] * 9, fine), runs(*[fine] * 4, worse, worse)):
            assert history.regressions(those) == history.row_changes(those) == []
        assert history.usual_seconds(runs(*[fine] * 4, worse, fine)) is None


def test_how_long_a_run_takes_is_told_by_runs_in_which_all_nodes_ran() -> None:
    fine, stale = node("a"), node("s", kind="source", status="error")
    for nodes, counts in (
        ([fine, stale], True),
        ([fine, node("t.0f", kind="test", status="fail")], True),
        ([fine, node("t.0f", kind="test", status="error")], False),
        ([fine, skipped("b")], False),
    ):
        assert bool(history.usual_seconds(runs(*[nodes] * 5, [fine]))) is counts, nodes


def test_the_worst_regression_comes_first_and_older_runs_show_none() -> None:
    found = history.regressions(
        runs(
            *[[node("a"), node("b"), node("gone", 9.0)]] * 5,
            [node("a"), node("b"), node("old", 90.0)],
            [node("b", 9.0), node("a", 3.0)],
        )
    )
    assert [change.node.name for change in found] == ["b", "a"]


@pytest.mark.parametrize(
    ("earlier", "now", "told"),
    [
        ([10], 20, True),
        ([10], 19, False),
        ([10], 5, True),
        ([10], 6, False),
        ([10], 0, True),
        ([0], 1, True),
        ([0], 0, False),
        ([None], 10, False),
        ([10], None, False),
        ([26, 3, 100, 40, 10], 60, False),
        ([26, 3, 100, 40, 10], 0, False),
        ([26, 3, 100, 40, 10], 200, True),
        ([1990, 2010, 2000, 2020, 1980], 0, True),
    ],
)
def test_half_or_twice_the_rows_is_a_change_where_rows_do_not_vary_as_much(
    earlier: list[int | None], now: int | None, told: bool
) -> None:
    before = earlier * 5 if len(earlier) == 1 else earlier
    found = history.row_changes(runs(*([node("a", rows_affected=rows)] for rows in [*before, now])))
    assert [change.now for change in found] == ([now] if told else [])


@pytest.mark.parametrize(
    ("told", "flaky"),
    [
        ("pass fail pass", (1, 2)),
        ("fail pass fail", (2, 1)),
        ("pass error skipped pass", (1, 2)),
        ("warn fail warn fail", (2, 2)),
        # It has broken; it was fixed; it warns.
        ("pass pass fail", None),
        ("fail fail pass", None),
        ("pass warn pass", None),
        ("pass skipped pass", None),
    ],
)
def test_a_flaky_test_changes_its_mind_and_changes_it_again(told: str, flaky: tuple[int, int] | None) -> None:
    tests = [[node("t.0a1b2c", kind="test", status=status), node("model")] for status in told.split()]
    found = [(test.node.name, test.failed, test.passed) for test in history.flaky(runs(*tests))]
    assert found == ([("t", *flaky)] if flaky else [])


def test_blocks() -> None:
    assert history.blocks([0, 1, 7, 3.5]) == "▁▂█▅"
    assert history.blocks([0, 0]) == "▁▁"
    assert history.blocks([]) == ""


def printed(*nodes: list[NodeRun]) -> list[str]:
    """The lines of a report, with single spaces."""
    console = Console(file=io.StringIO(), width=140)
    report.show_report("shop", runs(*nodes), console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_report() -> None:
    quick = [node("a", 1.0, rows_affected=1000), node("t.0f", 0.5, "test")]
    slow = [node("a", 4.0, rows_affected=2500), node("t.0f", 1.0, "test", status="fail")]
    red = [node("a", 1.0, rows_affected=1000), node("t.0f", 0.5, "test", status="fail")]
    part = [node("a", 0.1, rows_affected=1, choices="select: a")]
    assert printed(quick, quick, red, part, quick, quick, slow) == [
        "shop: last run r6, started 2026-02-06 06:00:00 UTC",
        "dbt's time: ▃▃▃▃▃█ 4.0 s; median of the 5 runs before: 1.0 s",
        "",
        "Slowest nodes of the last run",
        "node type status seconds share rows",
        "a model success 4.0 80% 2,500",
        "t test fail 1.0 20%",
        "",
        "Slower than before",
        "node type seconds median before runs before",
        "a model 4.0 1.0 5",
        "",
        "More or fewer rows than before",
        "node type rows median before runs before",
        "a model 2,500 1,000 5",
        "",
        "Flaky tests of the last 7 runs",
        "test last failed passed",
        "t fail 2 4",
    ]


def test_the_report_says_what_it_has_not_found() -> None:
    same = printed(*[[node("a")]] * 6)
    assert same[1] == "dbt's time: ██████ 1.0 s; median of the 5 runs before: 1.0 s"
    assert same[-1] == "No slower node, no change of row counts, no flaky test."


@pytest.mark.parametrize(
    ("before", "told"),
    [(0, "There are no such runs"), (1, "There is 1 such run"), (4, "There are 4 such runs")],
)
def test_the_report_says_that_it_compares_nothing_yet(before: int, told: str) -> None:
    lines = printed(*[[node("a")]] * before, [node("b", choices="select: b")], [node("a", 9.0)])
    assert lines[1] == f"dbt's time: {'▂' * before}█ 9.0 s"
    assert lines[-1] == (
        "Seconds and rows are compared with those of earlier runs with the same choices, from 5 on. "
        f"{told} among the last {before + 2}."
    )
    assert "Slower than before" not in lines


def test_the_report_says_with_which_choices_the_last_run_was_made() -> None:
    lines = printed(*[[node("a")]] * 9, [node("a", choices="select: [red], full_refresh: yes")])
    assert lines[1] == "made with select: [red], full_refresh: yes"
    assert "There are no such runs among the last 10." in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "target"), [((), "dev"), (("--target", "prod"), "prod")], ids=["of the profile", "chosen"]
)
def test_a_pipeline_without_runs(
    shop: Project, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], target: str
) -> None:
    (shop.dbt_dir / "pipelines" / "broken.yml").unlink()
    monkeypatch.setattr(report.Stack, "warehouse_dsn", lambda stack, role: role)
    monkeypatch.setattr(report, "_read", lambda *asked: read.append(asked) or [])
    read: list[Any] = []
    done = CliRunner().invoke(main, ["report", "shop", *arguments])
    assert done.exit_code == 0, done.output
    assert f"shop: no run with dbt's target {target} is kept yet.\n  ./orrery run shop" in done.output
    assert read == [("transformer", "shop", target, 20)]


@pytest.mark.parametrize("arguments", [(), ("--target", "cloud")], ids=["of the profile", "chosen"])
def test_a_warehouse_without_a_ledger(
    shop: Project, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    (shop.dbt_dir / "pipelines" / "broken.yml").unlink()
    profiles = shop.dbt_dir / "profiles.yml"
    profiles.write_text(profiles.read_text() + "    cloud: {type: bigquery}\n")
    if not arguments:
        monkeypatch.setenv("DBT_TARGET", "cloud")
    done = CliRunner().invoke(main, ["report", "shop", *arguments])
    assert str(done.exception) == "There is no run ledger on bigquery: it needs PostgreSQL."


def test_an_unknown_pipeline_and_a_stack_that_was_never_started(shop: Project) -> None:
    (shop.dbt_dir / "pipelines" / "broken.yml").unlink()
    assert "shop" in str(CliRunner().invoke(main, ["report", "shp"]).exception)
    assert "run ./orrery up first" in str(CliRunner().invoke(main, ["report", "shop"]).exception)


def test_a_warehouse_that_does_not_answer() -> None:
    with pytest.raises(report.OrreryError, match=r"(?s)does not answer.*\./orrery up"):
        report._read("postgresql://transformer:secret@127.0.0.1:1/warehouse", "shop", "dev", 20)
