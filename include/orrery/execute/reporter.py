"""What becomes of the tasks of a build, as news for Airflow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from orrery.config.stages import HOOKS_END, HOOKS_START
from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.collector import Line, TaskRecord
from orrery.execute.compiled import compiled_paths, compiled_sql
from orrery.execute.ledger import Ledger
from orrery.execute.results import MOST_SQL, is_stale, outcome, severity, summary
from orrery.execute.run_graph import RunGraph
from orrery.execute.tally import Tally
from orrery.manifest.dbt import Dbt
from orrery.plan.model import TaskKind

# What a failed node's task gets of dbt's log, in lines.
_LINES = 200
_NO_HOOKS = "No hooks to run."
_NOTHING_HIDDEN = "No hooks to run. What has failed, if anything, is shown by its own tasks."
# dbt's own words.
FAIL_FAST = "Skipping due to fail_fast"
_NOTHING_RAN = "dbt ran nothing here, and so no hooks."


class Logs(Protocol):
    """Whoever keeps the logs of tasks."""

    def write(self, task_id: str, try_number: int, lines: Iterable[Line]) -> None:
        """Write the log of one try of a task."""


class Reporter:
    """Decides what dbt's outcome of a task means, tells it, and has the ledger take it down.

    `tries` are the tries of the tasks that the build has. `left` are the tasks that the run leaves out, each
    with the reason. `failed` are the tasks whose nodes have failed in the current command, `broken` is why
    dbt runs no node any more, and `hidden` a failure of the run that no last task of the DAG shows.

    :param tally: takes the news
    :param graph: the order of the run's tasks
    :param stale: what a stale source does: `fail`, `skip` or `warn`
    :param most: how many characters of SQL are shown
    """

    def __init__(
        self,
        tally: Tally,
        *,
        logs: Logs,
        dbt: Dbt,
        ledger: Ledger,
        graph: RunGraph,
        left: Mapping[str, str],
        stale: str,
        most: int,
    ) -> None:
        # Set by who stops the build: what dbt then cancels has not failed.
        self.stopping = False
        self.tries: dict[str, Try] = {}
        self.left = dict(left)
        self.hidden: str | None = None
        self.failed: set[str] = set()
        self.broken: str | None = None
        # What dbt warned of, by task.
        self.warnings: dict[str, str] = {}
        self._tally, self._logs, self._dbt, self._graph = tally, logs, dbt, graph
        self._ledger, self._stale, self._most = ledger, stale, most

    def barred(self) -> set[str]:
        """What descends from a task that failed here, or that such a failure holds back."""
        return self._graph.descendants(self._failed())

    def settle_left(self, remaining: Collection[str]) -> None:
        """Skip what the run leaves out, but only when all before it is over.

        Airflow judges a run by its last tasks: a skipped one must not hide a failure before it.

        :param remaining: the tasks that are still to run
        """
        barred, later = self.barred(), self._graph.descendants(remaining)
        for task_id in self.left.keys() & self.tries.keys():
            if task_id in self._tally.ended or task_id in self._tally.held_back:
                continue
            if task_id in barred:
                self.hold_back(task_id)
            elif task_id not in later:
                self._skip(task_id, self.left[task_id])

    def hold_back(self, task_id: str, reason: str | None = None) -> None:
        """Take that dbt does not run a task because of a failure.

        That is final, unless Airflow tries again what has failed.

        :param reason: dbt's words, which are said where no task that it waits for has failed
        """
        above = self._failed() & self._graph.ancestors([task_id])
        # With fail_fast, dbt also skips what does not descend from the failure.
        causes = sorted(self.failed if reason == FAIL_FAST else above)
        again = [cause for cause in causes if not self._is_last(cause)]
        if causes and len(again) == len(causes):
            self._tally.hold_back(task_id, f"{causes[0]} failed, and is tried again.")
            return
        final = next((cause for cause in causes if cause not in again), None)
        note = f"{final} failed." if final in above else reason or self.broken or "dbt skipped it."
        now = datetime.now(UTC).isoformat()
        self._end(
            Update(
                task_id,
                NodeState.UPSTREAM_FAILED,
                start=now,
                end=now,
                result=outcome(note, status="skipped"),
                note=note,
            )
        )

    def end_hooks(self, none: Collection[str]) -> None:
        """End the tasks of hooks that did not run.

        :param none: those without any hooks
        """
        for task_id in (HOOKS_START, HOOKS_END):
            if task_id not in self.tries or task_id in self._tally.ended:
                continue
            if task_id == HOOKS_END and self.hidden:
                self.hold_back(task_id, self.hidden)
            elif task_id in none:
                now = datetime.now(UTC).isoformat()
                told = outcome(_NOTHING_HIDDEN if task_id == HOOKS_END else _NO_HOOKS)
                self._end(Update(task_id, NodeState.SUCCESS, start=now, end=now, result=told))
            else:
                self._skip(task_id, _NOTHING_RAN)

    def started(self, record: TaskRecord) -> None:
        """Take that dbt has begun with a task; it also says so of what it then skips."""
        if record.task.task_id in self.barred():
            return
        self._tally.add(Update(record.task.task_id, NodeState.RUNNING, start=record.start))

    def finished(self, record: TaskRecord) -> None:
        """Take that dbt is done with the nodes of a task."""
        task_id = record.task.task_id
        stale = is_stale(record.results)
        if record.failed and self.stopping:
            # The build is stopped: what it has begun, the next one begins anew.
            return
        if record.task.kind is not TaskKind.HOOK:
            self._ledger.take(record.nodes.values(), self.tries[task_id].number)
        if record.failed and not (stale and self._stale != "fail"):
            self._fail(record)
        elif record.skipped:
            self.hold_back(task_id, record.message)
        elif stale and self._stale == "skip":
            self._skip_stale(record)
        elif task_id == HOOKS_END and self.hidden:
            self._log(record, self.hidden)
            self.hold_back(task_id, self.hidden)
        else:
            self._succeed(record)

    def _failed(self) -> set[str]:
        return {tid for tid, state in self._tally.ended.items() if state is NodeState.FAILED}

    def _is_last(self, task_id: str) -> bool:
        return self.tries[task_id].last if task_id in self.tries else True

    def _succeed(self, record: TaskRecord) -> None:
        result = summary(record.results)
        warned = severity(result["status"]) >= severity("warn")
        if warned:
            self.warnings[record.task.task_id] = str(result["message"])
        self._log(record, "Built by the task 'build' of this run.")
        self._end(
            Update(
                record.task.task_id,
                NodeState.SUCCESS,
                start=record.start,
                end=record.end,
                result=result,
                rendered=self._rendered(record),
                note=f"Warning: {result['message']}" if warned else None,
            )
        )

    def _fail(self, record: TaskRecord) -> None:
        nodes = record.task.nodes
        if record.task.kind is not TaskKind.HOOK:
            self.failed.add(record.task.task_id)
        self._end(
            Update(
                record.task.task_id,
                NodeState.FAILED,
                # dbt does not begin with a hook that it cannot compile.
                start=record.start or datetime.now(UTC).isoformat(),
                failure={
                    "result": summary(record.results),
                    "lines": [[line.time, line.level, line.text] for line in record.lines][-_LINES:],
                    "compiled_sql": compiled_sql(self._dbt.manifest, nodes)[:MOST_SQL],
                    "compiled_paths": compiled_paths(self._dbt.manifest, nodes),
                },
            )
        )

    def _skip_stale(self, record: TaskRecord) -> None:
        message = summary(record.results)["message"]
        self.warnings[record.task.task_id] = str(message)
        self._log(record, f"The source is stale: {message}")
        self._skip(record.task.task_id, f"The source is stale: {message}", record)
        for task_id in self._graph.descendants([record.task.task_id]) & self.tries.keys():
            self.left.setdefault(task_id, f"The source {record.task.name} is stale: {message}")

    def _skip(self, task_id: str, reason: str, record: TaskRecord | None = None) -> None:
        now = datetime.now(UTC).isoformat()
        self._end(
            Update(
                task_id,
                NodeState.SKIPPED,
                start=(record.start if record else None) or now,
                end=(record.end if record else None) or now,
                result=summary(record.results) if record else outcome(reason, status="skipped"),
                note=reason,
            )
        )

    def _end(self, update: Update) -> None:
        self._tally.add(update)

    def _log(self, record: TaskRecord, first: str) -> None:
        lines = [Line(record.start or "", "info", first), *record.lines]
        lines += [
            Line(record.end or "", "info", f"Compiled SQL: {path}")
            for path in compiled_paths(self._dbt.manifest, record.task.nodes)
        ]
        self._logs.write(record.task.task_id, self.tries[record.task.task_id].number, lines)

    def _rendered(self, record: TaskRecord) -> dict[str, str]:
        sql = compiled_sql(self._dbt.manifest, record.task.nodes)
        if len(sql) > self._most:
            sql = f"-- The beginning only, see [core] max_templated_field_length.\n{sql[: self._most]}"
        return {"compiled_sql": sql}
