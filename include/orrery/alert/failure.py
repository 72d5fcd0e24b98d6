"""Tells of a failure at once: the callback of the tasks."""

from __future__ import annotations

import fcntl
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orrery.config.alerts import Alerts
from orrery.config.project import Project
from orrery.execute.ending import states_of_others
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY, read_summary
from orrery.execute.run_folder import folder_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.alert.message import Message, Samples
    from orrery.alert.scope import Resource, Scope
    from orrery.alert.send import Sender

log = logging.getLogger(__name__)

# When a warehouse is down everything fails. So many failures of a run get a message; one tells of the others.
MOST = 5
# In the folder of a run: a line for each task that has a message.
_TOLD = "alerted"


@dataclass(frozen=True)
class FailureAlert:
    """`on_failure_callback` of a pipeline's tasks; it runs on the worker once a task has failed for good.

    Never raises. Airflow calls it with the error; without (in the DAG processor, for a task that was killed)
    it leaves the message to the task `alert`.

    :param alerts: who is told
    :param owner: the dbt group of the pipeline
    """

    alerts: Alerts
    owner: str | None

    def __call__(self, context: Context) -> None:
        """Tell of the failed task of a context."""
        if "exception" not in context:
            return
        try:
            self._tell(context)
        except Exception as error:
            log.warning("This failure is not told: %s", type(error).__name__, exc_info=error)

    def _tell(self, context: Context) -> None:
        # Slack's client costs time that parsing must not pay.
        from orrery.alert.describe import Failed, failure
        from orrery.alert.scope import Scope
        from orrery.alert.send import Sender

        ti: Any = context["ti"]
        if not _first(ti):
            log.info("%s failures of this run are told; the task 'alert' counts the others.", MOST)
            return
        scope = Scope(context["dag"], self.alerts, self.owner)
        name = instance_name(ti.task_id, ti.map_index)
        result = ti.xcom_pull(task_ids=ti.task_id, key=RESULT_KEY, map_indexes=ti.map_index)
        failed = Failed(
            run_id=ti.run_id,
            task_id=ti.task_id,
            map_index=ti.map_index,
            result=read_summary(result),
            error=str(context.get("exception") or ""),
        )
        message = failure(scope, failed, lambda test: self._samples(test, scope, context))
        tell_root(Sender(self.alerts), scope, name, message)

    def _samples(self, test: Resource, scope: Scope, context: Context) -> Samples | None:
        from orrery.alert.samples import permit, read_samples, sql_of

        allowed = permit(test, scope.parents_of(test), self.alerts.samples)
        task: Any = context["ti"].task
        sql = sql_of(getattr(task, "compiled_sql", ""), test["name"]) if allowed else None
        return read_samples(sql, allowed, RunOptions.from_context(context)) if sql and allowed else None


def tell_root(sender: Sender, scope: Scope, name: str, message: Message) -> None:
    """Tell of a failed task, in the thread of its message if it has one in this run, and remember it.

    :param name: the task, or one instance of a mapped one
    """
    from orrery.alert.describe import again
    from orrery.alert.memory import Memory, root_key
    from orrery.alert.send import Sent

    memory = Memory(scope.dag.dag_id)
    key = root_key(message.run_id, name)
    before = memory.recall(key)
    task_id = name if scope.dag.has_task(name) else name.rpartition("_")[0]
    route = scope.route(task_id)
    first = (message.error or "").strip().partition("\n")[0] or None
    if before and before.get("sent"):
        reply = again(scope, message.run_id, message.title, message.error)
        sender.reply(Sent(**before["sent"]), reply)
        sender.inform(reply)
        sent = before["sent"]
    else:
        told = sender.tell(message, route)
        sent = told.as_dict() if told else None
    if sent or not sender.broken:
        # Otherwise the task `alert` tries once more.
        memory.keep(key, {"title": message.title, "first": first and first[:300], "sent": sent})


def instance_name(task_id: str, map_index: int) -> str:
    """A task, or an instance of a mapped one, as Airflow names it among the states of a run."""
    return task_id if map_index < 0 else f"{task_id}_{map_index}"


def _first(ti: Any) -> bool:
    """Whether the failure is among the first of its run.

    Airflow tells which tasks have failed; of those that fail at this moment, a file in the run's folder does.
    """
    name = instance_name(ti.task_id, ti.map_index)
    if sum(state == "failed" for state in states_of_others(ti).values()) >= MOST:
        return False
    folder = folder_of(Project.find(), ti.dag_id, ti.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _TOLD).open("a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        told = file.read().splitlines()
        if name not in told and len(told) < MOST:
            file.write(f"{name}\n")
            told.append(name)
        return name in told
