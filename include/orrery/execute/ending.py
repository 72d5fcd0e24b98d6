"""What the tasks have in common that run at the end of a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowRescheduleException

from orrery.config.stages import is_last

log = logging.getLogger(__name__)

ENDED = ("success", "failed", "skipped", "upstream_failed", "removed")
# Most others that are still at work end within seconds: a task waits for them.
_PATIENCE = 8.0
# How often it looks again after that. Airflow may hear late of the end of this try (see
# orrery.ingest.resume), and fails a task that it has queued again by then.
_LOOK_AGAIN = timedelta(seconds=20)


def states_of_others(ti: Any) -> dict[str, str | None]:
    """The states of the tasks of a run but those at its end; a mapped one is `<task>_<index>`."""
    states: Mapping[str, str | None] = ti.get_task_states(dag_id=ti.dag_id, run_ids=[ti.run_id]).get(
        ti.run_id, {}
    )
    return {task_id: state for task_id, state in states.items() if not is_last(task_id)}


def await_others(ti: Any) -> dict[str, str | None]:
    """The states of all other tasks once they have ended; raises AirflowRescheduleException until then.

    Those that a failure holds back have ended early.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        states = states_of_others(ti)
        busy = [task_id for task_id, state in states.items() if state not in ENDED]
        if not busy:
            return states
        if time.monotonic() > deadline:
            log.info("%s tasks have not ended yet, such as %s.", len(busy), busy[0])
            raise AirflowRescheduleException(datetime.now(UTC) + _LOOK_AGAIN)  # type: ignore[no-untyped-call]
        time.sleep(0.5)
