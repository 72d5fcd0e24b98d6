"""The commands of dbt that a build takes, all of one invocation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from orrery.config.resources import OPERATION, type_of
from orrery.execute.assignment import Assignment
from orrery.execute.collector import Collector, Line
from orrery.execute.hooks import Hooks
from orrery.execute.invocation import Invocation
from orrery.execute.reporter import FAIL_FAST, Reporter
from orrery.execute.results import NodeResult, failing, read_results, result_of
from orrery.execute.run_folder import keep_results
from orrery.execute.unit_tests import ephemeral_models
from orrery.manifest.dbt import Dbt, DbtError
from orrery.plan.model import TaskPlan

log = logging.getLogger(__name__)

_LEVELS = {"info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


class Commands:
    """Runs dbt, and passes on what it tells of tasks.

    `raised` says whether a hook at the start has ended dbt, so that no hook at the end runs either.

    :param reporter: takes what becomes of tasks
    :param folder: the target folder of the run
    """

    def __init__(
        self,
        dbt: Dbt,
        invocation: Invocation,
        hooks: Hooks,
        reporter: Reporter,
        *,
        assignment: Assignment,
        folder: Path,
    ) -> None:
        self._dbt, self._invocation, self._hooks, self._reporter = dbt, invocation, hooks, reporter
        self._folder, self._keeps = folder, assignment.keep_results
        self.raised = False
        options = assignment.options
        self._threads = {"threads": options.threads} if options.threads else {}
        self._full_refresh = {"full_refresh": True} if options.full_refresh else {}

    def nodes(
        self,
        command: str,
        tasks: Collection[TaskPlan],
        hook: TaskPlan | None,
        ended: Callable[[], int],
        *,
        first: bool,
    ) -> None:
        """Run `dbt build` or `dbt test`; raises what ends it before its time, but for a hook.

        :param hook: the task of the hooks at the start, which fails with them
        :param ended: how many of the tasks have ended
        :param first: whether the hooks at the start run
        """
        if reason := self._reporter.broken or self._fails_fast():
            self._hold_back(tasks, reason)
            return
        while True:
            self._hooks.choose(first=first)
            error = self._run(command, tasks, [hook] if hook else [])
            if error is None:
                break
            if not self._hooks.forgive(error, begun=ended() > 0, ended=ended() == len(tasks)):
                raise error
            if ended():
                break
        self._keep_results()

    def hooks(self, tasks: Collection[TaskPlan], *, first: bool, last: bool) -> None:
        """Run nothing but hooks; raises DbtError when one fails that is of none of the tasks."""
        self._hooks.choose(first=first, last=last, builds=False)
        if error := self._run("build", (), tasks, nodes=False):
            raise error

    def freshness(self, tasks: Collection[TaskPlan]) -> None:
        """Run `dbt source freshness`; raises what ends it before its time."""
        reporter = self._reporter
        if reason := self._fails_fast():
            self._hold_back(tasks, reason)
            return
        collector = Collector(tasks, started=reporter.started, ended=reporter.finished, told=_tell)
        self._hooks.choose(builds=False)
        result = self._dbt.run(
            ["source", "freshness"],
            collector,
            **self._dbt.exactly(uid for task in tasks for uid in task.nodes),
            **self._threads,
        )
        if result.exception is not None:
            raise result.exception
        collector.finish(read_results(self._folder))
        # dbt's own build knows nothing of this check.
        reporter.failed.clear()
        self._keep_results()

    def _fails_fast(self) -> str | None:
        """Why no command follows the last one, if none does."""
        return FAIL_FAST if self._invocation.fail_fast and self._reporter.failed else None

    def _run(
        self, command: str, tasks: Collection[TaskPlan], hooks: Collection[TaskPlan], *, nodes: bool = True
    ) -> BaseException | None:
        """One command; returns the error that has ended it before its time, but for that of a hook."""
        reporter, invocation = self._reporter, self._invocation
        collector = Collector(
            [*tasks, *hooks],
            started=reporter.started,
            ended=reporter.finished,
            told=_tell,
            fail_fast=lambda: invocation.fail_fast,
        )
        reporter.failed.clear()
        selected = {uid for task in tasks for uid in task.nodes} | ephemeral_models(tasks, self._dbt.manifest)
        with invocation.command(command, nodes=nodes):
            outcome = self._dbt.run(
                [command],
                collector,
                **self._dbt.exactly(sorted(selected)),
                **(self._full_refresh if command == "build" else {}),
                **self._threads,
            )
        results: list[Any] = list(getattr(outcome.result, "results", ()))
        told = [result_of(result) for result in results]
        if invocation.skips_nodes and reporter.broken is None:
            reporter.broken = _failures_of_hooks(told)
        collector.finish(told)
        invocation.results += results
        if not hooks:
            _check_hooks(told)
        error = outcome.exception
        culprit = self._hooks.culprit(error) if error else None
        if error is None or culprit is None:
            return error
        self._blame(culprit, str(error).strip(), collector, tasks, hooks)
        return None

    def _blame(
        self,
        culprit: str,
        message: str,
        collector: Collector,
        tasks: Collection[TaskPlan],
        hooks: Collection[TaskPlan],
    ) -> None:
        """Say that a hook has ended the command; raises DbtError where there is no task that shows it."""
        if not hooks:
            raise DbtError(message)
        collector.finish([NodeResult(culprit, "error", 0.0, None, None, message)])
        collector.give_up(uid for hook in hooks for uid in hook.nodes)
        if tasks:
            self._reporter.broken, self.raised = message, True
            self._hold_back(tasks, message)

    def _hold_back(self, tasks: Iterable[TaskPlan], reason: str) -> None:
        """End tasks that dbt does not run."""
        for task in tasks:
            self._reporter.hold_back(task.task_id, reason)

    def _keep_results(self) -> None:
        """Keep dbt's results where they are to be published; the next command overwrites them."""
        if self._keeps:
            keep_results(self._folder, self._folder)


def _check_hooks(results: list[NodeResult]) -> None:
    """Fail for hooks that failed, where there is no task that shows it; raises DbtError."""
    if failures := _failures_of_hooks(results):
        raise DbtError(failures)


def _failures_of_hooks(results: list[NodeResult]) -> str:
    failed = [each for each in results if type_of(each.unique_id) == OPERATION and failing(each.status)]
    return "\n".join(str(each.message) for each in failed)


def _tell(line: Line) -> None:
    log.log(_LEVELS.get(line.level, logging.INFO), "%s", line.text)
