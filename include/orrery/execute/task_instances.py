"""The states of a build's nodes in Airflow's database.

This module, task_details (XCom, rendered templates, notes) and build_end (a build that has ended) are the
ones that write Airflow's own tables, which are no public interface: they belong to the pinned version of
Airflow, and tests/integration/test_build.py fails when a newer one differs. They run in the api-server,
inside the transaction of a request to the task state store.

The life of a node's task instance while a build is at work:

    none ──hold──> deferred ──> running ──> success, skipped, upstream_failed
                      │            └──────> scheduled, to fail on a worker
                      └──release──> none

Deferred, with no trigger, is how Airflow leaves a task alone: neither the scheduler nor the triggerer
touch it, and it takes no slot. Should the build vanish for good, Airflow resumes the tasks after `PATIENCE`;
the first of them sees to all (build_end.adopt_orphans).

The number of a try counts as Airflow's does: it goes up when a task leaves `none`, here by hold, and goes
back with release, when nothing has come of the try.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.sdk.serde import serialize
from airflow.state import TaskScope
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import and_, case, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from orrery.config.stages import BUILD
from orrery.execute import task_details
from orrery.execute.channel import FAIL_METHOD, Hold, NodeState, Try, Update
from orrery.execute.grounds import DONE, Grounds
from orrery.execute.node_runs import moment
from orrery.execute.run_graph import RunGraph

# Marks the task instances of a build, in the column for the operating system's user.
HOLDER = "dbt build"
# How long tasks wait for a build from which nothing is heard. Running ones wait longer: without a
# heartbeat Airflow would fail them, while those that wait are resumed and see to all.
PATIENCE = timedelta(minutes=3)
_HEARTBEAT = 3 * PATIENCE
# States in which a task can be a build's, if it has the mark.
_HELD = (TaskInstanceState.DEFERRED, TaskInstanceState.RUNNING)

_Values = dict[str, Any]
RELEASED: Mapping[str, Any] = {
    "state": None,
    "unixname": None,
    "start_date": None,
    "end_date": None,
    "duration": None,
    "trigger_timeout": None,
    "last_heartbeat_at": None,
    "queued_by_job_id": None,
    "next_method": None,
    "next_kwargs": None,
}


def hold(scope: TaskScope, message: Hold, session: Session) -> None:
    """Take those of the message's tasks that nobody works on, and those of an earlier build."""
    lock(scope, session)
    if message.again:
        _begin_anew(scope, message.tasks, session)
    _restart_cleared(scope, session)
    free = or_(
        TaskInstance.state.is_(None), TaskInstance.state == TaskInstanceState.UP_FOR_RESCHEDULE, is_held()
    )
    session.execute(
        update(TaskInstance)
        .where(*of_run(scope), TaskInstance.task_id.in_(message.tasks), free)
        .values(
            try_number=case(
                (TaskInstance.state.is_(None), TaskInstance.try_number + 1), else_=TaskInstance.try_number
            ),
            state=TaskInstanceState.DEFERRED,
            unixname=HOLDER,
            hostname=message.host,
            pid=message.pid,
            start_date=None,
            end_date=None,
            duration=None,
            next_method=None,
            next_kwargs=None,
            trigger_timeout=now() + PATIENCE,
        )
        .execution_options(synchronize_session=False)
    )
    task_details.forget_rendered(scope, session)


def held(scope: TaskScope, session: Session) -> dict[str, Try]:
    """The tasks that the build holds and has not started."""
    rows = session.execute(
        select(TaskInstance.id, TaskInstance.task_id, TaskInstance.try_number, TaskInstance.max_tries).where(
            *of_run(scope),
            TaskInstance.state == TaskInstanceState.DEFERRED,
            TaskInstance.unixname == HOLDER,
        )
    )
    return {row.task_id: Try(row.try_number, is_last_try(row), asked_at(row.id).isoformat()) for row in rows}


def publish(
    scope: TaskScope, updates: Sequence[Update], graph: Callable[[], RunGraph | None], session: Session
) -> None:
    """Write the news of tasks that the build holds; the others have been taken over by someone else.

    A task that was cleared is not the build's until it holds it again, whatever dbt has made of it meanwhile.
    An update that comes a second time finds its task finished, and changes nothing.

    :param graph: finds the graph of the run
    """
    rows = _rows(scope, [update.task_id for update in updates], session)
    build = session.execute(
        select(TaskInstance.hostname, TaskInstance.pid).where(*of_run(scope), TaskInstance.task_id == BUILD)
    ).one()
    grounds = _grounds(scope, updates, graph, session)
    changes: dict[NodeState, list[_Values]] = {}
    accepted: dict[UUID, Update] = {}
    for told in updates:
        row = rows.get(told.task_id)
        if row is None or row.unixname != HOLDER:
            continue
        if row.state == TaskInstanceState.RESTARTING:
            if told.state is not NodeState.RUNNING:
                _restart(row.id, session)
            continue
        if row.state not in _HELD:
            continue
        news = grounds.judge(told) if grounds else told
        if news.state is NodeState.RELEASED and told.state in (NodeState.SUCCESS, NodeState.FAILED):
            _try_again(row.id, told, session)
            continue
        values = _values(news, row) | ({"hostname": build.hostname} if news.state != NodeState.FAILED else {})
        if news.state is NodeState.RUNNING:
            values["pid"] = build.pid
        changes.setdefault(news.state, []).append({"id": row.id, **values})
        accepted[row.id] = news
    for rows_of_state in changes.values():
        session.execute(update(TaskInstance), rows_of_state)
    task_details.write(scope, accepted, session)


def keep_alive(scope: TaskScope, session: Session) -> None:
    """Renew the patience of Airflow with the tasks of a build that is alive."""
    for state, column, until in (
        (TaskInstanceState.DEFERRED, TaskInstance.trigger_timeout, now() + PATIENCE),
        (TaskInstanceState.RUNNING, TaskInstance.last_heartbeat_at, now() + _HEARTBEAT),
    ):
        session.execute(
            update(TaskInstance)
            .where(*of_run(scope), TaskInstance.state == state, TaskInstance.unixname == HOLDER)
            .values({column: until})
            .execution_options(synchronize_session=False)
        )


def release(scope: TaskScope, session: Session) -> None:
    """Give back the tasks that the build holds: Airflow's own rules decide about them again."""
    lock(scope, session)
    session.execute(
        update(TaskInstance)
        .where(*of_run(scope), is_held())
        .values(try_number=TaskInstance.try_number - 1, **RELEASED)
        .execution_options(synchronize_session=False)
    )
    _restart_cleared(scope, session)


def disturbed(scope: TaskScope, session: Session) -> dict[str, str | None]:
    """The states of those tasks of the run that are not done and that the build does not hold.

    One that a worker is about to fail for good counts as failed.
    """
    unknown = (*DONE, *_HELD)
    rows = session.execute(
        select(
            TaskInstance.task_id,
            TaskInstance.state,
            TaskInstance.next_method,
            TaskInstance.try_number,
            TaskInstance.max_tries,
        ).where(
            # With all instances of what is mapped.
            TaskInstance.dag_id == scope.dag_id,
            TaskInstance.run_id == scope.run_id,
            or_(
                TaskInstance.state.is_(None),
                TaskInstance.state.not_in(unknown),
                and_(
                    TaskInstance.state.in_(_HELD),
                    or_(TaskInstance.unixname.is_(None), TaskInstance.unixname != HOLDER),
                ),
            ),
        )
    )
    found: dict[str, str | None] = {}
    for row in rows:
        failed = row.state in State.failed_states or (row.next_method == FAIL_METHOD and is_last_try(row))
        if failed or row.task_id not in found:
            found[row.task_id] = TaskInstanceState.FAILED.value if failed else row.state
    return found


def is_last_try(row: Any) -> bool:
    """Whether Airflow tries a task no more when its current try fails."""
    return bool(row.max_tries == 0 or row.try_number > row.max_tries)


def is_held() -> ColumnElement[bool]:
    """Whether a build holds a task."""
    return and_(TaskInstance.state.in_(_HELD), TaskInstance.unixname == HOLDER)


def of_run(scope: TaskScope) -> tuple[ColumnElement[bool], ...]:
    """The task instances of a run, but for those of mapped tasks."""
    return (
        TaskInstance.dag_id == scope.dag_id,
        TaskInstance.run_id == scope.run_id,
        TaskInstance.map_index == -1,
    )


def asked_at(ti_id: UUID) -> datetime:
    """When somebody asked for the try of a task instance: Airflow makes a new id for each (a UUID 7)."""
    return datetime.fromtimestamp((ti_id.int >> 80) / 1000, UTC)


def lock(scope: TaskScope, session: Session) -> None:
    """Wait until no scheduler decides about the run, and keep them from it until the end of the request."""
    session.execute(
        select(DagRun.id)
        .where(DagRun.dag_id == scope.dag_id, DagRun.run_id == scope.run_id)
        # Not against foreign keys: workers may go on writing XComs of the run.
        .with_for_update(key_share=True)
    )


def now() -> datetime:
    """The time."""
    return datetime.now(UTC)


def _grounds(
    scope: TaskScope, updates: Sequence[Update], graph: Callable[[], RunGraph | None], session: Session
) -> Grounds | None:
    """What decides about the news; None when nothing can be the matter with them."""
    if all(news.state in (NodeState.RUNNING, NodeState.RELEASED) for news in updates):
        return None
    known = graph()
    return Grounds(known, disturbed(scope, session)) if known else None


def _values(news: Update, row: Any) -> _Values:
    """The columns of a task instance after the news."""
    start, end = moment(news.start), moment(news.end)
    begin = start or row.start_date or end
    common: _Values = {"start_date": begin, "trigger_timeout": None}
    match news.state:
        case NodeState.RUNNING:
            return common | {
                "state": TaskInstanceState.RUNNING,
                "unixname": HOLDER,
                "last_heartbeat_at": now() + _HEARTBEAT,
                # No scheduler's: it would fail the task when the worker that asked for it is found to
                # have exited, and would queue it again when a dead scheduler's tasks are taken over.
                "queued_by_job_id": None,
            }
        case NodeState.RELEASED:
            return {"try_number": row.try_number - 1, **RELEASED}
        case NodeState.FAILED:
            # Like a task whose trigger has fired: a worker resumes it, and there it fails.
            return common | {
                "state": TaskInstanceState.SCHEDULED,
                "scheduled_dttm": now(),
                "unixname": None,
                "queued_by_job_id": None,
                "next_method": FAIL_METHOD,
                "next_kwargs": serialize(news.failure or {}),
            }
    return common | {
        "state": TaskInstanceState(news.state.value),
        "unixname": None,
        "end_date": end,
        "duration": (end - begin).total_seconds() if end and begin else None,
    }


def _try_again(ti_id: UUID, news: Update, session: Session) -> None:
    """Take back what dbt has made of a task: the try goes into the history, and another one is to come."""
    ti = session.get(TaskInstance, ti_id)
    if ti is None:
        return
    ti.start_date, ti.end_date = moment(news.start) or ti.start_date, moment(news.end) or now()
    ti.set_duration()
    ti.prepare_db_for_next_try(session)
    # It is not one of the retries that the pipeline grants.
    ti.max_tries += ti.max_tries > 0
    _let_go(ti)


def _begin_anew(scope: TaskScope, tasks: Sequence[str], session: Session) -> None:
    """Let tasks that have ended begin anew, as if somebody had cleared them."""
    query = select(TaskInstance).where(
        *of_run(scope), TaskInstance.task_id.in_(tasks), TaskInstance.state.in_(State.finished)
    )
    if ended := list(session.scalars(query)):
        clear_task_instances(ended, session, dag_run_state=False)
        session.flush()


def _restart_cleared(scope: TaskScope, session: Session) -> None:
    cleared = select(TaskInstance.id).where(
        *of_run(scope),
        TaskInstance.state == TaskInstanceState.RESTARTING,
        TaskInstance.unixname == HOLDER,
    )
    for ti_id in session.scalars(cleared).all():
        _restart(ti_id, session)
    session.flush()


def _restart(ti_id: UUID, session: Session) -> None:
    """A user has cleared the task while it ran: let it begin anew, as the scheduler does."""
    ti = session.get(TaskInstance, ti_id)
    if ti is not None:
        ti.max_tries = max(ti.max_tries, ti.try_number)
        _let_go(ti)


def _let_go(ti: TaskInstance) -> None:
    for column, value in RELEASED.items():
        setattr(ti, column, value)


def _rows(scope: TaskScope, tasks: Sequence[str], session: Session) -> dict[str, Any]:
    """The task instances by task id, locked."""
    query = (
        select(
            TaskInstance.id,
            TaskInstance.task_id,
            TaskInstance.state,
            TaskInstance.try_number,
            TaskInstance.unixname,
            TaskInstance.start_date,
        )
        .where(*of_run(scope), TaskInstance.task_id.in_(tasks))
        .with_for_update(key_share=True)
    )
    return {row.task_id: row for row in session.execute(query)}
