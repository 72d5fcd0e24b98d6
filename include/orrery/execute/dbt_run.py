"""dbt's commands for the tasks of a build, in this process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from orrery.config.project import Project
from orrery.config.stages import TESTS
from orrery.execute import run_folder
from orrery.execute.assignment import Assignment
from orrery.execute.collector import Collector, Line
from orrery.execute.elementary import make_tables, run_environment
from orrery.execute.hooks import Hooks
from orrery.execute.ledger import Ledger
from orrery.execute.narrow import left_out
from orrery.execute.reporter import Logs, Reporter
from orrery.execute.results import read_results
from orrery.execute.tally import Tally
from orrery.manifest.dbt import Dbt
from orrery.manifest.packages import has_elementary
from orrery.plan.descent import Descent
from orrery.plan.model import TaskKind, TaskPlan

log = logging.getLogger(__name__)

_LEVELS = {"info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}
_UNKNOWN = "dbt has no such node in this run: it was removed, or it is disabled with these vars."


class DbtRun:
    """Runs tasks in dbt's order, and tells what becomes of each of them.

    :param tally: takes the news
    :param logs: keeps dbt's lines about each task
    """

    def __init__(self, assignment: Assignment, tally: Tally, logs: Logs) -> None:
        self._assignment, self._tally, self._logs = assignment, tally, logs
        options = assignment.options
        self._threads = {"threads": options.threads} if options.threads else {}
        self._descent = Descent(assignment.tasks)
        project = Project.find()
        self._folder = run_folder.prepare(project, assignment.dag_id, assignment.run_id)
        self._elementary = assignment.elementary and has_elementary(project)
        self._dbt = Dbt(
            project,
            target_dir=self._folder,
            variables=options.variables,
            environment=run_environment(assignment, results=self._elementary),
        )
        self._ledger = Ledger(assignment.dag_id, assignment.run_id, self._dbt, self._folder)
        self._hooks = Hooks(self._dbt, elementary=self._elementary)
        self._reporter: Reporter | None = None
        self._begun = False

    @property
    def warnings(self) -> dict[str, str]:
        """What dbt warned of, by task."""
        return self._reporter.warnings if self._reporter else {}

    def begin(self) -> None:
        """Get ready; raises OptionsError and DbtError before anything runs."""
        left = left_out(self._assignment.built.values(), self._assignment.options, self._dbt)
        if self._elementary:
            self._hooks.choose(builds=False)
            make_tables(self._dbt)
        self._reporter = Reporter(
            self._tally,
            logs=self._logs,
            dbt=self._dbt,
            ledger=self._ledger,
            descent=self._descent,
            left=left,
            stale=self._assignment.stale,
            most=self._assignment.max_field_length,
        )

    def stop(self) -> None:
        """Say that dbt is about to be interrupted: what it then cancels has not failed."""
        if self._reporter is not None:
            self._reporter.stopping = True

    def close(self) -> None:
        """Keep what the nodes did, and remove what only this run needed."""
        self._ledger.write()
        run_folder.tidy(self._folder)

    def run(self, tries: Mapping[str, int]) -> None:
        """Run tasks, given by their ids with the numbers of their tries.

        Sources are checked as soon as what fills them is done; then comes the rest, at once.
        """
        assert self._reporter is not None
        reporter = self._reporter
        reporter.tries |= tries
        remaining = {task_id: task for task_id, task in self._assignment.tasks.items() if task_id in tries}
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
        if self._assignment.tests == "end":
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
            ended = sum(task.task_id in self._tally.ended for task in tasks)
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
            **({"full_refresh": True} if self._assignment.options.full_refresh else {}),
            **self._threads,
        ).exception

    def _keep_results(self) -> None:
        """Keep dbt's results where they are to be published; the next command overwrites them."""
        if self._assignment.keep_results:
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
            given_back = self._tally.was_released(task.task_id) and task.task_id not in reporter.running
            if task.task_id in self._tally.ended or given_back:
                continue
            if any(uid in manifest.nodes or uid in manifest.sources for uid in task.nodes):
                reporter.release(task.task_id)
            else:
                # The project is not the one that the DAG was made from, or not with these vars.
                reporter.left[task.task_id] = _UNKNOWN


def _tell(line: Line) -> None:
    log.log(_LEVELS.get(line.level, logging.INFO), "%s", line.text)
