"""An Airflow without its daemons: the real scheduler, api-server and supervisors, called one step at a time.

Real are the metadata database, the scheduler's decisions (SchedulerJobRunner), the execution API with
Orrery's task state store, the Task SDK's supervisor and the process of each task, and the public API by
which hands work. Not there: the loop around them, the DAG processor (DAGs are stored by the function that
it calls), the triggerer (no trigger is used), and the wait: where only a clock would bring a run forward,
the clock is set (`pass_time`).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import traceback
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn

from airflow import settings
from airflow.api_fastapi.app import init_auth_manager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.common.dagbag import create_dag_bag
from airflow.api_fastapi.core_api.routes.public.dag_run import dag_run_router
from airflow.api_fastapi.core_api.routes.public.task_instances import task_instances_router
from airflow.api_fastapi.core_api.security import get_user
from airflow.api_fastapi.execution_api.app import InProcessExecutionAPI
from airflow.configuration import conf
from airflow.dag_processing.collection import update_dag_parsing_results_in_db
from airflow.executors.base_executor import BaseExecutor
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskreschedule import TaskReschedule
from airflow.sdk import DAG
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.supervisor import ActivitySubprocess
from airflow.serialization.serialized_objects import LazyDeserializedDAG
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Interval, func, literal, select, update
from sqlalchemy.orm import Session

BUNDLE = "differential"
_FAILED = 1
_ADDRESS = "http://in-process.invalid./"
# States that a clock alone may end.
_BY_THE_CLOCK = (
    TaskInstanceState.UP_FOR_RETRY,
    TaskInstanceState.UP_FOR_RESCHEDULE,
    TaskInstanceState.DEFERRED,
    TaskInstanceState.RUNNING,
    TaskInstanceState.RESTARTING,
)
# Airflow compares with "later than".
_A_MOMENT = timedelta(milliseconds=100)


class ForkExecutor(BaseExecutor):
    """Forks a process for each task, in which the Task SDK's supervisor runs it, as LocalExecutor does."""

    is_local = True

    def __init__(self, api: InProcessExecutionAPI, dags: dict[str, DAG]) -> None:
        super().__init__(parallelism=16)
        self.job_id = None
        self._api, self._dags = api, dags
        self.workers: dict[int, Any] = {}
        # Whether a worker had ended when it was last looked.
        self.ended = False

    def _process_workloads(self, workload_items: Any) -> None:
        for workload in workload_items:
            del self.queued_tasks[workload.key]
            self.running.add(workload.key)
            gc.freeze()
            pid = os.fork()
            if pid == 0:
                self._work(workload)
            gc.unfreeze()
            self.workers[pid] = workload.key

    def sync(self) -> None:
        """Take down which workers have ended."""
        self.ended = False
        for pid, key in list(self.workers.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self.ended = True
                del self.workers[pid]
                if os.waitstatus_to_exitcode(status) == 0:
                    self.success(key)
                else:
                    self.fail(key)

    def end(self) -> None:
        """Kill the workers."""
        for pid in self.workers:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.workers.clear()

    def _work(self, workload: Any) -> NoReturn:
        code = _FAILED
        try:
            os.setpgid(0, 0)
            settings.engine.dispose(close=False)
            task_runner.parse = self._parse
            client = Client(base_url=None, token="", dry_run=True, transport=self._api.transport)
            client.base_url = _ADDRESS
            task = ActivitySubprocess.start(
                what=workload.ti,
                dag_rel_path=workload.dag_rel_path,
                bundle_info=workload.bundle_info,
                client=client,
            )
            task.wait()
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.stderr)
        finally:
            sys.stderr.flush()
            os._exit(code)

    def _parse(self, what: Any, log: Any) -> Any:
        """The task instance of a task process, without reading DAG files."""
        return task_runner.RuntimeTaskInstance.model_construct(
            **what.ti.model_dump(exclude_unset=True),
            task=self._dags[what.ti.dag_id].task_dict[what.ti.task_id],
            bundle_instance=_Bundle(),
            _ti_context_from_server=what.ti_context,
            max_tries=what.ti_context.max_tries,
            start_date=what.start_date,
            state=TaskInstanceState.RUNNING,
            sentry_integration="",
        )


def _public_api() -> FastAPI:
    """The part of the public API that starts runs and that hands use, for anybody."""
    app = FastAPI()
    app.state.dag_bag = create_dag_bag()
    for router in (dag_run_router, task_instances_router):
        app.include_router(router, prefix="/api/v2")
    init_auth_manager(app)
    app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(username="hand", role="admin")
    return app


class _Bundle:
    name = BUNDLE
    version = None
    view_url_template = None


class World:
    """The Airflow of this process."""

    def __init__(self) -> None:
        self.dags: dict[str, DAG] = {}
        self._api = InProcessExecutionAPI()
        self._warm()
        self.executor = ForkExecutor(self._api, self.dags)
        with create_session() as session:
            session.merge(DagBundleModel(name=BUNDLE))
            job = Job()
            session.add(job)
        self._job = job
        self.scheduler = SchedulerJobRunner(job, executors=[self.executor])
        self._job.executor = self.executor
        self._http = TestClient(_public_api())

    def _warm(self) -> None:
        """Let the execution API make its routes, which takes seconds, before any process is forked."""
        # A fork has no other thread: each makes a loop of its own for the same routes.
        self._warmed = InProcessExecutionAPI()
        self._api._app = self._warmed.app
        client = Client(base_url=None, token="", dry_run=True, transport=self._warmed.transport)
        client.base_url = _ADDRESS
        client.get("health/ping").raise_for_status()

    def store(self, *dags: DAG) -> None:
        """Make the DAGs of one file known, as the DAG processor does."""
        for dag in dags:
            dag.fileloc = dag.fileloc or "orrery.py"
            dag.relative_fileloc = "orrery.py"
            self.dags[dag.dag_id] = dag
        parsed = [LazyDeserializedDAG.from_dag(dag) for dag in dags]
        errors: dict[tuple[str, str], str] = {}
        with create_session() as session:
            update_dag_parsing_results_in_db(BUNDLE, None, parsed, errors, 0.1, set(), session)
        assert not errors, errors

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Airflow's public API."""
        answer = self._http.request(method, f"/api/v2{path}", json=body)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    def step(self) -> bool:
        """One pass of the scheduler's loop; returns whether anything has happened."""
        with create_session() as session:
            queued = self.scheduler._do_scheduling(session)
            session.expunge_all()
        self.executor.heartbeat()
        with create_session() as session:
            finished = self.scheduler._process_executor_events(executor=self.executor, session=session)
        return bool(queued or finished)

    def run_state(self, dag_id: str, run_id: str) -> str:
        """The state of a DAG run."""
        with create_session() as session:
            found = session.scalar(select(DagRun.state).filter_by(dag_id=dag_id, run_id=run_id))
        return str(found)

    def states(self, dag_id: str, run_id: str) -> dict[str, str | None]:
        """The state of each task of a run."""
        with create_session() as session:
            rows = session.execute(
                select(TaskInstance.task_id, TaskInstance.state).filter_by(dag_id=dag_id, run_id=run_id)
            )
            return {task_id: state and str(state) for task_id, state in rows}

    def pass_time(self, dag_id: str, run_id: str) -> bool:
        """Set the clock forward to when the next thing that waits for it is due; False if nothing does."""
        of_run = {"dag_id": dag_id, "run_id": run_id}
        with create_session() as session:
            waiting = session.scalars(
                select(TaskInstance).filter_by(**of_run).where(TaskInstance.state.in_(_BY_THE_CLOCK))
            ).all()
            due = [moment for ti in waiting if (moment := self._due(ti, session))]
            if not due:
                return False
            passed = max(min(due) - datetime.now(UTC), timedelta()) + _A_MOMENT
            for ti in waiting:
                for column in ("end_date", "trigger_timeout", "last_heartbeat_at"):
                    if moment := getattr(ti, column):
                        setattr(ti, column, moment - passed)
                session.execute(
                    update(TaskReschedule)
                    .where(TaskReschedule.ti_id == ti.id)
                    .values(reschedule_date=TaskReschedule.reschedule_date - literal(passed, Interval()))
                )
        self.scheduler.check_trigger_timeouts()
        self.scheduler._find_and_purge_task_instances_without_heartbeats()
        return True

    def _due(self, ti: TaskInstance, session: Session) -> datetime | None:
        """When Airflow does something about a task that waits, though nothing else happens."""
        moment: datetime | None
        match ti.state:
            case TaskInstanceState.DEFERRED:
                moment = ti.trigger_timeout
            case TaskInstanceState.UP_FOR_RETRY:
                ti.task = self.dags[ti.dag_id].task_dict[ti.task_id]
                moment = ti.next_retry_datetime()
            case TaskInstanceState.UP_FOR_RESCHEDULE:
                moment = session.scalar(
                    select(func.max(TaskReschedule.reschedule_date)).where(TaskReschedule.ti_id == ti.id)
                )
            case _:
                silent = conf.getint("scheduler", "task_instance_heartbeat_timeout")
                moment = ti.last_heartbeat_at and ti.last_heartbeat_at + timedelta(seconds=silent)
        return moment

    def end_run(self, dag_id: str, run_id: str) -> None:
        """Kill what is at work, and forget the run."""
        self.executor.end()
        with create_session() as session:
            run = session.scalar(select(DagRun).filter_by(dag_id=dag_id, run_id=run_id))
            if run is not None:
                run.state = DagRunState.FAILED
        self.executor.running.clear()
        self.executor.event_buffer.clear()
