"""The Airflow side of a build: which tasks wait for it, and what Airflow learns of them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.stages import INGEST
from orrery.execute.assignment import Assignment
from orrery.execute.channel import HELD, HOLD, RELEASE, NodeState, Update
from orrery.execute.elementary import why_absent
from orrery.execute.node_log import NodeLogs
from orrery.execute.options import SKIPPED_STAGE, RunOptions
from orrery.execute.publisher import Publisher, Store
from orrery.execute.reporter import Logs
from orrery.execute.results import outcome
from orrery.execute.tally import Tally
from orrery.manifest.packages import ELEMENTARY
from orrery.plan.descent import Descent
from orrery.plan.model import PipelinePlan, TaskKind
from orrery.plan.objects import check_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

# States in which a task waits for a build.
_WAITING = (None, "up_for_reschedule")
_DONE = ("success", "skipped")
# States in which a worker has a task, or will have it in a moment, and for how many seconds a build waits.
_BUSY = ("scheduled", "queued", "running", "restarting")
_SETTLE = 20.0
_PAUSE = 0.5


class NotConfiguredError(OrreryError):
    """Airflow's task state store is not Orrery's."""


class Runner(Protocol):
    """Where dbt runs: orrery.execute.dbt_run.DbtRun, or a pod."""

    @property
    def warnings(self) -> Mapping[str, str]:
        """What dbt warned of, by task."""

    def begin(self) -> None:
        """Get ready; raises OptionsError and DbtError before anything runs."""

    def run(self, tries: Mapping[str, int]) -> None:
        """Run tasks, given by their ids with the numbers of their tries."""

    def stop(self) -> None:
        """Dbt is about to be interrupted."""

    def close(self) -> None:
        """Nothing more is to be run."""


class MakeRunner(Protocol):
    """Makes the runner of a build."""

    def __call__(self, assignment: Assignment, tally: Tally, logs: Logs, context: Context) -> Runner: ...


class BuildRun:
    """The work of the task `build`.

    `execute` runs everything of the pipeline that waits for it, in dbt's order, and returns how many
    tasks ended in which state. A failed node fails its own task, not the build.
    """

    def __init__(
        self, plan: PipelinePlan, options: RunOptions, context: Context, make_runner: MakeRunner
    ) -> None:
        self._plan, self._options, self._make_runner = plan, options, make_runner
        self._context = context
        self._ti: Any = context["ti"]
        self._assignment = Assignment.of(plan, options, self._ti)
        self._tasks = self._assignment.built
        self._descent = Descent(plan.tasks)
        self._store: Store = context["task_state_store"]
        self._logs = NodeLogs(self._ti, context.get("logical_date"))
        self._publisher: Publisher
        self._tally: Tally
        self._runner: Runner | None = None

    def stop(self) -> None:
        """Say that the build is about to be interrupted: what dbt then cancels has not failed."""
        if self._runner is not None:
            self._runner.stop()

    @property
    def warnings(self) -> dict[str, str]:
        """What dbt warned of, by task."""
        return dict(self._runner.warnings) if self._runner else {}

    def execute(self) -> Counter[str]:
        """Build; raises OptionsError, DbtError, NotConfiguredError before anything runs."""
        if self._options.uri:
            works = [task.work for task in self._plan.tasks.values() if task.work and task.stage == INGEST]
            check_object(works, self._options.uri, Project.find())
        self._publisher = Publisher(self._store, lost=_stop_this_process)
        tally = self._tally = Tally(self._publisher)
        runner = self._runner = self._make_runner(self._assignment, tally, self._logs, self._context)
        try:
            runner.begin()
            waiting = list(self._tasks)
            while waiting and (tries := self._hold(waiting)):
                runner.run(tries)
                waiting = self._ready()
            self._finish_markers()
            self._skip_publishing()
        except BaseException:
            self._publisher.close()
            # Airflow may have forgotten this try; then the next one takes the tasks over.
            with suppress(Exception):
                self._store.set(RELEASE, {})
            runner.close()
            raise
        self._publisher.close()
        runner.close()
        self._logs.upload()
        return Counter(str(state) for state in tally.ended.values())

    def _hold(self, waiting: list[str]) -> dict[str, int]:
        """Take the tasks on which nobody else works; the others have ended or run on workers.

        Returns what is to be run, with the numbers of the tries. A worker may be about to ask for a node on
        which tasks of this build depend, or to fail it: that takes a moment, which the build waits. What is
        still not to be run then, is given back.
        """
        deadline = time.monotonic() + _SETTLE
        while True:
            held = self._take(waiting)
            states = self._states()
            runnable = self._descent.runnable(held.keys(), states, _DONE)
            busy = {tid for tid in self._tasks if tid not in held and states.get(tid) in _BUSY}
            early = held.keys() - runnable
            if not early or not busy or time.monotonic() > deadline:
                break
            time.sleep(_PAUSE)
        for task_id in early:
            self._tally.release(task_id)
        return {task_id: number for task_id, number in held.items() if task_id in runnable}

    def _take(self, waiting: list[str]) -> dict[str, int]:
        """Take tasks; returns those that the build has now, with the numbers of their next tries."""
        self._publisher.flush()
        self._store.set(HOLD, {"tasks": waiting, "host": self._ti.hostname or "", "pid": os.getpid()})
        held: dict[str, int] | None = self._store.get(HELD)
        if held is None:
            raise NotConfiguredError(
                "Airflow's api-server does not know how to end the tasks of a build.\n"
                "  Set AIRFLOW__STATE_STORE__BACKEND=orrery.execute.state_store.NodeStateStore for it, or "
                "execute: per_model in the pipeline's file."
            )
        return held

    def _ready(self) -> list[str]:
        """Tasks that were cleared while the build was at work, or that wait for no failed task after all."""
        self._publisher.flush()
        states = self._states()
        waiting = {tid for tid in self._tasks if states.get(tid) in _WAITING and self._tally.is_open(tid)}
        return list(self._descent.runnable(waiting, states, _DONE))

    def _states(self) -> dict[str, str | None]:
        """The states of the tasks of the run, as Airflow has them."""
        run_id = self._ti.run_id
        states: dict[str, str | None] = self._ti.get_task_states(
            dag_id=self._ti.dag_id, run_ids=[run_id]
        ).get(run_id, {})
        return states

    def _finish_markers(self) -> None:
        """End the points that only wait, so that the scheduler need not go through them one by one."""
        self._publisher.flush()
        states = self._states()
        now = datetime.now(UTC).isoformat()
        markers = [task_id for task_id, task in self._plan.tasks.items() if task.kind is TaskKind.MARKER]
        waiting = {task_id for task_id in markers if states.get(task_id) is None}
        for task_id in self._descent.runnable(waiting, states, _DONE):
            self._publisher.add(Update(task_id, NodeState.SUCCESS, start=now, end=now))

    def _skip_publishing(self) -> None:
        """Skip tasks with nothing to publish: of a worker's task Airflow notices that seconds late."""
        absent = why_absent(Project.find())
        now = datetime.now(UTC).isoformat()
        for task_id, task in self._plan.tasks.items():
            if task.kind is not TaskKind.PUBLISH:
                continue
            left = SKIPPED_STAGE.format(task.stage) if task.stage in self._options.skip_stages else None
            if reason := left or (absent if task.name == ELEMENTARY else None):
                result = outcome(reason, status="skipped")
                self._publisher.add(
                    Update(task_id, NodeState.SKIPPED, start=now, end=now, result=result, note=reason)
                )


def _stop_this_process() -> None:
    # The signal with which Airflow stops a task: it ends dbt in the main thread.
    os.kill(os.getpid(), signal.SIGTERM)
