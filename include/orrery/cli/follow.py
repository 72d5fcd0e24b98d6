"""Follows a DAG run until it has ended, and shows where it stands."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Set as AbstractSet

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from orrery.cli.airflow_api import FINISHED_RUN, FINISHED_TASK, AirflowApi, ApiError, Json

POLL_SECONDS = 1.0
# Reading a thousand task instances takes Airflow a second: rest for a multiple of what reading took.
REST = 4
# Airflow's api-server may be restarted while a run goes on.
PATIENCE_SECONDS = 120.0
# A run that starts at once is queued for a second or two.
QUEUED_SECONDS = 5.0
# States of tasks of which nothing ran.
NOT_RUN = ("skipped", "upstream_failed")

_STYLES = {
    "success": "green",
    "failed": "bold red",
    "upstream_failed": "dark_orange",
    "skipped": "magenta",
    "running": "cyan",
    "up_for_retry": "yellow",
}


def follow(
    api: AirflowApi,
    dag_id: str,
    run_id: str,
    console: Console,
    ended: AbstractSet[tuple[str, int]] = frozenset(),
) -> tuple[Json, list[Json]]:
    """Show the progress of a run per stage until it ends; returns the run and its task instances.

    `ended` are those that had ended before (see `key_of`) and do not run again: they are no news.
    """
    progress = _LiveProgress(console) if console.is_terminal else _PlainProgress(console)
    lost_since: float | None = None
    started, told = time.monotonic(), False
    with progress:
        while True:
            asked = time.monotonic()
            try:
                # The run first: tasks that are read after it has ended are final.
                run = api.run(dag_id, run_id)
                tasks = api.task_instances(dag_id, run_id)
                lost_since = None
            except ApiError:
                lost_since = lost_since or time.monotonic()
                if time.monotonic() - lost_since > PATIENCE_SECONDS:
                    raise
                time.sleep(POLL_SECONDS)
                continue
            progress.update([t for t in tasks if key_of(t) not in ended and not is_marker(t)])
            if run["state"] in FINISHED_RUN:
                return run, tasks
            if run["state"] == "queued" and not told and time.monotonic() - started > QUEUED_SECONDS:
                # The schedule may have started one just before.
                console.print(f"Waiting for another run of {dag_id} to end (max_active_runs).", style="dim")
                told = True
            time.sleep(max(POLL_SECONDS, REST * (time.monotonic() - asked)))


def is_marker(task: Json) -> bool:
    """Whether the task does nothing, so that there is nothing to tell of it."""
    return task.get("operator_name") == "marker"


def stage_of(task: Json) -> str:
    """The stage of a task instance: the first part of its id."""
    return str(task["task_id"]).partition(".")[0]


def node_of(task: Json) -> str:
    """The name of a task instance inside its stage; a task outside of all has its id."""
    return str(task["task_id"]).partition(".")[2] or str(task["task_id"])


def key_of(task: Json) -> tuple[str, int]:
    """What tells a task instance of a run from the others; a mapped task has many."""
    return task["task_id"], task.get("map_index", -1)


def is_mapped(task: Json) -> bool:
    """Whether it is one of the instances of a mapped task."""
    return key_of(task)[1] >= 0


def label_of(task: Json) -> str:
    """The name of a task instance inside its stage, with that of the instance of a mapped task."""
    return f"{node_of(task)}{_instance(task)}"


def full_label_of(task: Json) -> str:
    """The same with the stage."""
    return f"{task['task_id']}{_instance(task)}"


def _instance(task: Json) -> str:
    return f"[{task.get('rendered_map_index') or task['map_index']}]" if is_mapped(task) else ""


def styled(state: str | None) -> str:
    """A task state with its colour, as rich markup."""
    name = state or "waiting"
    style = _STYLES.get(name)
    return f"[{style}]{name}[/]" if style else name


def _stages(tasks: list[Json]) -> dict[str, list[Json]]:
    stages: dict[str, list[Json]] = {}
    for task in tasks:
        stages.setdefault(stage_of(task), []).append(task)
    return stages


class _LiveProgress:
    """A table that is redrawn in place: one row per stage."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> _LiveProgress:
        self._live.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.__exit__(None, None, None)

    def update(self, tasks: list[Json]) -> None:
        self._live.update(progress_table(tasks))


def progress_table(tasks: list[Json]) -> Table:
    """How far each stage is, and which of its nodes run."""
    table = Table(box=None, pad_edge=False)
    for column in ("stage", "done", "states", "running now"):
        table.add_column(column, justify="right" if column == "done" else "left")
    for stage, members in _stages(tasks).items():
        done = sum(task["state"] in FINISHED_TASK for task in members)
        states = Counter(task["state"] for task in members)
        running = [escape(label_of(task)) for task in members if task["state"] == "running"]
        table.add_row(
            stage,
            f"{done}/{len(members)}",
            " ".join(f"{styled(state)} {count}" for state, count in states.items()),
            ", ".join(running),
        )
    return table


class _PlainProgress:
    """One line per task that has run, for logs and CI; the summary tells of the others."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: dict[tuple[str, int], str] = {}
        self._ended: dict[str, set[tuple[str, int]]] = {}

    def __enter__(self) -> _PlainProgress:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def update(self, tasks: list[Json]) -> None:
        stages = _stages(tasks)
        for task in tasks:
            state = task["state"]
            if self._shown.get(key_of(task)) == state:
                continue
            self._shown[key_of(task)] = state
            if state in FINISHED_TASK:
                seconds = f"{task['duration']:.1f} s" if task.get("duration") else ""
                # The markup has no width: it must not count when states are padded.
                padding = " " * (len("success") - len(state))
                stage = stage_of(task)
                # A task may end twice, when the build goes on with what was given back.
                ended = self._ended.setdefault(stage, set())
                ended.add(key_of(task))
                if state in NOT_RUN:
                    continue
                self._console.print(
                    f"{styled(state)}{padding} {escape(full_label_of(task))}  {seconds}  "
                    f"({len(ended)} of {len(stages[stage])} in {stage})",
                    highlight=False,
                )
