"""What a run did, as a table, and how to go on when it failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orrery.cli.airflow_api import AirflowApi, Json
from orrery.cli.follow import (
    NOT_RUN,
    full_label_of,
    is_mapped,
    is_marker,
    key_of,
    label_of,
    node_of,
    stage_of,
    styled,
)
from orrery.config.stages import PUBLISH
from orrery.execute.results import RESULT_KEY, read_summary

LOG_LINES = 20
# More lines than these, alike but for the name, become one.
MOST_ALIKE = 3
# Characters of a message that the table shows.
MOST_SHOWN = 120

_Results = dict[tuple[str, int], Json]


def show_summary(api: AirflowApi, run: Json, tasks: list[Json], console: Console) -> bool:
    """Print the outcome of a run that has ended; returns whether it succeeded."""
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    tasks = _by_stage([task for task in tasks if not is_marker(task)])
    with ThreadPoolExecutor(max_workers=4) as pool:
        ran = [task for task in tasks if task["state"] in ("success", "failed") or _has_skipped_itself(task)]
        values = pool.map(lambda task: read_summary(api.xcom(task, RESULT_KEY)), ran)
        results = {key_of(task): value for task, value in zip(ran, values, strict=True) if value}
    console.print(_table(tasks, results))
    for task in tasks:
        _show_long_warning(task, results.get(key_of(task), {}), console)
    failed = [task for task in tasks if task["state"] == "failed"]
    for task in failed:
        _show_failure(api, task, results.get(key_of(task)), console)
    # Airflow judges a run by its last tasks alone; that something is not published is no failure of it.
    bad = any(task["state"] == "failed" and stage_of(task) != PUBLISH for task in tasks)
    succeeded = run["state"] == "success" and not bad
    states = Counter(_state(task, results) for task in tasks)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    console.print(
        f"\n{dag_id}: {styled(run['state'])} in {run['duration'] or 0:.0f} s ({counts})", highlight=False
    )
    console.print(f"Graph: {api.run_url(dag_id, run_id)}", highlight=False, soft_wrap=True)
    if failed:
        console.print("After mending it, run the failed nodes and what waits for them:", highlight=False)
        console.print(f"  ./orrery retry {dag_id} --failed{api.options}", highlight=False, soft_wrap=True)
    return succeeded


def _by_stage(tasks: list[Json]) -> list[Json]:
    """The tasks stage by stage, each in the order of their starts; what did not start comes last."""

    def start(task: Json) -> str:
        return task["start_date"] or "9999"

    first = {stage_of(task): start(task) for task in sorted(tasks, key=start, reverse=True)}
    return sorted(tasks, key=lambda task: (first[stage_of(task)], stage_of(task), start(task)))


def _state(task: Json, results: _Results) -> str:
    # With `stale: warn`, a check that found its source too old has an error and is a success.
    warned = results.get(key_of(task), {}).get("status") in ("warn", "error")
    return "[yellow]warning[/]" if warned and task["state"] == "success" else styled(task["state"])


def _table(tasks: list[Json], results: _Results) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    table.add_column("node", overflow="fold")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    table.add_column("rows", justify="right")
    table.add_column("message", overflow="fold")
    for members in _folded(tasks, results):
        task, own = members[0], [results.get(key_of(member), {}) for member in members]
        seconds = sum(member["duration"] or 0 for member in members)
        rows = [result["rows_affected"] for result in own if result.get("rows_affected") is not None]
        table.add_row(
            stage_of(task),
            escape(_name(members)),
            _state(task, results),
            f"{seconds:.1f}" if task["duration"] else "",
            f"{sum(rows):,}" if rows else "",
            escape(_message(members, own[0])),
        )
    return table


def _name(members: list[Json]) -> str:
    first, count = members[0], len(members)
    if count == 1:
        return label_of(first)
    return f"{node_of(first)} ({count} instances)" if is_mapped(first) else f"({count} nodes)"


def _message(members: list[Json], result: Json) -> str:
    if len(members) > 1 and is_mapped(members[0]):
        return ""
    return _first_line(result.get("message") or _note(members[0]))


def _folded(tasks: list[Json], results: _Results) -> Iterable[list[Json]]:
    """The tasks, in lists of those that are told of in one line.

    Those are many of a stage that did not run for one reason, and the instances of a mapped task that did
    equally well.
    """
    same = Counter(_kind(task) for task in tasks)
    rows: dict[tuple[Any, ...], list[Json]] = {}
    for task in tasks:
        key: tuple[Any, ...] = key_of(task)
        if task["state"] in NOT_RUN and same[_kind(task)] > MOST_ALIKE:
            key = _kind(task)
        elif is_mapped(task) and task["state"] != "failed":
            key = (task["task_id"], _state(task, results))
        rows.setdefault(key, []).append(task)
    return rows.values()


def _kind(task: Json) -> tuple[str, str, str]:
    return stage_of(task), str(task["state"]), _note(task)


def _has_skipped_itself(task: Json) -> bool:
    """Whether a worker has begun with a task, and found nothing to do; its XCom may tell why."""
    return task["state"] == "skipped" and bool(task["start_date"]) and not _note(task)


def _note(task: Json) -> str:
    """Why a task did not run."""
    return str(task.get("note") or "") if task["state"] in NOT_RUN else ""


def _show_long_warning(task: Json, result: Json, console: Console) -> None:
    """Print a warning whose line in the table ends before it does."""
    message = str(result.get("message") or "")
    if result.get("status") == "warn" and task["state"] == "success" and len(message) > MOST_SHOWN:
        console.print(f"\n[yellow]{escape(full_label_of(task))} warns[/]", highlight=False)
        console.print(message, markup=False, highlight=False, soft_wrap=True)


def _show_failure(api: AirflowApi, task: Json, result: Json | None, console: Console) -> None:
    name = escape(full_label_of(task))
    console.print(f"\n[bold red]{name} failed[/]  {api.task_url(task)}", highlight=False, soft_wrap=True)
    message = result and result.get("message")
    if message:
        console.print(message, markup=False, highlight=False, soft_wrap=True)
        return
    for line in api.log_tail(task, LOG_LINES):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _first_line(text: str | None) -> str:
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    # What ends in a colon says nothing yet.
    count = 2 if lines and lines[0].endswith(":") else 1
    return " ".join(lines[:count])[:MOST_SHOWN]
