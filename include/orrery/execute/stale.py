"""`stale: skip` where each task runs dbt for itself: a task skips itself when a source before it is stale.

It does so when its turn comes, not any earlier. Airflow calls a run a success when its last tasks are
skipped: if a task were skipped before all that it waits for has ended, a failure might hide behind it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from orrery.execute.results import RESULT_KEY, read_summary

if TYPE_CHECKING:
    from airflow.sdk import Context

# The check for which a task has been skipped, in the task's own store.
_SKIPPED_FOR = "skipped_for"


def why_stale(checks: Iterable[str], context: Context) -> str | None:
    """Why a task is skipped that reads the sources of these checks; None when none of them is stale.

    A task that is cleared afterwards, without the check, is to be run all the same, as in a build.
    """
    for check in checks:
        result = read_summary(context["ti"].xcom_pull(task_ids=check, key=RESULT_KEY, map_indexes=-1))
        # One that was left out has checked nothing.
        if result is None or not result["nodes"] or result["status"] != "error":
            continue
        known = hashlib.blake2b(json.dumps(result, sort_keys=True, default=str).encode()).hexdigest()[:16]
        store = context["task_state_store"]
        if store.get(_SKIPPED_FOR) == known:
            return None
        store.set(_SKIPPED_FOR, known)
        return f"The source {check.partition('.')[2]} is stale: {result['message']}"
    return None
