"""What becomes of the tasks of a build, as news for Airflow."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Protocol

from orrery.execute.channel import NodeState, Update
from orrery.execute.collector import Line, TaskRecord
from orrery.execute.compiled import compiled_paths, compiled_sql
from orrery.execute.ledger import Ledger
from orrery.execute.results import MOST_SQL, outcome, severity, summary
from orrery.execute.tally import Tally
from orrery.manifest.dbt import Dbt
from orrery.plan.descent import Descent
from orrery.plan.model import TaskKind

# What a failed node's task gets of dbt's log, in lines.
_LINES = 200


class Logs(Protocol):
    """Whoever keeps the logs of tasks."""

    def write(self, task_id: str, try_number: int, lines: Iterable[Line]) -> None:
        """Write the log of one try of a task."""


class Reporter:
    """Decides what dbt's outcome of a task means, tells it, and has the ledger take it down.

    `tries` is the number of the try of each task that the build has. `left` are the tasks that the run
    leaves out, each with the reason.

    :param tally: takes the news
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
        descent: Descent,
        left: Mapping[str, str],
        stale: str,
        most: int,
    ) -> None:
        # Set by who stops the build: what dbt then cancels has not failed.
        self.stopping = False
        self.tries: dict[str, int] = {}
        self.left = dict(left)
        # What dbt warned of, by task.
        self.warnings: dict[str, str] = {}
        # What dbt is at work on.
        self.running: set[str] = set()
        self._tally, self._logs, self._dbt, self._descent = tally, logs, dbt, descent
        self._ledger, self._stale, self._most = ledger, stale, most

    def barred(self) -> set[str]:
        """What descends from a task that failed here: Airflow's rules decide about it."""
        return self._descent.descendants(tid for tid, s in self._tally.ended.items() if s is NodeState.FAILED)

    def settle_left(self, remaining: Collection[str]) -> None:
        """Skip what the run leaves out, but only when all before it is over.

        Airflow judges a run by its last tasks: a skipped one must not hide a failure before it.

        :param remaining: the tasks that are still to run
        """
        barred, later = self.barred(), self._descent.descendants(remaining)
        for task_id in self.left.keys() & self.tries.keys():
            if task_id in self._tally.ended or self._tally.was_released(task_id):
                continue
            if task_id in barred:
                self.release(task_id)
            elif task_id not in later:
                self._skip(task_id, self.left[task_id])

    def release(self, task_id: str) -> None:
        """Give a task back to Airflow."""
        self.running.discard(task_id)
        self._tally.release(task_id)

    def started(self, record: TaskRecord) -> None:
        """Take that dbt has begun with a task."""
        self.running.add(record.task.task_id)
        self._tally.add(Update(record.task.task_id, NodeState.RUNNING, start=record.start))

    def finished(self, record: TaskRecord) -> None:
        """Take that dbt is done with the nodes of a task."""
        task_id = record.task.task_id
        stale = _is_stale(record)
        if record.failed and self.stopping:
            self.release(task_id)
            return
        self._ledger.take(record.nodes.values(), self.tries[task_id])
        if record.failed and not (stale and self._stale != "fail"):
            self._fail(record)
        elif record.skipped:
            self.release(task_id)
        elif stale and self._stale == "skip":
            self._skip_stale(record)
        else:
            self._succeed(record)

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
        self._end(
            Update(
                record.task.task_id,
                NodeState.FAILED,
                start=record.start,
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
        for task_id in self._descent.descendants([record.task.task_id]) & self.tries.keys():
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
        self.running.discard(update.task_id)
        self._tally.add(update)

    def _log(self, record: TaskRecord, first: str) -> None:
        lines = [Line(record.start or "", "info", first), *record.lines]
        lines += [
            Line(record.end or "", "info", f"Compiled SQL: {path}")
            for path in compiled_paths(self._dbt.manifest, record.task.nodes)
        ]
        self._logs.write(record.task.task_id, self.tries[record.task.task_id], lines)

    def _rendered(self, record: TaskRecord) -> dict[str, str]:
        sql = compiled_sql(self._dbt.manifest, record.task.nodes)
        if len(sql) > self._most:
            sql = f"-- The beginning only, see [core] max_templated_field_length.\n{sql[: self._most]}"
        return {"compiled_sql": sql}


def _is_stale(record: TaskRecord) -> bool:
    # "error" is too old; a source that could not be checked at all is a "runtime error".
    return record.task.kind is TaskKind.FRESHNESS and any(
        result.status == "error" for result in record.results
    )
