"""XCom, rendered templates and notes of a build's nodes, in Airflow's own tables (see task_instances)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from airflow.configuration import conf
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstanceNote
from airflow.models.xcom import XComModel
from airflow.state import TaskScope
from sqlalchemy import and_, delete, insert, select
from sqlalchemy.orm import Session
from sqlalchemy.sql import ColumnElement

from orrery.execute.channel import NodeState, Update
from orrery.execute.results import RESULT_KEY

_Values = dict[str, Any]


def write(scope: TaskScope, accepted: Mapping[Any, Update], session: Session) -> None:
    """XCom, rendered templates and note of each task, in place of those of an earlier try.

    :param accepted: the news, by the ids of the task instances
    """
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
    write_notes({ti: news.note for ti, news in ended.items()}, session)


def write_notes(notes: Mapping[Any, str | None], session: Session) -> None:
    """The notes of task instances, by their ids, in place of earlier ones."""
    _replace(
        TaskInstanceNote,
        TaskInstanceNote.ti_id.in_(list(notes)),
        ({"ti_id": ti, "content": note[:1000]} for ti, note in notes.items() if note),
        session,
    )


def forget_rendered(scope: TaskScope, session: Session) -> None:
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


def _retained_runs() -> int:
    return int(conf.getint("core", "num_dag_runs_to_retain_rendered_fields", fallback=0))


def _replace(model: Any, where: ColumnElement[bool], rows: Iterable[_Values], session: Session) -> None:
    session.execute(delete(model).where(where).execution_options(synchronize_session=False))
    values = list(rows)
    if values:
        # The table, not the class: objects, whose constructors want more, are not needed.
        session.execute(insert(model.__table__), values)
