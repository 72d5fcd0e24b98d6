"""What is told at the end of a run, after what its tasks have told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from orrery.alert import describe
from orrery.alert.failure import MOST, tell_root
from orrery.alert.memory import OPEN, Memory, late_key, root_key, warned_key
from orrery.alert.scope import Scope
from orrery.alert.send import Sender, Sent
from orrery.config.alerts import Alerts
from orrery.config.stages import BUILD, INGEST, SOURCE_FRESHNESS, SOURCE_TESTS, TESTS
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY, WARNINGS_KEY, read_summary, read_warnings, severity

if TYPE_CHECKING:
    from airflow.sdk import Context

_NOT_WELL = ("failed", "upstream_failed")
_CHECKED = (SOURCE_FRESHNESS, SOURCE_TESTS, TESTS)
# Failures of earlier runs whose messages are still to be resolved.
_OPEN_MOST = 20


class Ending:
    """Tells how a run has ended.

    :param states: those of the tasks, in which instances of mapped ones are `<task>_<index>`
    """

    def __init__(
        self, context: Context, alerts: Alerts, owner: str | None, states: Mapping[str, str | None]
    ) -> None:
        self._context, self._alerts, self._states = context, alerts, states
        self._ti: Any = context["ti"]
        self._run_id: str = self._ti.run_id
        self._scope = Scope(context["dag"], alerts, owner)
        self._memory = Memory(self._ti.dag_id)
        self._sender = Sender(alerts)

    def tell(self) -> None:
        """Tell what is to be told."""
        failed = sorted(name for name, state in self._states.items() if state == "failed")
        well = not any(state in _NOT_WELL for state in self._states.values())
        if failed and "failure" in self._alerts.on:
            self._tell_failures(failed)
        if failed:
            self._remember(failed)
        recovered = well and self._recover()
        if well and not recovered and "success" in self._alerts.on:
            self._sender.tell(describe.success(self._scope, self._run_id), self._scope.route())
        if "warning" in self._alerts.on:
            self._tell_warnings()
        self._end_lateness("success" if well else "failed")

    def _tell_failures(self, failed: list[str]) -> None:
        """The failures that no task has told: each, or all in one message when there are many."""
        untold = [name for name in failed if self._memory.recall(root_key(self._run_id, name)) is None]
        room = max(0, MOST - (len(failed) - len(untold)))
        for name in untold[:room]:
            task_id, map_index = self._instance(name)
            result = self._result(task_id, map_index)
            failed_task = describe.Failed(self._run_id, task_id, map_index, result, _UNKNOWN)
            message = describe.failure(self._scope, failed_task)
            tell_root(self._sender, self._scope, name, message)
        if more := untold[room:]:
            message = describe.more_failures(self._scope, self._run_id, more)
            self._sender.tell(message, self._scope.route())
            for name in more:
                self._memory.keep(root_key(self._run_id, name), {"title": name, "first": None, "sent": None})

    def _remember(self, failed: Iterable[str]) -> None:
        """Keep what is to be resolved when the pipeline succeeds again."""
        known = self._memory.recall(OPEN) or {"roots": []}
        roots = [r for r in known["roots"] if r["run_id"] != self._run_id]
        for name in failed:
            root = self._memory.recall(root_key(self._run_id, name)) or {}
            if root.get("sent"):
                roots.append({**root, "run_id": self._run_id, "name": name})
        self._memory.keep(OPEN, {"run_id": self._run_id, "roots": roots[-_OPEN_MOST:]})

    def _recover(self) -> bool:
        """Whether the run ends a time of failures; says so where they were told."""
        known = self._memory.recall(OPEN)
        if not known or (known["run_id"] != self._run_id and self._narrowed()):
            return False
        self._memory.forget(OPEN)
        for root in known["roots"]:
            self._memory.forget(root_key(root["run_id"], root["name"]))
        if "recovery" not in self._alerts.on:
            return False
        message = describe.recovery(self._scope, self._run_id, known["run_id"])
        if not known["roots"]:
            self._sender.tell(message, self._scope.route())
            return True
        self._sender.inform(message)
        for root in known["roots"]:
            sent = Sent(**root["sent"])
            self._sender.reply(sent, message)
            self._sender.change(
                sent, describe.resolved(self._scope, self._run_id, root["title"], root["first"])
            )
        return True

    def _narrowed(self) -> bool:
        """Whether the run is about some nodes only, and so says nothing of the others."""
        options = RunOptions.from_context(self._context)
        return options.narrowed or options.uri is not None

    def _tell_warnings(self) -> None:
        found = self._warnings()
        key = warned_key(self._run_id)
        told = self._memory.recall(key) or []
        new = {task_id: text for task_id, text in found.items() if task_id not in told}
        if new:
            self._sender.tell(describe.warnings(self._scope, self._run_id, new), self._scope.route())
            self._memory.keep(key, [*told, *new])

    def _warnings(self) -> dict[str, str]:
        """The messages of tasks with warnings. A build tells those of its nodes at once."""
        build = BUILD in self._states
        found: dict[str, str] = {}
        if build:
            told = read_warnings(self._ti.xcom_pull(task_ids=BUILD, key=WARNINGS_KEY, map_indexes=-1))
            found |= {task_id: text for task_id, text in told.items() if task_id in self._states}
        stages = (INGEST,) if build else (INGEST, *_CHECKED)
        for task_id, state in self._states.items():
            if (
                state == "success"
                and task_id.partition(".")[0] in stages
                and self._scope.dag.has_task(task_id)
            ):
                result = self._result(task_id, -1)
                if result and severity(result["status"]) >= severity("warn"):
                    found[task_id] = result["message"] or result["status"]
        return found

    def _end_lateness(self, state: str) -> None:
        known = self._memory.recall(late_key(self._run_id))
        if not known:
            return
        self._memory.forget(late_key(self._run_id))
        message = describe.late_ended(self._scope, self._run_id, state, done=False)
        if not known["sent"]:
            self._sender.tell(message, self._scope.route())
            return
        sent = Sent(**known["sent"])
        self._sender.inform(message)
        self._sender.reply(sent, message)
        self._sender.change(sent, describe.late_ended(self._scope, self._run_id, state, done=True))

    def _result(self, task_id: str, map_index: int) -> Mapping[str, Any] | None:
        return read_summary(self._ti.xcom_pull(task_ids=task_id, key=RESULT_KEY, map_indexes=map_index))

    def _instance(self, name: str) -> tuple[str, int]:
        if self._scope.dag.has_task(name):
            return name, -1
        task_id, _, index = name.rpartition("_")
        return task_id, int(index)


_UNKNOWN = "It ended without a word: it was killed, or lost."
