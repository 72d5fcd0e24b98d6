"""`orrery report`: what the last runs of a pipeline say, from the run ledger."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC

import click
import psycopg2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orrery.cli.session import new_console
from orrery.config.errors import OrreryError
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.execute import history
from orrery.execute.node_runs import TABLE, NodeRun, none_on, recent
from orrery.local import Stack
from orrery.manifest.profile import read_profile

MOST_RUNS = 1000


@click.command()
@click.argument("pipeline")
@click.option(
    "--runs",
    "count",
    type=click.IntRange(1, MOST_RUNS),
    default=20,
    show_default=True,
    help="How many of the last runs to look at.",
)
@click.option("--target", help="dbt's target of the runs; by default that of the profile.")
def report(pipeline: str, count: int, target: str | None) -> None:
    """Show what is slow, what has changed and what is flaky in the last runs of PIPELINE."""
    console, project = new_console(), Project.find()
    pipeline = load_pipelines(project).get(pipeline).name
    profile = read_profile(project, target)
    target = profile.target
    # Of a target that is not in the profile any more, runs may still be kept.
    if profile.adapter and (reason := none_on(profile.adapter)):
        raise OrreryError(reason)
    runs = history.runs_of(_read(Stack(project.root).warehouse_dsn("transformer"), pipeline, target, count))
    if runs:
        show_report(pipeline, runs, console)
    else:
        console.print(
            f"{pipeline}: no run with dbt's target {escape(target)} is kept yet.\n  ./orrery run {pipeline}",
            highlight=False,
        )


def show_report(pipeline: str, runs: Sequence[history.Run], console: Console) -> None:
    """Print the report.

    :param runs: the last runs, oldest first, at least one
    """
    last = runs[-1]
    started = last.started_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    console.print(f"{pipeline}: last run {escape(last.run_id)}, started {started}", highlight=False)
    if last.choices:
        console.print(f"made with {escape(last.choices)}", highlight=False)
    alike = [run.seconds for run in history.earlier(runs) if run.whole]
    trend = f"{history.blocks([*alike, last.seconds])}  {last.seconds:.1f} s"
    if usual := history.usual_seconds(runs):
        trend += f"; median of the {usual.runs} runs before: {usual.median:.1f} s"
    console.print(f"dbt's time: {trend}", highlight=False)
    _print(console, "Slowest nodes of the last run", _slowest(last))
    slower, rows, flaky = history.regressions(runs), history.row_changes(runs), history.flaky(runs)
    if slower:
        _print(console, "Slower than before", _changes(slower, "seconds", "{:,.1f}"))
    if rows:
        _print(console, "More or fewer rows than before", _changes(rows, "rows", "{:,.0f}"))
    if flaky:
        _print(console, f"Flaky tests of the last {len(runs)} runs", _flaky(flaky))
    if note := _not_found(runs, slower, rows, flaky):
        console.print(f"\n{note}", highlight=False, soft_wrap=True)


def _not_found(
    runs: Sequence[history.Run],
    slower: Sequence[history.Change],
    rows: Sequence[history.Change],
    flaky: Sequence[history.Flaky],
) -> str:
    """What has not been found, or why there was nothing to look at."""
    alike = len(history.earlier(runs))
    if alike < history.FEWEST:
        those = "There is 1 such run" if alike == 1 else f"There are {alike or 'no'} such runs"
        return (
            f"Seconds and rows are compared with those of earlier runs with the same choices, from "
            f"{history.FEWEST} on. {those} among the last {len(runs)}."
        )
    found = {"slower node": slower, "change of row counts": rows, "flaky test": flaky}
    missing = [f"no {name}" for name, those in found.items() if not those]
    return f"{', '.join(missing).capitalize()}." if missing else ""


def _read(dsn: str, pipeline: str, target: str, count: int) -> list[NodeRun]:
    """The nodes of the last runs; raises OrreryError when the warehouse does not answer."""
    try:
        with closing(psycopg2.connect(dsn, connect_timeout=10)) as link, link.cursor() as cursor:
            cursor.execute(*recent(pipeline, target, count))
            return [NodeRun(*row) for row in cursor.fetchall()]
    except (
        psycopg2.errors.UndefinedTable,
        psycopg2.errors.InvalidSchemaName,
        # The next run adds to an older table what it lacks.
        psycopg2.errors.UndefinedColumn,
    ):
        return []
    except psycopg2.errors.InsufficientPrivilege as error:
        raise OrreryError(
            f"{TABLE}: dbt's role may not read it: {error.diag.message_primary}.\n"
            f"  grant select, insert, update on {TABLE} to transformer, and usage on its schema."
        ) from None
    except psycopg2.OperationalError:
        # Its text is libpq's, which names the address only, and of a local server nobody needs that.
        raise OrreryError("The warehouse does not answer.\n  Start it with ./orrery up") from None


def _slowest(run: history.Run) -> Table:
    table = _table("node", "type", "status", ">seconds", ">share", ">rows")
    for entry in history.slowest(run):
        node = entry.node
        rows = "" if node.rows_affected is None else f"{node.rows_affected:,}"
        table.add_row(
            escape(node.name),
            node.resource_type,
            node.status,
            f"{node.seconds:.1f}",
            f"{entry.share:.0%}",
            rows,
        )
    return table


def _changes(changes: Sequence[history.Change], what: str, figure: str) -> Table:
    table = _table("node", "type", f">{what}", ">median before", ">runs before")
    for change in changes:
        now, before = figure.format(change.now), figure.format(change.usual.median)
        node = change.node
        table.add_row(escape(node.name), node.resource_type, now, before, str(change.usual.runs))
    return table


def _flaky(tests: Sequence[history.Flaky]) -> Table:
    table = _table("test", "last", ">failed", ">passed")
    for test in tests:
        table.add_row(escape(test.node.name), test.node.status, str(test.failed), str(test.passed))
    return table


def _table(*columns: str) -> Table:
    """An empty table; numbers stand on the right, under names that begin with `>`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(
            name.removeprefix(">"), justify="right" if name.startswith(">") else "left", overflow="fold"
        )
    return table


def _print(console: Console, title: str, table: Table) -> None:
    console.print(f"\n[bold]{title}[/]", highlight=False)
    console.print(table)
