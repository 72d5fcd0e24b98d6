"""One dbt process for the nodes of a whole pipeline, which tells Airflow of each of them."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from orrery.config.errors import OrreryError
from orrery.config.pipeline import INGEST, TESTS
from orrery.config.project import Project
from orrery.execute import run_folder
from orrery.execute.channel import HELD, HOLD, RELEASE, NodeState, Update
from orrery.execute.collector import Collector, Line
from orrery.execute.elementary import make_tables, run_environment, takes_part, why_absent
from orrery.execute.hooks import Hooks
from orrery.execute.ledger import Ledger
from orrery.execute.narrow import left_out
from orrery.execute.node_log import NodeLogs
from orrery.execute.options import SKIPPED_STAGE, RunOptions
from orrery.execute.publisher import Publisher, Store
from orrery.execute.reporter import Reporter
from orrery.execute.results import outcome, read_results
from orrery.manifest.dbt import Dbt
from orrery.manifest.packages import ELEMENTARY
from orrery.plan.descent import Descent
from orrery.plan.model import PipelinePlan, TaskKind, TaskPlan
from orrery.plan.objects import check_object

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# What dbt has no part in.
_NOT_BUILT = (TaskKind.MARKER, TaskKind.INGEST, TaskKind.EXPOSURE, TaskKind.PUBLISH)
# States in which a task waits for a build.
_WAITING = (None, "up_for_reschedule")
_DONE = ("success", "skipped")
# States in which a worker has a task, or will have it in a moment, and for how many seconds a build waits.
_BUSY = ("scheduled", "queued", "running", "restarting")
_SETTLE = 20.0
_PAUSE = 0.5
_LEVELS = {"info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_UNKNOWN = "dbt has no such node in this run: it was removed, or it is disabled with these vars."


class NotConfiguredError(OrreryError):
    """Airflow's task state store is not Orrery's."""


class BuildRun:
    """The work of the task `build`.

    `execute` runs everything of the pipeline that waits for it, in dbt's order, and returns how many
    tasks ended in which state. A failed node fails its own task, not the build.
    """

    def __init__(self, plan: PipelinePlan, options: RunOptions, context: Context) -> None:
        self._plan, self._options = plan, options
        self._threads = {"threads": options.threads} if options.threads else {}
        self._tasks = {tid: task for tid, task in plan.tasks.items() if task.kind not in _NOT_BUILT}
        self._descent = Descent(plan.tasks)
        self._ti: Any = context["ti"]
        self._store: Store = context["task_state_store"]
        self._logs = NodeLogs(self._ti, context.get("logical_date"))
        project = Project.find()
        self._folder = run_folder.prepare(project, plan.name, self._ti.run_id)
        self._elementary = takes_part(plan.config, project)
        self._dbt = Dbt(
            project,
            target_dir=self._folder,
            variables=options.variables,
            environment=run_environment(self._ti, results=self._elementary),
        )
        self._ledger = Ledger(plan.name, self._ti.run_id, self._dbt, self._folder)
        self._publisher: Publisher
        self._reporter: Reporter | None = None
        self._hooks = Hooks(self._dbt, elementary=self._elementary)
        self._begun = False

    def stop(self) -> None:
        """Say that the build is about to be interrupted: what dbt then cancels has not failed."""
        if self._reporter is not None:
            self._reporter.stopping = True

    @property
    def warnings(self) -> dict[str, str]:
        """What dbt warned of, by task."""
        return self._reporter.warnings if self._reporter else {}

    def execute(self) -> Counter[str]:
        """Build; raises OptionsError, DbtError, NotConfiguredError before anything runs."""
        if self._options.uri:
            works = [task.work for task in self._plan.tasks.values() if task.work and task.stage == INGEST]
            check_object(works, self._options.uri, Project.find())
        left = left_out(self._tasks.values(), self._options, self._dbt)
        if self._elementary:
            self._hooks.choose(builds=False)
            make_tables(self._dbt)
        self._publisher = Publisher(self._store, lost=_stop_this_process)
        reporter = self._reporter = Reporter(
            self._publisher,
            logs=self._logs,
            dbt=self._dbt,
            ledger=self._ledger,
            descent=self._descent,
            left=left,
            stale=self._plan.config.stale,
        )
        try:
            waiting = list(self._tasks)
            while waiting and (held := self._hold(waiting, reporter)):
                self._run(held, reporter)
                waiting = self._ready(reporter)
            self._finish_markers()
            self._skip_publishing()
        except BaseException:
            self._publisher.close()
            # Airflow may have forgotten this try; then the next one takes the tasks over.
            with suppress(Exception):
                self._store.set(RELEASE, {})
            self._ledger.write()
            raise
        self._publisher.close()
        self._ledger.write()
        self._logs.upload()
        run_folder.tidy(self._folder)
        return Counter(str(state) for state in reporter.ended.values())

    def _hold(self, waiting: list[str], reporter: Reporter) -> list[TaskPlan]:
        """Take the tasks on which nobody else works; the others have ended or run on workers.

        A worker may be about to ask for a node on which tasks of this build depend, or to fail it: that
        takes a moment, which the build waits. What is still not to be run then, is given back.
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
            reporter.release(task_id)
        reporter.tries |= held
        return [task for task_id, task in self._tasks.items() if task_id in runnable]

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

    def _ready(self, reporter: Reporter) -> list[str]:
        """Tasks that were cleared while the build was at work, or that wait for no failed task after all."""
        self._publisher.flush()
        states = self._states()
        waiting = {tid for tid in self._tasks if states.get(tid) in _WAITING and reporter.is_open(tid)}
        return list(self._descent.runnable(waiting, states, _DONE))

    def _states(self) -> dict[str, str | None]:
        """The states of the tasks of the run, as Airflow has them."""
        run_id = self._ti.run_id
        states: dict[str, str | None] = self._ti.get_task_states(
            dag_id=self._ti.dag_id, run_ids=[run_id]
        ).get(run_id, {})
        return states

    def _run(self, held: list[TaskPlan], reporter: Reporter) -> None:
        """Sources are checked as soon as what fills them is done; then comes the rest, at once."""
        remaining = {task.task_id: task for task in held}
        while True:
            self._settle(remaining, reporter)
            checks = [task for task in remaining.values() if task.kind is TaskKind.FRESHNESS]
            if not checks:
                break
            unchecked = {task.task_id for task in checks}
            before = {tid for check in unchecked for tid in self._descent.ancestors(check)} & set(remaining)
            ready = [task for task in checks if before.isdisjoint(self._descent.ancestors(task.task_id))]
            makers = [
                remaining[tid]
                for tid in before - unchecked
                if unchecked.isdisjoint(self._descent.ancestors(tid))
            ]
            if ready:
                self._check_freshness(ready, reporter)
            else:
                self._build(makers, remaining, reporter)
            for task in ready or makers:
                del remaining[task.task_id]
        if self._plan.config.tests == "end":
            # A failed test holds nothing back here, so the tests come in a command of their own.
            tests = {tid: task for tid, task in remaining.items() if task.stage == TESTS}
            nodes = {tid: task for tid, task in remaining.items() if tid not in tests}
            self._build(nodes.values(), remaining, reporter)
            self._settle(tests, reporter)
            self._build(tests.values(), tests, reporter)
        else:
            self._build(remaining.values(), remaining, reporter)
        reporter.settle_left(())

    @staticmethod
    def _settle(remaining: dict[str, TaskPlan], reporter: Reporter) -> None:
        """Take out what is not to be run: what the run leaves out, and what descends from a failed task."""
        for task_id in reporter.left.keys() & remaining.keys():
            del remaining[task_id]
        for task_id in reporter.barred() & remaining.keys():
            del remaining[task_id]
            reporter.release(task_id)
        reporter.settle_left(remaining)

    def _build(
        self, tasks: Iterable[TaskPlan], remaining: Mapping[str, TaskPlan], reporter: Reporter
    ) -> None:
        tasks = list(tasks)
        if not tasks:
            return
        chosen = {"first": not self._begun, "last": len(tasks) == len(remaining)}
        self._begun = True
        while error := self._build_once(tasks, reporter, **chosen):
            ended = sum(task.task_id in reporter.ended for task in tasks)
            if not self._hooks.forgive(error, begun=ended > 0, ended=ended == len(tasks)):
                raise error
            if ended:
                break
        self._keep_results()
        self._finish(tasks, reporter)

    def _build_once(
        self, tasks: list[TaskPlan], reporter: Reporter, *, first: bool, last: bool
    ) -> BaseException | None:
        """One command of dbt; returns the error that has ended it before its time."""
        self._hooks.choose(first=first, last=last)
        return self._dbt.run(
            ["build"],
            Collector(tasks, started=reporter.started, ended=reporter.finished, told=_tell),
            **self._dbt.exactly(uid for task in tasks for uid in task.nodes),
            **({"full_refresh": True} if self._options.full_refresh else {}),
            **self._threads,
        ).exception

    def _keep_results(self) -> None:
        """Keep dbt's results where they are to be published; the next command overwrites them."""
        if self._plan.config.publish is not None:
            run_folder.keep_results(self._folder, self._folder)

    def _check_freshness(self, tasks: list[TaskPlan], reporter: Reporter) -> None:
        collector = Collector(tasks, started=reporter.started, ended=reporter.finished, told=_tell)
        self._hooks.choose(builds=False)
        result = self._dbt.run(
            ["source", "freshness"],
            collector,
            select=tuple(selector for task in tasks for selector in task.select),
            **self._threads,
        )
        if result.exception is not None:
            raise result.exception
        collector.finish(read_results(self._folder))
        self._keep_results()
        self._finish(tasks, reporter)

    def _finish(self, tasks: list[TaskPlan], reporter: Reporter) -> None:
        """Say what becomes of tasks of which dbt has not told the end."""
        manifest: Any = self._dbt.manifest
        for task in tasks:
            given_back = reporter.was_released(task.task_id) and task.task_id not in reporter.running
            if task.task_id in reporter.ended or given_back:
                continue
            if any(uid in manifest.nodes or uid in manifest.sources for uid in task.nodes):
                reporter.release(task.task_id)
            else:
                # The project is not the one that the DAG was made from, or not with these vars.
                reporter.left[task.task_id] = _UNKNOWN

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


def _tell(line: Line) -> None:
    log.log(_LEVELS.get(line.level, logging.INFO), "%s", line.text)


def _stop_this_process() -> None:
    # The signal with which Airflow stops a task: it ends dbt in the main thread.
    os.kill(os.getpid(), signal.SIGTERM)
