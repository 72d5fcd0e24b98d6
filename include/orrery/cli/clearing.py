"""Clears tasks of a run, which somebody else may do at the same moment."""

from __future__ import annotations

import time
from typing import Any

import httpx
from rich.console import Console

from orrery.cli.airflow_api import AirflowApi, ApiError, Json
from orrery.cli.follow import key_of
from orrery.config.errors import OrreryError

# What Airflow answers to the second of two requests that change the same task instances at once.
_CONFLICTS = (httpx.codes.CONFLICT, httpx.codes.INTERNAL_SERVER_ERROR)
_TRIES = 3
_PAUSE_SECONDS = 1.0


def clear(
    api: AirflowApi, run: Json, tasks: list[Json], choice: dict[str, Any], console: Console
) -> list[Json]:
    """Clear tasks of a run, and say how many; returns those that run again.

    If somebody else has cleared all of them in the meantime, there is nothing left to do: then it says so.

    :param tasks: all task instances of the run, as they were when the choice was made
    :param choice: part of the body of Airflow's request
    """
    pipeline, run_id = run["dag_id"], run["dag_run_id"]
    for _ in range(_TRIES):
        try:
            cleared = api.clear(pipeline, run_id, only_failed=False, run_on_latest_version=True, **choice)
        except ApiError as error:
            if error.status not in _CONFLICTS:
                raise
            conflict = error
        else:
            console.print(f"{len(cleared)} of {len(tasks)} tasks run again.", highlight=False)
            return cleared
        time.sleep(_PAUSE_SECONDS)
        if others := _cleared_by_others(tasks, api.task_instances(pipeline, run_id), choice["task_ids"]):
            console.print(
                f"Somebody else has cleared the same {len(others)} of {len(tasks)} tasks at the same moment: "
                "they run again, once.",
                highlight=False,
                soft_wrap=True,
            )
            return others
    raise OrreryError(
        f"{pipeline}: Airflow cannot clear tasks of {run_id}: something else changes them at the same time, "
        "such as a second ./orrery retry or somebody in Airflow.\n"
        f"  See what the run does, and try again: {api.run_url(pipeline, run_id)}\n"
        f"  Airflow's answer: {conflict}"
    )


def _cleared_by_others(before: list[Json], now: list[Json], chosen: list[Any]) -> list[Json]:
    """The chosen task instances, if all of them have left the state in which they were."""
    keys = {(each, -1) if isinstance(each, str) else tuple(each) for each in chosen}
    states = {key_of(task): task["state"] for task in before}
    found = [task for task in now if key_of(task) in keys]
    changed = [task for task in found if task["state"] != states.get(key_of(task))]
    return found if len(changed) == len(found) else []
