"""dbt's part of a build: which commands run which tasks, in this process."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from orrery.config.project import Project
from orrery.config.resources import ON_RUN_END, ON_RUN_START
from orrery.config.stages import BUILD, HOOKS_END, HOOKS_START, TESTS
from orrery.execute import run_folder
from orrery.execute.assignment import Assignment
from orrery.execute.batches import BatchProgress
from orrery.execute.channel import Try
from orrery.execute.commands import Commands
from orrery.execute.dbt_graph import graph_of
from orrery.execute.elementary import make_tables, run_environment
from orrery.execute.hooks import Hooks
from orrery.execute.invocation import Invocation, now
from orrery.execute.ledger import Ledger
from orrery.execute.narrow import left_out
from orrery.execute.reporter import Logs, Reporter
from orrery.execute.results import UNKNOWN
from orrery.execute.run_graph import RunGraph
from orrery.execute.tally import Tally
from orrery.execute.unit_tests import tests_apart
from orrery.execute.unplanned import unplanned
from orrery.manifest.dbt import Dbt
from orrery.manifest.makers import parents_by_makers
from orrery.manifest.packages import has_elementary
from orrery.plan.model import TaskKind, TaskPlan

log = logging.getLogger(__name__)

_UNTOLD = "dbt has ended without a word about it."


class DbtRun:
    """Runs tasks in dbt's order, and tells what becomes of each of them.

    :param tally: takes the news
    :param logs: keeps dbt's lines about each task
    """

    def __init__(self, assignment: Assignment, tally: Tally, logs: Logs) -> None:
        self._assignment, self._tally, self._logs = assignment, tally, logs
        project = Project.find()
        self._folder = run_folder.prepare(project, assignment.dag_id, assignment.run_id)
        self._elementary = assignment.elementary and has_elementary(project)
        self._dbt = Dbt(
            project,
            target_dir=self._folder,
            variables=assignment.options.variables,
            environment=run_environment(assignment, results=self._elementary),
        )
        self._ledger = Ledger(
            assignment.dag_id, assignment.run_id, self._dbt, self._folder, assignment.options.choices
        )
        self._hooks = Hooks(self._dbt, elementary=self._elementary)
        self._reporter: Reporter
        # The order in which dbt would run the tasks in this invocation, once it has begun.
        self.graph: RunGraph
        self._invocation: Invocation
        self._commands: Commands
        # Whether a command has built something, or tried to.
        self._begun = False
        # Whether the run is about nothing but ephemeral models: dbt has no work, but runs its hooks.
        self._only_ephemeral = False
        self._unplanned = ""

    @property
    def warnings(self) -> dict[str, str]:
        """What dbt warned of, by task, and what is to be said of the build itself."""
        own = {BUILD: self._unplanned} if self._unplanned else {}
        return own | self._reporter.warnings

    def begin(self) -> None:
        """Get ready; raises OptionsError and DbtError before anything runs."""
        assignment, manifest = self._assignment, self._dbt.manifest
        selectable = [task for task in assignment.built.values() if task.kind is not TaskKind.HOOK]
        ephemeral = [
            task for task in assignment.tasks.values() if task.kind is TaskKind.MARKER and task.nodes
        ]
        left = left_out([*selectable, *ephemeral], assignment.options, self._dbt)
        self._only_ephemeral = all(task.task_id in left for task in selectable) and any(
            task.task_id not in left for task in ephemeral
        )
        self._unplanned = unplanned(assignment, self._dbt)
        if self._unplanned:
            log.warning(self._unplanned)
        if self._elementary:
            self._hooks.choose(builds=False)
            make_tables(self._dbt)
        began = datetime.fromisoformat(assignment.began) if assignment.began else now()
        batches = BatchProgress(assignment.batches, self._tally.remember)
        self._invocation = Invocation(_makers(manifest), began, batches)
        self.graph = graph_of(manifest, assignment.tasks, self._invocation, gate=assignment.tests == "gate")
        self._reporter = Reporter(
            self._tally,
            logs=self._logs,
            dbt=self._dbt,
            ledger=self._ledger,
            graph=self.graph,
            left=left,
            stale=assignment.stale,
            most=assignment.max_field_length,
        )
        self._commands = Commands(
            self._dbt,
            self._invocation,
            self._hooks,
            self._reporter,
            assignment=assignment,
            folder=self._folder,
        )

    def stop(self) -> None:
        """Say that dbt is about to be interrupted: what it then cancels has not failed."""
        if hasattr(self, "_reporter"):
            self._reporter.stopping = True

    def close(self) -> None:
        """Keep what the nodes did, and remove what only this run needed."""
        self._ledger.write()
        run_folder.tidy(self._folder)

    def run(self, tries: Mapping[str, Try]) -> None:
        """Run tasks, given by their ids with their tries.

        Sources are checked as soon as what fills them is done; then comes the rest, at once. Hooks at the
        start run before all that, those at the end in `end`.
        """
        reporter = self._reporter
        reporter.tries |= tries
        reporter.failed.clear()
        self._redo_batches(tries)
        remaining = self._known(
            task
            for task in self._assignment.built.values()
            if task.task_id in tries and task.kind is not TaskKind.HOOK
        )
        while True:
            self._settle(remaining)
            checks = [task for task in remaining.values() if task.kind is TaskKind.FRESHNESS]
            if not checks:
                break
            unchecked = {task.task_id for task in checks}
            before = self.graph.ancestors(unchecked) & set(remaining)
            ready = [task for task in checks if before.isdisjoint(self.graph.ancestors([task.task_id]))]
            makers = [
                remaining[tid]
                for tid in before - unchecked
                if unchecked.isdisjoint(self.graph.ancestors([tid]))
            ]
            if ready:
                self._commands.freshness(ready)
                self._finish(ready)
            else:
                self._build(makers)
            for task in ready or makers:
                del remaining[task.task_id]
        if self._assignment.tests == "end":
            # A failed test holds nothing back here, so the tests come in a command of their own.
            tests = {tid: task for tid, task in remaining.items() if task.stage == TESTS}
            self._build(task for tid, task in remaining.items() if tid not in tests)
            self._settle(tests)
            self._build(tests.values())
        else:
            self._build(remaining.values())
        reporter.settle_left(())

    def end(self, hidden: str | None = None) -> None:
        """Run the hooks at the end of a run, with the results of all that has run; raises DbtError.

        :param hidden: a failure that no last task of the DAG shows, in words: then the hooks' task shows it
        """
        reporter, tasks = self._reporter, self._assignment.tasks
        reporter.hidden = hidden or reporter.broken
        start, end = (self._hook_task(tid, when) for tid, when in _MOMENTS.items())
        # Somebody wants them again; in the first try there was just nothing to build.
        alone = self._only_ephemeral or all(
            tasks[tid].kind is TaskKind.HOOK and each.number > 1 for tid, each in reporter.tries.items()
        )
        first = alone and start is not None and bool(start.nodes)
        wanted = end is not None if alone else self._begun
        last = wanted and bool(self._hooks.due(ON_RUN_END)) and not self._commands.raised
        if first or last:
            due = [task for task, runs in ((start, first), (end, last)) if task and runs]
            self._commands.hooks(due, first=first, last=last)
        reporter.end_hooks([tid for tid, when in _MOMENTS.items() if not self._hooks.due(when)])

    def _redo_batches(self, task_ids: Collection[str]) -> None:
        """Let batches run again that are made of what is built now: somebody has cleared it."""
        tasks = self._assignment.tasks
        made = [task_id for task_id in task_ids if tasks[task_id].kind in _MADE]
        for task_id in self.graph.descendants(made):
            for uid in tasks[task_id].nodes:
                self._invocation.batches.again(uid)

    def _known(self, tasks: Iterable[TaskPlan]) -> dict[str, TaskPlan]:
        """The tasks by their ids, with those of their nodes that dbt has in this run."""
        known: dict[str, TaskPlan] = {}
        for task in tasks:
            nodes = tuple(uid for uid in task.nodes if self._dbt.knows(uid))
            if not nodes:
                # The project is not the one that the DAG was made from, or not with these vars.
                self._reporter.left.setdefault(task.task_id, UNKNOWN)
            known[task.task_id] = replace(task, nodes=nodes)
        return known

    def _hook_task(self, task_id: str, when: str) -> TaskPlan | None:
        """The task of hooks, with those that this run has, if the build has the task."""
        task = self._assignment.tasks.get(task_id)
        return (
            replace(task, nodes=self._hooks.due(when)) if task and task_id in self._reporter.tries else None
        )

    def _settle(self, remaining: dict[str, TaskPlan]) -> None:
        """Take out what is not to be run: what the run leaves out, and what descends from a failed task."""
        reporter = self._reporter
        for task_id in reporter.left.keys() & remaining.keys():
            del remaining[task_id]
        for task_id in reporter.barred() & remaining.keys():
            del remaining[task_id]
            reporter.hold_back(task_id)
        reporter.settle_left(remaining)

    def _build(self, tasks: Iterable[TaskPlan]) -> None:
        todo = {task.task_id: task for task in tasks}
        apart = tests_apart(todo, self._dbt.manifest)
        built = {task_id: task for task_id, task in todo.items() if task_id not in apart}
        self._command("build", built)
        self._settle(apart)
        self._command("test", apart)

    def _command(self, command: str, tasks: Mapping[str, TaskPlan]) -> None:
        if not tasks:
            return
        first, self._begun = not self._begun, True
        hook = self._hook_task(HOOKS_START, ON_RUN_START) if first else None
        self._commands.nodes(
            command,
            tasks.values(),
            hook if hook and hook.nodes else None,
            lambda: len(tasks.keys() & self._tally.ended.keys()),
            first=first,
        )
        self._finish(tasks.values())

    def _finish(self, tasks: Iterable[TaskPlan]) -> None:
        """Say of tasks of which dbt has not told the end that it has not."""
        for task in tasks:
            if task.task_id not in self._tally.ended.keys() | self._tally.held_back.keys():
                self._reporter.hold_back(task.task_id, _UNTOLD)


# What makes data.
_MADE = (TaskKind.SEED, TaskKind.MODEL, TaskKind.SNAPSHOT, TaskKind.FUNCTION)
_MOMENTS = {HOOKS_START: ON_RUN_START, HOOKS_END: ON_RUN_END}


def _makers(manifest: Any) -> Mapping[str, list[str]]:
    """What nodes wait for because it makes a source that they read, by their unique ids."""
    readers = {**manifest.nodes, **manifest.unit_tests, **manifest.functions}
    return parents_by_makers(readers, manifest.sources, str(manifest.metadata.adapter_type))
