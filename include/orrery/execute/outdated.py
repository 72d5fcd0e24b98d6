"""Successes that rest on what has failed since, in Airflow's database (see task_instances).

A node was cleared alone, and fails; or somebody marks a node as failed when others have been built on it.
Had it failed before, dbt would have skipped them. And Airflow judges a run by its last tasks: it would call
the run a success.
"""

from __future__ import annotations

from uuid import UUID

from airflow.models.taskinstance import TaskInstance
from airflow.state import TaskScope
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from orrery.execute import task_details
from orrery.execute.channel import FAIL_METHOD
from orrery.execute.run_graph import RunGraph
from orrery.execute.task_instances import is_last_try, now, of_run

_NOTE = "{} has failed or was marked failed since this was built on what it was before."


def end_outdated(scope: TaskScope, graph: RunGraph | None, session: Session) -> None:
    """End as upstream_failed what had succeeded when something that it descends from failed, for good.

    What was marked as a success after that stays one.

    :param graph: the graph of the run; without one, nothing is ended
    """
    if graph is None:
        return
    failing = TaskInstance.next_method == FAIL_METHOD
    rows = session.execute(
        select(
            TaskInstance.id,
            TaskInstance.task_id,
            TaskInstance.state,
            # When its state was written: a mark leaves the end as it was.
            TaskInstance.updated_at,
            TaskInstance.try_number,
            TaskInstance.max_tries,
        ).where(
            *of_run(scope),
            or_(
                TaskInstance.state.in_((TaskInstanceState.SUCCESS, *State.failed_states)),
                # A worker is about to fail them.
                failing & TaskInstance.state.not_in(State.finished),
            ),
        )
    ).all()
    good = {row.task_id: row for row in rows if row.state == TaskInstanceState.SUCCESS and row.updated_at}
    notes: dict[UUID, str] = {}
    for row in rows if good else ():
        failed = row.state in State.failed_states
        if row.task_id in good or not (failed or is_last_try(row)):
            continue
        since = (failed and row.updated_at) or now()
        for task_id in graph.descendants([row.task_id]) & good.keys():
            if good[task_id].updated_at < since:
                notes.setdefault(good[task_id].id, _NOTE.format(row.task_id))
    if notes:
        session.execute(
            update(TaskInstance),
            [{"id": ti_id, "state": TaskInstanceState.UPSTREAM_FAILED} for ti_id in notes],
        )
        task_details.write_notes(notes, session)
