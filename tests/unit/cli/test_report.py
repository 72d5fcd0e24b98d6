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
        ([2.0, 100.0, 2.0], 4.0, 2.0),
        ([2.0, 100.0, 2.0], 3.9, None),
        ([0.2], 1.2, 0.2),
        ([0.2], 1.1, None),
        ([1.0, 3.0], 4.0, 2.0),
        ([], 100.0, None),
    ],
)
def test_a_regression_is_twice_the_median_and_a_second(
    earlier: list[float], now: float, before: float | None
) -> None:
    found = history.regressions(runs(*([node("a", seconds)] for seconds in [*earlier, now])))
    expected = [] if before is None else [("a", now, before, len(earlier))]
    assert [(change.node.name, change.now, change.before, change.runs) for change in found] == expected


def test_what_failed_is_compared_with_nothing() -> None:
    slow_failure = node("a", 100.0, status="error", rows_affected=7)
    assert history.regressions(runs([node("a")], [slow_failure])) == []
    assert history.regressions(runs([node("a", 0.01, status="error")], [node("a", 100.0)])) == []
    assert history.row_changes(runs([node("a", rows_affected=1)], [slow_failure])) == []


def test_the_worst_regression_comes_first_and_older_runs_show_none() -> None:
    found = history.regressions(
        runs(
            [node("a"), node("b"), node("gone", 9.0)],
            [node("a"), node("b"), node("old", 90.0)],
            [node("b", 9.0), node("a", 3.0)],
        )
    )
    assert [change.node.name for change in found] == ["b", "a"]


@pytest.mark.parametrize(
    ("earlier", "now", "told"),
    [
        ([10, 10], 20, True),
        ([10, 10], 19, False),
        ([10, 10], 5, True),
        ([10, 10], 6, False),
        ([10, 10], 0, True),
        ([0], 1, True),
        ([0], 0, False),
        ([None], 10, False),
        ([10], None, False),
    ],
)
def test_half_or_twice_the_rows_is_a_change(earlier: list[int | None], now: int | None, told: bool) -> None:
    found = history.row_changes(runs(*([node("a", rows_affected=rows)] for rows in [*earlier, now])))
    assert [change.now for change in found] == ([now] if told else [])


def test_a_flaky_test_fails_in_some_runs_and_passes_in_others() -> None:
    def result(name: str, status: str) -> NodeRun:
        return node(f"{name}.0a1b2c", kind="test", status=status)

    found = history.flaky(
        runs(
            [result("steady", "pass"), result("flaky", "pass"), result("warns", "pass")],
            [result("broken", "fail"), result("flaky", "fail"), result("warns", "warn")],
            [result("broken", "error"), result("flaky", "skipped"), node("model", status="error")],
            [result("broken", "fail"), result("flaky", "pass"), node("model")],
        )
    )
    assert [(test.node.name, test.failed, test.passed) for test in found] == [("flaky", 1, 2)]


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
    assert printed(quick, quick, slow) == [
        "shop: last run r2, started 2026-02-02 06:00:00 UTC",
        "dbt's time: ▃▃█ 4.0 s; median of the 2 runs before: 1.0 s",
        "",
        "Slowest nodes of the last run",
        "node type status seconds share rows",
        "a model success 4.0 80% 2,500",
        "t test fail 1.0 20%",
        "",
        "Slower than before",
        "node type seconds median before runs before",
        "a model 4.0 1.0 2",
        "",
        "More or fewer rows than before",
        "node type rows median before runs before",
        "a model 2,500 1,000 2",
        "",
        "Flaky tests of the last 3 runs",
        "test last failed passed",
        "t fail 1 2",
    ]


def test_the_report_says_what_it_has_not_found() -> None:
    same = printed([node("a")], [node("a")])
    assert same[1] == "dbt's time: ██ 1.0 s; the run before: 1.0 s"
    assert same[-1] == "No slower node, no change of row counts, no flaky test."
    assert printed([node("a")])[-1] == "There is no earlier run to compare it with."


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
