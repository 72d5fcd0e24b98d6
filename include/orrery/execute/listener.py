"""Airflow's listener by which the nodes of a build end in the moment in which the build fails for good.

Airflow calls it in the process that makes a task failed: the api-server for one that somebody marks, the
scheduler for one that is lost with its worker, and the task's own process, which cannot reach the database.
It does not where a worker reports the failure; for that there is a last try (orrery.execute.build_tries).
`include/plugins/orrery_builds.py` makes it known. It is loaded by all of Airflow's processes, so it is light.
"""

from __future__ import annotations

from typing import Any

from airflow.listeners import hookimpl
from sqlalchemy import inspect

from orrery.config.stages import BUILD


@hookimpl
def on_task_instance_failed(task_instance: Any) -> None:
    """End what a build leaves when no other try follows; it has nobody left who could."""
    if task_instance.task_id != BUILD:
        return
    known = inspect(task_instance, raiseerr=False)
    session = known.session if known is not None else None
    if session is None:
        return
    from orrery.execute.build_end import end_failed
    from orrery.execute.state_store import NodeStateStore

    # Airflow takes an error of a listener lightly, but its transaction would not.
    with session.begin_nested():
        end_failed(task_instance, NodeStateStore().graph, session)
