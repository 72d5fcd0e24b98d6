"""The states of a build's nodes in Airflow's database.

This is the one module that writes Airflow's own tables, which are no public interface: it belongs to
the pinned version of Airflow, and tests/integration/test_build.py fails when a newer one differs. It runs
in the api-server, inside the transaction of a request to the task state store.

The life of a node's task instance while a build is at work:

    none ──hold──> deferred ──> running ──> success, skipped
                      │            └──────> scheduled, to fail on a worker
                      └──release──> none

Deferred, with no trigger, is how Airflow leaves a task alone: neither the scheduler nor the triggerer
touch it, and it takes no slot. Should the build vanish for good, Airflow resumes the tasks after `_PATIENCE`;
the first of them lets go of all (adopt_orphans).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.configuration import conf
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance, TaskInstanceNote, clear_task_instances
from airflow.models.xcom import XComModel
from airflow.sdk.serde import serialize
from airflow.state import TaskScope
from airflow.utils.state import State, TaskInstanceState
from sqlalchemy import and_, case, delete, insert, or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from orrery.config.stages import BUILD
from orrery.execute.channel import FAIL_METHOD, NodeState, Update
from orrery.execute.node_runs import moment
from orrery.execute.results import RESULT_KEY

# Marks the task instances of a build, in the column for the operating system's user.
_HOLDER = "dbt build"
# How long tasks wait for a build from which nothing is heard. Running ones wait longer: without a
# heartbeat Airflow would fail them, while those that wait are resumed and let go of all.
_PATIENCE = timedelta(minutes=3)
_HEARTBEAT = 3 * _PATIENCE

_Values = dict[str, Any]


def hold(scope: TaskScope, tasks: Sequence[str], host: str, pid: int, session: Session) -> None:
    """Take those of `tasks` that nobody works on, and those of an earlier build; never finished ones."""
    _lock(scope, session)
    ours = TaskInstance.unixname == _HOLDER
    free = or_(
        TaskInstance.state.is_(None),
        TaskInstance.state == TaskInstanceState.UP_FOR_RESCHEDULE,
        and_(TaskInstance.state == TaskInstanceState.DEFERRED, ours),
        and_(TaskInstance.state == TaskInstanceState.RUNNING, ours),
        and_(TaskInstance.state == TaskInstanceState.RESTARTING, ours),
    )
    # As long as a task is held its number is that of the tries that are over.
    begun = TaskInstance.state.in_((TaskInstanceState.UP_FOR_RESCHEDULE, TaskInstanceState.RUNNING))
    session.execute(
        update(TaskInstance)
        .where(*_of_run(scope), TaskInstance.task_id.in_(tasks), free)
        .values(
            try_number=case((begun, TaskInstance.try_number - 1), else_=TaskInstance.try_number),
            state=TaskInstanceState.DEFERRED,
            unixname=_HOLDER,
            hostname=host,
            pid=pid,
            start_date=None,
            end_date=None,
            duration=None,
            next_method=None,
            next_kwargs=None,
            trigger_timeout=_now() + _PATIENCE,
        )
        .execution_options(synchronize_session=False)
    )
    _forget_rendered(scope, session)


def held(scope: TaskScope, session: Session) -> dict[str, int]:
    """The tasks that the build holds and has not started, each with the number of its next try."""
    rows = session.execute(
        select(TaskInstance.task_id, TaskInstance.try_number).where(
            *_of_run(scope),
            TaskInstance.state == TaskInstanceState.DEFERRED,
            TaskInstance.unixname == _HOLDER,
        )
    )
    return {task_id: try_number + 1 for task_id, try_number in rows}


def publish(scope: TaskScope, updates: Sequence[Update], session: Session) -> None:
    """Write the news of tasks that are held or free; the others have been taken over by someone else.

    An update that comes a second time finds its task finished, and changes nothing.
    """
    rows = _rows(scope, [update.task_id for update in updates], session)
    build = session.execute(
        select(TaskInstance.hostname, TaskInstance.pid).where(*_of_run(scope), TaskInstance.task_id == BUILD)
    ).one()
    changes: dict[NodeState, list[_Values]] = {}
    accepted: list[Update] = []
    for news in updates:
        row = rows.get(news.task_id)
        if row is None or not _is_free(row):
            continue
        if row.state == TaskInstanceState.RESTARTING:
            if news.state is not NodeState.RUNNING:
                _restart(row.id, session)
            continue
        values = _values(news, row) | ({"hostname": build.hostname} if news.state != NodeState.FAILED else {})
        if news.state is NodeState.RUNNING:
            values["pid"] = build.pid
        changes.setdefault(news.state, []).append({"id": row.id, **values})
        accepted.append(news)
    for rows_of_state in changes.values():
        session.execute(update(TaskInstance), rows_of_state)
    _write_details(scope, {rows[news.task_id].id: news for news in accepted}, session)


def keep_alive(scope: TaskScope, session: Session) -> None:
    """Renew the patience of Airflow with the tasks of a build that is alive."""
    for state, column, until in (
        (TaskInstanceState.DEFERRED, TaskInstance.trigger_timeout, _now() + _PATIENCE),
        (TaskInstanceState.RUNNING, TaskInstance.last_heartbeat_at, _now() + _HEARTBEAT),
    ):
        session.execute(
            update(TaskInstance)
            .where(*_of_run(scope), TaskInstance.state == state, TaskInstance.unixname == _HOLDER)
            .values({column: until})
            .execution_options(synchronize_session=False)
        )


def release(scope: TaskScope, session: Session) -> None:
    """Give back the tasks that the build holds: Airflow's own rules decide about them again."""
    _lock(scope, session)
    running = TaskInstance.state == TaskInstanceState.RUNNING
    session.execute(
        update(TaskInstance)
        .where(
            *_of_run(scope),
            TaskInstance.state.in_((TaskInstanceState.DEFERRED, TaskInstanceState.RUNNING)),
            TaskInstance.unixname == _HOLDER,
        )
        .values(
            try_number=case((running, TaskInstance.try_number - 1), else_=TaskInstance.try_number),
            **_RELEASED,
        )
        .execution_options(synchronize_session=False)
    )
    cleared = select(TaskInstance.id).where(
        *_of_run(scope),
        TaskInstance.state == TaskInstanceState.RESTARTING,
        TaskInstance.unixname == _HOLDER,
    )
    for ti_id in session.scalars(cleared).all():
        _restart(ti_id, session)


def adopt_orphans(scope: TaskScope, session: Session) -> None:
    """Let go of the tasks of a build that has ended without a word; of one that is to come, wait on."""
    _lock(scope, session)
    build = session.scalar(select(TaskInstance.state).where(*_of_run(scope), TaskInstance.task_id == BUILD))
    waiting: _Values = {"state": TaskInstanceState.DEFERRED, "trigger_timeout": _now() + _PATIENCE}
    values = _RELEASED if build in State.finished else waiting
    session.execute(
        update(TaskInstance)
        .where(
            *_of_run(scope),
            TaskInstance.unixname == _HOLDER,
            TaskInstance.state == TaskInstanceState.SCHEDULED,
        )
        .values(**values, next_method=None, next_kwargs=None)
        .execution_options(synchronize_session=False)
    )
    if build in State.finished:
        release(scope, session)


def rebuild(scope: TaskScope, session: Session) -> None:
    """Clear the build of the run, unless it is at work or about to be."""
    _lock(scope, session)
    build = session.scalar(
        select(TaskInstance)
        .where(*_of_run(scope), TaskInstance.task_id == BUILD)
        .with_for_update(of=TaskInstance)
    )
    if build is not None and build.state in State.finished:
        clear_task_instances([build], session, dag_run_state=False)


_RELEASED: _Values = {
    "state": None,
    "unixname": None,
    "start_date": None,
    "end_date": None,
    "duration": None,
    "trigger_timeout": None,
    "last_heartbeat_at": None,
    "queued_by_job_id": None,
}


def _values(news: Update, row: Any) -> _Values:
    """The columns of a task instance after the news."""
    start, end = moment(news.start), moment(news.end)
    common: _Values = {
        # A task without a state, or a held one, has not begun its next try.
        "try_number": row.try_number + (row.state in (None, TaskInstanceState.DEFERRED)),
        "start_date": start or row.start_date or end,
        "trigger_timeout": None,
    }
    match news.state:
        case NodeState.RUNNING:
            return common | {
                "state": TaskInstanceState.RUNNING,
                "unixname": _HOLDER,
                "last_heartbeat_at": _now() + _HEARTBEAT,
                # No scheduler's: it would fail the task when the worker that asked for it is found to
                # have exited, and would queue it again when a dead scheduler's tasks are taken over.
                "queued_by_job_id": None,
            }
        case NodeState.RELEASED:
            begun = row.state == TaskInstanceState.RUNNING
            return {"try_number": row.try_number - begun, **_RELEASED}
        case NodeState.FAILED:
            # Like a task whose trigger has fired: a worker resumes it, and there it fails.
            return common | {
                "state": TaskInstanceState.SCHEDULED,
                "scheduled_dttm": _now(),
                "unixname": None,
                "queued_by_job_id": None,
                "next_method": FAIL_METHOD,
                "next_kwargs": serialize(news.failure or {}),
            }
    begin = common["start_date"]
    return common | {
        "state": TaskInstanceState(news.state.value),
        "unixname": None,
        "end_date": end,
        "duration": (end - begin).total_seconds() if end and begin else None,
    }


def _write_details(scope: TaskScope, accepted: Mapping[Any, Update], session: Session) -> None:
    """XCom, rendered templates and note of each task, in place of those of an earlier try."""
    ended = {ti: news for ti, news in accepted.items() if news.state is not NodeState.RUNNING}
    tasks = [news.task_id for news in ended.values()]
    if not tasks:
        return
    keys = {"dag_id": scope.dag_id, "run_id": scope.run_id, "map_index": -1}
    run = session.scalar(select(DagRun.id).filter_by(dag_id=scope.dag_id, run_id=scope.run_id))
    _replace(
        XComModel,
        and_(XComModel.dag_run_id == run, XComModel.task_id.in_(tasks), XComModel.key == RESULT_KEY),
        (
            {**keys, "dag_run_id": run, "task_id": news.task_id, "key": RESULT_KEY, "value": news.result}
            for news in ended.values()
            if news.result is not None
        ),
        session,
    )
    if _retained_runs() > 0:
        fields = RenderedTaskInstanceFields
        _replace(
            fields,
            and_(fields.dag_id == scope.dag_id, fields.run_id == scope.run_id, fields.task_id.in_(tasks)),
            (
                {**keys, "task_id": news.task_id, "rendered_fields": news.rendered}
                for news in ended.values()
                if news.rendered is not None
            ),
            session,
        )
    _replace(
        TaskInstanceNote,
        TaskInstanceNote.ti_id.in_(list(ended)),
        ({"ti_id": ti, "content": news.note[:1000]} for ti, news in ended.items() if news.note),
        session,
    )


def _retained_runs() -> int:
    return int(conf.getint("core", "num_dag_runs_to_retain_rendered_fields", fallback=0))


def _forget_rendered(scope: TaskScope, session: Session) -> None:
    """Keep the rendered templates of the newest runs only, as Airflow does for each task of its own."""
    kept = (
        select(DagRun.run_id)
        .where(DagRun.dag_id == scope.dag_id)
        .order_by(DagRun.run_after.desc())
        .limit(max(1, _retained_runs()))
    )
    fields = RenderedTaskInstanceFields
    session.execute(
        delete(fields)
        .where(fields.dag_id == scope.dag_id, fields.run_id.not_in(list(session.scalars(kept))))
        .execution_options(synchronize_session=False)
    )


def _replace(model: Any, where: ColumnElement[bool], rows: Iterable[_Values], session: Session) -> None:
    session.execute(delete(model).where(where).execution_options(synchronize_session=False))
    values = list(rows)
    if values:
        # The table, not the class: objects, whose constructors want more, are not needed.
        session.execute(insert(model.__table__), values)


def _restart(ti_id: Any, session: Session) -> None:
    """A user has cleared the task while it ran: let it begin anew, as the scheduler does."""
    ti = session.get(TaskInstance, ti_id)
    if ti is not None:
        ti.max_tries = max(ti.max_tries, ti.try_number)
        for column, value in _RELEASED.items():
            setattr(ti, column, value)


def _is_free(row: Any) -> bool:
    """Whether nobody but the build works on the task, and it has not ended."""
    if row.state in (TaskInstanceState.RUNNING, TaskInstanceState.RESTARTING):
        return bool(row.unixname == _HOLDER)
    return row.state in (None, TaskInstanceState.UP_FOR_RESCHEDULE, TaskInstanceState.DEFERRED)


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
        .where(*_of_run(scope), TaskInstance.task_id.in_(tasks))
        .with_for_update(key_share=True)
    )
    return {row.task_id: row for row in session.execute(query)}


def _of_run(scope: TaskScope) -> tuple[ColumnElement[bool], ...]:
    return (
        TaskInstance.dag_id == scope.dag_id,
        TaskInstance.run_id == scope.run_id,
        TaskInstance.map_index == -1,
    )


def _lock(scope: TaskScope, session: Session) -> None:
    """Wait until no scheduler decides about the run, and keep them from it until the end of the request."""
    session.execute(
        select(DagRun.id)
        .where(DagRun.dag_id == scope.dag_id, DagRun.run_id == scope.run_id)
        # Not against foreign keys: workers may go on writing XComs of the run.
        .with_for_update(key_share=True)
    )


def _now() -> datetime:
    return datetime.now(UTC)
