"""A DAG run in a real metadata database, without any process of Airflow.

What users do (clear, mark) and what the scheduler decides is Airflow's own code; a worker's part is done
here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance, TaskInstanceNote
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.sdk import DAG, TriggerRule
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.state import TaskScope
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import create_engine, delete, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from orrery.config.stages import BUILD
from orrery.execute.channel import FAIL_METHOD, REBUILD, NodeState, Update
from orrery.execute.node import BuiltNodeOperator
from orrery.execute.run_graph import RunGraph
from orrery.execute.state_store import NodeStateStore
from orrery.plan.model import TaskKind

DAG_ID, RUN_ID = "shop", "run"


class Build(BuiltNodeOperator):
    """Stands for the task `build`."""


@cache
def _empty() -> bytes:
    """A database with all tables; to make them takes seconds."""
    import_all_models()
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Base.metadata.create_all(engine)
    link = engine.raw_connection().driver_connection
    assert link is not None
    content: bytes = link.serialize()
    engine.dispose()
    return content


@contextmanager
def database() -> Iterator[Session]:
    """A session of an empty metadata database."""

    def connect() -> sqlite3.Connection:
        link = sqlite3.connect(":memory:", check_same_thread=False)
        link.deserialize(_empty())
        return link

    engine = create_engine("sqlite://", creator=connect, poolclass=StaticPool)
    with Session(engine, autoflush=False) as session:
        yield session
    engine.dispose()


@dataclass
class Store:
    """Airflow's task state store as a task has it, without the way through the api-server."""

    session: Session
    task_id: str

    def get(self, key: str, default: Any = None) -> Any:
        text = NodeStateStore().get(self._scope, key, session=self.session)
        return default if text is None else json.loads(text)

    def set(self, key: str, value: Any) -> None:
        NodeStateStore().set(self._scope, key, json.dumps(value), session=self.session)
        self.session.commit()
        self.session.expire_all()

    @property
    def _scope(self) -> TaskScope:
        return TaskScope(dag_id=DAG_ID, run_id=RUN_ID, task_id=self.task_id, map_index=-1)


class AirflowRun:
    """A run of a DAG whose nodes have `parents` and `retries`.

    :param hidden: edges that Airflow does not know, and dbt does
    """

    def __init__(
        self,
        session: Session,
        parents: Mapping[str, Collection[str]],
        *,
        retries: int = 0,
        hidden: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.session = session
        hidden = set(hidden)
        self.graph = RunGraph(parents)
        dag = DAG(DAG_ID, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))
        common: dict[str, Any] = {"dag": dag, "retry_delay": timedelta(0)}
        common |= {"kind": TaskKind.MODEL, "stage": "core", "nodes": ()}
        build = Build(task_id=BUILD, retries=3, trigger_rule=TriggerRule.ALL_DONE, **common)
        made = {
            tid: BuiltNodeOperator(
                task_id=tid, retries=retries, trigger_rule=TriggerRule.NONE_FAILED, **common
            )
            for tid in parents
        }
        for task_id, above in parents.items():
            known = [other for other in above if (other, task_id) not in hidden]
            made[task_id].set_upstream([made[other] for other in known] or [build])
        session.add(DagBundleModel(name="dags"))
        session.flush()
        session.add(DagModel(dag_id=DAG_ID, bundle_name="dags", fileloc="shop.py", is_paused=False))
        session.flush()
        SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(dag), "dags", session=session)
        session.flush()
        self.dag = DagSerialization.from_dict(DagSerialization.to_dict(dag))
        self.dag.create_dagrun(
            run_id=RUN_ID,
            run_after=datetime.now(UTC),
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        session.commit()

    @property
    def dag_run(self) -> DagRun:
        found = self.session.scalars(select(DagRun).where(DagRun.run_id == RUN_ID)).one()
        found.dag = self.dag
        return found

    def store(self, task_id: str = BUILD) -> Store:
        return Store(self.session, task_id)

    def ti(self, task_id: str) -> TaskInstance:
        self.session.expire_all()
        query = select(TaskInstance).where(TaskInstance.task_id == task_id)
        return self.session.scalars(query).unique().one()

    def states(self) -> dict[str, str | None]:
        """The states of the nodes."""
        rows = self.session.execute(select(TaskInstance.task_id, TaskInstance.state))
        return {tid: None if state is None else str(state) for tid, state in rows if tid != BUILD}

    def set(self, task_id: str, **columns: Any) -> None:
        """Give the task instance of a task other values."""
        ti = self.ti(task_id)
        for name, value in columns.items():
            setattr(ti, name, value)
        self.session.commit()

    def note(self, task_id: str) -> str:
        query = select(TaskInstanceNote.content).where(TaskInstanceNote.ti_id == self.ti(task_id).id)
        return str(self.session.scalar(query))

    def tries(self, task_id: str) -> list[int]:
        """The numbers of all tries that Airflow shows of a task."""
        query = select(TaskInstanceHistory.try_number).where(TaskInstanceHistory.task_id == task_id)
        return [*sorted(self.session.scalars(query)), self.ti(task_id).try_number]

    # What users do.

    def clear(self, *task_ids: str, down: bool = False) -> set[str]:
        """Clear tasks, as the API does; returns which."""
        chosen = set(task_ids) | (self.dag_descendants(task_ids) if down else set())
        self.dag.clear(task_ids=sorted(chosen), run_id=RUN_ID, session=self.session)
        self.session.commit()
        return chosen

    def mark(self, task_id: str, state: str) -> None:
        """Mark a task as failed or as a success, as the API does."""
        self.dag.set_task_instance_state(
            task_id=task_id, run_id=RUN_ID, state=TaskInstanceState(state), session=self.session
        )
        self.session.commit()

    def dag_descendants(self, task_ids: Iterable[str]) -> set[str]:
        """What comes after tasks, as Airflow sees it."""
        return {
            other
            for tid in task_ids
            for other in self.dag.get_task(tid).get_flat_relative_ids(upstream=False)
        }

    # What Airflow does.

    def begin_build(self) -> None:
        """A worker begins with the build, in a new try."""
        build = self.ti(BUILD)
        number = build.try_number + (build.state != TaskInstanceState.SCHEDULED)
        started = {"state": TaskInstanceState.RUNNING, "start_date": datetime.now(UTC), "end_date": None}
        self.set(BUILD, try_number=number, hostname="worker", pid=7, **started)

    def end_build(self, state: str) -> None:
        build = self.ti(BUILD)
        build.set_state(TaskInstanceState(state), session=self.session)
        self.session.commit()

    def schedule(self) -> str:
        """Have the scheduler look at the run once; returns the state of the run."""
        self.session.expire_all()
        run = self.dag_run
        schedulable, _ = run.update_state(session=self.session, execute_callbacks=False)
        run.schedule_tis(schedulable, session=self.session)
        self.session.commit()
        return str(run.state)

    def work(self) -> None:
        """Do what workers do with the nodes that are scheduled: fail them, or ask for a build."""
        query = select(TaskInstance).where(TaskInstance.state == "scheduled", TaskInstance.task_id != BUILD)
        for ti in self.session.scalars(query).unique().all():
            if ti.next_method == FAIL_METHOD:
                self._fail(ti)
            else:
                ti.state, ti.unixname = TaskInstanceState.RUNNING, "airflow"
                self.session.commit()
                self.store(ti.task_id).set(REBUILD, {})
                if self.ti(ti.task_id).state == TaskInstanceState.RUNNING:
                    self.set(ti.task_id, state=TaskInstanceState.UP_FOR_RESCHEDULE)
            self.session.commit()

    def _fail(self, ti: TaskInstance) -> None:
        ti.next_method = ti.next_kwargs = None
        if ti.max_tries and ti.try_number <= ti.max_tries:
            ti.end_date = datetime.now(UTC)
            ti.prepare_db_for_next_try(self.session)
            ti.state = TaskInstanceState.UP_FOR_RETRY
        else:
            ti.set_state(TaskInstanceState.FAILED, session=self.session)

    def remove(self) -> None:
        """Delete the run."""
        self.session.execute(delete(DagRun))
        self.session.commit()


def news(task_id: str, state: str, **values: Any) -> Update:
    """News of a task."""
    at = datetime.now(UTC).isoformat()
    end = None if state == "running" else at
    return Update(task_id, NodeState(state), **{"start": at, "end": end, **values})
