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

from airflow.sdk.configuration import conf

from orrery.config.errors import OrreryError
from orrery.config.pipeline import TESTS
from orrery.config.project import Project
from orrery.execute import run_folder
from orrery.execute.channel import HELD, HOLD, RELEASE, NodeState, Update
from orrery.execute.collector import Collector, Line, TaskRecord
from orrery.execute.compiled import compiled_paths, compiled_sql
from orrery.execute.narrow import left_out
from orrery.execute.node_log import NodeLogs
from orrery.execute.options import RunOptions
from orrery.execute.publisher import Publisher, Store
from orrery.execute.results import read_results, severity, summary
from orrery.manifest.dbt import Dbt
from orrery.plan.descent import Descent
from orrery.plan.model import PipelinePlan, TaskKind, TaskPlan

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)

# States in which a task waits for a build.
_WAITING = (None, "up_for_reschedule")
_DONE = ("success", "skipped")
# States in which a worker has a task, or will have it in a moment, and for how many seconds a build waits.
_BUSY = ("scheduled", "queued", "running", "restarting")
_SETTLE = 20.0
_PAUSE = 0.5
_LEVELS = {"info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
# What a failed node's task gets of dbt's log and of its SQL, in characters.
_MOST = 20_000


class NotConfiguredError(OrreryError):
    """Airflow's task state store is not Orrery's."""


class BuildRun:
    """The work of the task `build`.

    `execute` runs everything of the pipeline that waits for it, in dbt's order, and returns how many
    tasks ended in which state. A failed node fails its own task, not the build. Whoever stops the build
    sets `stopping` first: what dbt then cancels has not failed.
    """

    def __init__(self, plan: PipelinePlan, options: RunOptions, context: Context) -> None:
        self.stopping = False
        self._plan, self._options = plan, options
        self._tasks = {tid: task for tid, task in plan.tasks.items() if task.kind is not TaskKind.MARKER}
        self._descent = Descent(plan.tasks)
        self._ti: Any = context["ti"]
        self._store: Store = context["task_state_store"]
        self._logs = NodeLogs(self._ti, context.get("logical_date"))
        project = Project.find()
        self._folder = run_folder.prepare(project, plan.name, self._ti.run_id)
        self._dbt = Dbt(project, target_dir=self._folder, variables=options.variables)
        self._publisher: Publisher
        self._tries: dict[str, int] = {}
        self._ended: dict[str, NodeState] = {}
        self._hooks: dict[str, Any] | None = None
        self._begun = False

    def execute(self) -> Counter[str]:
        """Build; raises OptionsError, DbtError, NotConfiguredError before anything runs."""
        reasons = left_out(self._tasks.values(), self._options, self._dbt)
        self._publisher = Publisher(self._store, lost=_stop_this_process)
        try:
            for task_id, reason in reasons.items():
                self._skip(task_id, reason)
            waiting = [tid for tid in self._tasks if tid not in reasons]
            while waiting and (held := self._hold(waiting)):
                self._run(held)
                waiting = self._ready(set(reasons))
            self._finish_markers()
        except BaseException:
            self._publisher.close()
            # Airflow may have forgotten this try; then the next one takes the tasks over.
            with suppress(Exception):
                self._store.set(RELEASE, {})
            raise
        self._publisher.close()
        self._logs.upload()
        run_folder.tidy(self._folder)
        return Counter(str(state) for state in self._ended.values())

    def _hold(self, waiting: list[str]) -> list[TaskPlan]:
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
            self._publisher.add(Update(task_id, NodeState.RELEASED))
        self._tries |= held
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

    def _ready(self, reasons: set[str]) -> list[str]:
        """Tasks that were cleared while the build was at work."""
        self._publisher.flush()
        states = self._states()
        cleared = {
            task_id
            for task_id in self._tasks
            if states.get(task_id) in _WAITING and task_id not in self._ended and task_id not in reasons
        }
        return list(self._descent.runnable(cleared, states, _DONE))

    def _states(self) -> dict[str, str | None]:
        """The states of the tasks of the run, as Airflow has them."""
        run_id = self._ti.run_id
        states: dict[str, str | None] = self._ti.get_task_states(
            dag_id=self._ti.dag_id, run_ids=[run_id]
        ).get(run_id, {})
        return states

    def _run(self, held: list[TaskPlan]) -> None:
        """Sources are checked as soon as what fills them is done; then comes the rest, at once."""
        remaining = {task.task_id: task for task in held}
        while True:
            self._bar(remaining)
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
                self._check_freshness(ready)
            else:
                self._build(makers, remaining)
            for task in ready or makers:
                remaining.pop(task.task_id)
        if self._plan.config.tests == "end":
            # A failed test holds nothing back here, so the tests come in a command of their own.
            tests = {tid: task for tid, task in remaining.items() if task.stage == TESTS}
            nodes = {tid: task for tid, task in remaining.items() if tid not in tests}
            self._build(nodes.values(), remaining)
            self._bar(tests)
            self._build(tests.values(), tests)
        else:
            self._build(remaining.values(), remaining)

    def _bar(self, remaining: dict[str, TaskPlan]) -> None:
        """Take out what has ended, and what descends from a failed task: Airflow's rules decide about it."""
        failed = [tid for tid, state in self._ended.items() if state is NodeState.FAILED]
        for task_id in self._descent.descendants(failed) & set(remaining):
            self._release(task_id)
        for task_id in self._ended.keys() & set(remaining):
            del remaining[task_id]

    def _build(self, tasks: Iterable[TaskPlan], remaining: Mapping[str, TaskPlan]) -> None:
        tasks = list(tasks)
        if not tasks:
            return
        collector = self._collector(tasks)
        self._choose_hooks(first=not self._begun, last=len(tasks) == len(remaining))
        self._begun = True
        result = self._dbt.run(
            ["build"],
            collector,
            **self._dbt.exactly(uid for task in tasks for uid in task.nodes),
            **({"full_refresh": True} if self._options.full_refresh else {}),
            **({"threads": self._options.threads} if self._options.threads else {}),
        )
        if result.exception is not None:
            raise result.exception
        for task in tasks:
            # dbt had nothing to do for it: the project is not the one that the DAG was made from.
            if task.task_id not in self._ended:
                self._release(task.task_id)

    def _check_freshness(self, tasks: list[TaskPlan]) -> None:
        collector = self._collector(tasks)
        self._choose_hooks(first=False, last=False)
        result = self._dbt.run(
            ["source", "freshness"],
            collector,
            select=tuple(selector for task in tasks for selector in task.select),
            **({"threads": self._options.threads} if self._options.threads else {}),
        )
        if result.exception is not None:
            raise result.exception
        collector.finish(read_results(self._folder))

    def _choose_hooks(self, *, first: bool, last: bool) -> None:
        """Let on-run-start and on-run-end run once, however many commands there are."""
        nodes: Any = self._dbt.manifest.nodes
        if self._hooks is None:
            self._hooks = {uid: node for uid, node in nodes.items() if uid.startswith("operation.")}
        for uid, node in self._hooks.items():
            nodes.pop(uid, None)
            if (first and "on-run-start" in node.tags) or (last and "on-run-end" in node.tags):
                nodes[uid] = node

    def _collector(self, tasks: Iterable[TaskPlan]) -> Collector:
        return Collector(tasks, started=self._on_start, ended=self._on_end, told=_tell)

    def _on_start(self, record: TaskRecord) -> None:
        self._publisher.add(Update(record.task.task_id, NodeState.RUNNING, start=record.start))

    def _on_end(self, record: TaskRecord) -> None:
        """dbt is done with the nodes of a task."""
        task_id = record.task.task_id
        if record.failed and self.stopping:
            self._release(task_id)
        elif record.failed and not self._excused(record):
            self._fail(record)
        elif record.skipped:
            self._release(task_id)
        elif self._is_stale(record) and self._plan.config.stale == "skip":
            self._skip_stale(record)
        else:
            result = summary(record.results)
            warned = severity(result["status"]) >= severity("warn")
            self._log(record, "Built by the task 'build' of this run.")
            self._end(
                Update(
                    task_id,
                    NodeState.SUCCESS,
                    start=record.start,
                    end=record.end,
                    result=result,
                    rendered=self._rendered(record),
                    note=f"Warning: {result['message']}" if warned else None,
                )
            )

    @staticmethod
    def _is_stale(record: TaskRecord) -> bool:
        # "error" is too old; a source that could not be checked at all is a "runtime error".
        kind = record.task.kind
        return kind is TaskKind.FRESHNESS and any(result.status == "error" for result in record.results)

    def _excused(self, record: TaskRecord) -> bool:
        return self._is_stale(record) and self._plan.config.stale != "fail"

    def _skip_stale(self, record: TaskRecord) -> None:
        message = summary(record.results)["message"]
        name = record.task.name
        self._log(record, f"The source is stale: {message}")
        self._skip(record.task.task_id, f"The source is stale: {message}", record)
        for task_id in self._descent.descendants([record.task.task_id]):
            if task_id in self._tries and task_id not in self._ended:
                self._skip(task_id, f"The source {name} is stale: {message}")

    def _skip(self, task_id: str, reason: str, record: TaskRecord | None = None) -> None:
        now = datetime.now(UTC).isoformat()
        result = summary(record.results) if record else {"status": "skipped", "message": reason}
        self._end(
            Update(
                task_id,
                NodeState.SKIPPED,
                start=(record.start if record else None) or now,
                end=(record.end if record else None) or now,
                result=result,
                note=reason,
            )
        )

    def _release(self, task_id: str) -> None:
        self._end(Update(task_id, NodeState.RELEASED))

    def _fail(self, record: TaskRecord) -> None:
        result = summary(record.results)
        self._end(
            Update(
                record.task.task_id,
                NodeState.FAILED,
                start=record.start,
                failure={
                    "result": result,
                    "lines": [[line.time, line.level, line.text] for line in record.lines][-200:],
                    "compiled_sql": compiled_sql(self._dbt.manifest, record.task.nodes)[:_MOST],
                    "compiled_paths": compiled_paths(self._dbt.manifest, record.task.nodes),
                },
            )
        )

    def _end(self, update: Update) -> None:
        self._ended[update.task_id] = update.state
        self._publisher.add(update)

    def _log(self, record: TaskRecord, first: str) -> None:
        lines = [Line(record.start or "", "info", first), *record.lines]
        lines += [
            Line(record.end or "", "info", f"Compiled SQL: {path}")
            for path in compiled_paths(self._dbt.manifest, record.task.nodes)
        ]
        self._logs.write(record.task.task_id, self._tries[record.task.task_id], lines)

    def _rendered(self, record: TaskRecord) -> dict[str, str]:
        sql = compiled_sql(self._dbt.manifest, record.task.nodes)
        most = conf.getint("core", "max_templated_field_length")
        if len(sql) > most:
            sql = f"-- The beginning only, see [core] max_templated_field_length.\n{sql[:most]}"
        return {"compiled_sql": sql}

    def _finish_markers(self) -> None:
        """End the points that only wait, so that the scheduler need not go through them one by one."""
        self._publisher.flush()
        states = self._states()
        now = datetime.now(UTC).isoformat()
        for task_id in self._descent.ordered():
            task = self._plan.tasks[task_id]
            waiting = task.kind is TaskKind.MARKER and states.get(task_id) is None
            if waiting and self._descent.waits_for_none(task, states, _DONE):
                states[task_id] = "success"
                self._publisher.add(Update(task_id, NodeState.SUCCESS, start=now, end=now))


def _tell(line: Line) -> None:
    log.log(_LEVELS.get(line.level, logging.INFO), "%s", line.text)


def _stop_this_process() -> None:
    # The signal with which Airflow stops a task: it ends dbt in the main thread.
    os.kill(os.getpid(), signal.SIGTERM)
