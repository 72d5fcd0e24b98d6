"""What becomes of nodes whose build has ended without them, in Airflow's database (see task_instances).

A build is over when its task has failed for good: it was killed in its last try, a mistake ended it, or
somebody marked it as failed. What is left then ends as upstream_failed, and says why. A node that was cleared
after that has the build run again; so has any node that waits when the build has succeeded, or was marked so.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.state import TaskScope
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from orrery.config.stages import BUILD
from orrery.execute import build_tries, task_details, task_instances
from orrery.execute.channel import FAIL_METHOD, NODE_OPERATOR, Answer
from orrery.execute.grounds import DONE
from orrery.execute.outdated import end_outdated
from orrery.execute.run_graph import RunGraph
from orrery.execute.task_instances import HOLDER, PATIENCE, of_run

# A node that is cleared together with its build's end is not meant: Airflow clears what has failed below a
# task that somebody marks, and a node that has failed before may get its next try a moment later.
_WITH_THE_END = timedelta(seconds=10)
# A worker has a node, or will have it before a build can.
_BUSY = ("scheduled", "queued", "running", "restarting", "up_for_retry")
_FAILED = (TaskInstanceState.FAILED, TaskInstanceState.UPSTREAM_FAILED)
_GO_ON = "Clear what has failed of this run, with 'build', to go on: ./orrery retry {} --failed"


def release(scope: TaskScope, reason: str, final: bool, graph: RunGraph | None, session: Session) -> None:
    """Do for the build itself, which cannot go on, what becomes of its tasks.

    :param final: whether no other try can help
    :param graph: the graph of the run, here and below, if a build has told it
    """
    task_instances.lock(scope, session)
    build = _build(scope, session)
    if build is None:
        return
    if build.state in _FAILED:
        end_left(scope, _why(build), None, graph, session)
    elif build.state == TaskInstanceState.RUNNING and (final or build_tries.is_last(build)):
        told = f"The task 'build' has failed for good: {reason}"
        end_left(scope, told if final else f"{told}\n{_GO_ON.format(build.dag_id)}", None, graph, session)
    else:
        task_instances.release(scope, session)


def settle(scope: TaskScope, graph: RunGraph | None, session: Session) -> None:
    """Do what a build asks for that has come to the end of its nodes."""
    task_instances.lock(scope, session)
    end_outdated(scope, graph, session)


def adopt_orphans(scope: TaskScope, graph: RunGraph | None, session: Session) -> None:
    """See to the tasks of a build from which nothing is heard: wait on when it is to come, or end them."""
    task_instances.lock(scope, session)
    build = _build(scope, session)
    if build is None:
        return
    if build.state in _FAILED:
        _end_with(build, scope, graph, session)
        return
    resumed = (
        *of_run(scope),
        TaskInstance.unixname == HOLDER,
        TaskInstance.state == TaskInstanceState.SCHEDULED,
        # Airflow resumes them with a method; a cleared task has none.
        TaskInstance.next_method.is_not(None),
    )
    again: dict[str, Any] = {
        "state": TaskInstanceState.DEFERRED,
        "trigger_timeout": task_instances.now() + PATIENCE,
        "next_method": None,
        "next_kwargs": None,
    }
    session.execute(
        update(TaskInstance).where(*resumed).values(**again).execution_options(synchronize_session=False)
    )
    if build.state in State.finished:
        task_instances.release(scope, session)


def end_failed(build: Any, graph: Callable[[TaskScope, Session], RunGraph | None], session: Session) -> None:
    """End the nodes of a build that somebody is about to write down as failed for good.

    The run is not locked: who does that has its lock, or has begun with the row of the build.

    :param build: its task instance, in the session
    :param graph: finds the graph of the run
    """
    if build.state in _FAILED:
        scope = TaskScope(dag_id=build.dag_id, run_id=build.run_id, task_id=build.task_id)
        end_left(scope, _why(build), None, graph(scope, session), session)


def rebuild(scope: TaskScope, graph: RunGraph | None, session: Session) -> None:
    """Clear the build of the run for a node that waits, unless it is at work, about to be, or over.

    It comes when it can do something for the node: not as long as a worker is busy with what the node
    waits for.
    """
    task_instances.lock(scope, session)
    build = _build(scope, session)
    if build is None or build.state not in State.finished:
        return
    if build.state in _FAILED and not _was_cleared_after(build, _asking(scope, session)):
        _end_with(build, scope, graph, session)
    elif not _waits_for_worker(scope, graph, session):
        clear_task_instances([build], session, dag_run_state=False)


def answer(scope: TaskScope, session: Session) -> dict[str, str]:
    """What the node's task that has asked is to know: an Answer, and why."""
    asking = _asking(scope, session)
    if asking is None or asking.state != TaskInstanceState.UPSTREAM_FAILED:
        return {"answer": Answer.COMING}
    return {"answer": Answer.OVER, "why": _why(_build(scope, session))}


def end_left(
    scope: TaskScope, why: str, until: datetime | None, graph: RunGraph | None, session: Session
) -> None:
    """End the nodes that have not been built as upstream_failed, and what was built on them before.

    :param why: their note
    :param until: those that were cleared later than this are left alone
    """
    session.flush()
    rows = session.execute(
        select(TaskInstance.id, TaskInstance.start_date)
        .where(
            *of_run(scope),
            TaskInstance.operator == NODE_OPERATOR,
            or_(
                TaskInstance.state.is_(None),
                TaskInstance.state == TaskInstanceState.UP_FOR_RESCHEDULE,
                # Held, or (cleared while it was held) about to begin anew, or (this one) asking on a worker.
                TaskInstance.state.in_(
                    (TaskInstanceState.DEFERRED, TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING)
                ),
                TaskInstance.state.in_((TaskInstanceState.SCHEDULED, TaskInstanceState.QUEUED)),
            ),
            or_(TaskInstance.next_method.is_(None), TaskInstance.next_method != FAIL_METHOD),
        )
        .with_for_update(key_share=True)
    ).all()
    left = {row.id: row for row in rows if until is None or task_instances.asked_at(row.id) <= until}
    end = task_instances.now()
    changes = [
        {
            "id": ti_id,
            "state": TaskInstanceState.UPSTREAM_FAILED,
            "unixname": None,
            "start_date": row.start_date or end,
            "end_date": end,
            "duration": (end - (row.start_date or end)).total_seconds(),
            "trigger_timeout": None,
            "next_method": None,
            "next_kwargs": None,
        }
        for ti_id, row in left.items()
    ]
    if changes:
        session.execute(update(TaskInstance), changes)
        task_details.write_notes(dict.fromkeys(left, why), session)
    end_outdated(scope, graph, session)


def _end_with(build: Any, scope: TaskScope, graph: RunGraph | None, session: Session) -> None:
    end_left(scope, _why(build), _end(build), graph, session)


def _why(build: Any) -> str:
    """Why a build that has failed is over, and what to do."""
    go_on = _GO_ON.format(build.dag_id)
    if build_tries.is_last(build):
        number = build_tries.number_of(build)
        return f"The task 'build' has failed for good, after {number} tries; see its log. {go_on}"
    return f"The task 'build' was stopped before this task had ended. {go_on}"


def _was_cleared_after(build: Any, node: Any) -> bool:
    return node is not None and task_instances.asked_at(node.id) > _end(build)


def _end(build: Any) -> datetime:
    end: datetime = build.end_date or build.updated_at
    return end + _WITH_THE_END


def _waits_for_worker(scope: TaskScope, graph: RunGraph | None, session: Session) -> bool:
    """Whether something that the node descends from, as dbt sees it, is not for a build to run."""
    if graph is None:
        return False
    above = graph.ancestors([scope.task_id])
    rows = session.execute(
        select(TaskInstance.task_id, TaskInstance.state, TaskInstance.operator).where(
            TaskInstance.dag_id == scope.dag_id,
            TaskInstance.run_id == scope.run_id,
            or_(TaskInstance.state.is_(None), TaskInstance.state.not_in((*DONE, *_FAILED))),
        )
    )
    return any(row.task_id in above and (row.state in _BUSY or row.operator != NODE_OPERATOR) for row in rows)


def _build(scope: TaskScope, session: Session) -> Any:
    """The task instance of the build, locked."""
    return session.scalar(
        select(TaskInstance)
        .where(*of_run(scope), TaskInstance.task_id == BUILD)
        .with_for_update(of=TaskInstance)
    )


def _asking(scope: TaskScope, session: Session) -> Any:
    query = select(TaskInstance.id, TaskInstance.state).where(
        *of_run(scope), TaskInstance.task_id == scope.task_id
    )
    return session.execute(query).one_or_none()
