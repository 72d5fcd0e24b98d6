"""What a run did, as a table, and how to go on when it failed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orrery.cli.airflow_api import AirflowApi, Json
from orrery.cli.follow import NOT_RUN, is_marker, node_of, stage_of, styled
from orrery.execute.results import RESULT_KEY

LOG_LINES = 20
# More lines than these, alike but for the name, become one.
MOST_ALIKE = 3


def show_summary(api: AirflowApi, run: Json, tasks: list[Json], console: Console) -> bool:
    """Print the outcome of a run that has ended; returns whether it succeeded."""
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    tasks = _by_stage([task for task in tasks if not is_marker(task)])
    with ThreadPoolExecutor(max_workers=4) as pool:
        ran = [task for task in tasks if task["state"] in ("success", "failed")]
        values = pool.map(lambda task: api.xcom(dag_id, run_id, task["task_id"], RESULT_KEY), ran)
        results = {task["task_id"]: value for task, value in zip(ran, values, strict=True) if value}
    console.print(_table(tasks, results))
    failed = [task for task in tasks if task["state"] == "failed"]
    for task in failed:
        _show_failure(api, task, results.get(task["task_id"]), console)
    succeeded = bool(run["state"] == "success")
    states = Counter(_state(task, results) for task in tasks)
    counts = ", ".join(f"{count} {state}" for state, count in states.most_common())
    console.print(
        f"\n{dag_id}: {styled(run['state'])} in {run['duration'] or 0:.0f} s ({counts})", highlight=False
    )
    console.print(f"Graph: {api.run_url(dag_id, run_id)}", highlight=False, soft_wrap=True)
    if failed:
        console.print("After mending it, run the failed nodes and what waits for them:", highlight=False)
        console.print(f"  ./orrery retry {dag_id} --failed", highlight=False)
    return succeeded


def _by_stage(tasks: list[Json]) -> list[Json]:
    """The tasks stage by stage, each in the order of their starts; what did not start comes last."""

    def start(task: Json) -> str:
        return task["start_date"] or "9999"

    first = {stage_of(task): start(task) for task in sorted(tasks, key=start, reverse=True)}
    return sorted(tasks, key=lambda task: (first[stage_of(task)], stage_of(task), start(task)))


def _state(task: Json, results: dict[str, Json]) -> str:
    warned = results.get(task["task_id"], {}).get("status") == "warn"
    return "[yellow]warning[/]" if warned and task["state"] == "success" else styled(task["state"])


def _table(tasks: list[Json], results: dict[str, Json]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("stage")
    table.add_column("node", overflow="fold")
    table.add_column("state")
    table.add_column("seconds", justify="right")
    table.add_column("rows", justify="right")
    table.add_column("message", overflow="fold")
    for task, others in _folded(tasks):
        result: dict[str, Any] = results.get(task["task_id"], {})
        seconds = f"{task['duration']:.1f}" if task["duration"] else ""
        rows = result.get("rows_affected")
        table.add_row(
            stage_of(task),
            f"({others + 1} nodes)" if others else node_of(task),
            _state(task, results),
            seconds,
            f"{rows:,}" if rows is not None else "",
            escape(_first_line(result.get("message") or _note(task))),
        )
    return table


def _folded(tasks: list[Json]) -> Iterator[tuple[Json, int]]:
    """The tasks; of many of a stage that did not run for one reason the first, with how many others."""
    same = Counter(_kind(task) for task in tasks)
    told = set()
    for task in tasks:
        kind = _kind(task)
        if task["state"] not in NOT_RUN or same[kind] <= MOST_ALIKE:
            yield task, 0
        elif kind not in told:
            told.add(kind)
            yield task, same[kind] - 1


def _kind(task: Json) -> tuple[str, str, str]:
    return stage_of(task), str(task["state"]), _note(task)


def _note(task: Json) -> str:
    """Why a task was skipped."""
    return str(task.get("note") or "") if task["state"] == "skipped" else ""


def _show_failure(api: AirflowApi, task: Json, result: Json | None, console: Console) -> None:
    url = f"{api.run_url(task['dag_id'], task['dag_run_id'])}/tasks/{task['task_id']}"
    console.print(f"\n[bold red]{task['task_id']} failed[/]  {url}", highlight=False, soft_wrap=True)
    message = result and result.get("message")
    if message:
        console.print(message, markup=False, highlight=False, soft_wrap=True)
        return
    for line in api.log_tail(task, LOG_LINES):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0][:120]
