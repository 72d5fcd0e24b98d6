"""A build whose dbt runs in a pod."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException

from orrery.config.dbt_pods import DbtPods
from orrery.config.errors import OrreryError
from orrery.config.stages import HOOKS_END
from orrery.execute.assignment import Assignment
from orrery.execute.batches import Batches
from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.collector import Line
from orrery.execute.reporter import Logs
from orrery.execute.run_graph import RunGraph
from orrery.execute.tally import Tally
from orrery.ingest.errors import without_secrets
from orrery.pods.order import Order
from orrery.pods.pod import DbtPod
from orrery.pods.speech import Listener

if TYPE_CHECKING:
    from airflow.sdk import Context

log = logging.getLogger(__name__)


class OrderRefusedError(OrreryError):
    """The pod has run nothing; the text is dbt's, or tells of a mistake in the choices of the run."""


class PodRunner:
    """Runs the tasks of a build in one pod, and passes on what it tells while it runs.

    :param pods: the pipeline's block
    :param tally: takes the news of tasks
    :param logs: keeps the logs of tasks
    """

    def __init__(
        self, pods: DbtPods, assignment: Assignment, tally: Tally, logs: Logs, context: Context
    ) -> None:
        self._pods, self._assignment, self._context = pods, assignment, context
        self._tally, self._logs = tally, logs
        self._pod: DbtPod | None = None
        self._last: Update | None = None
        self.warnings: dict[str, str] = {}
        # That of the DAG, until a pod has told dbt's.
        self.graph = RunGraph.planned(assignment.tasks)
        self._batches: Batches = dict(assignment.batches)

    def begin(self) -> None:
        """Nothing: the pod itself finds out whether it can run."""

    def run(self, tries: Mapping[str, Try]) -> None:
        """Run tasks in a pod; raises OrderRefusedError, and AirflowException when it dies before its end."""

        def news(update: Update) -> None:
            # A pod ends nothing but what it was asked for.
            if update.task_id == HOOKS_END:
                self._last = update
            elif update.task_id in tries:
                self._tally.add(update)

        def logged(task_id: str, _: int, lines: list[Line]) -> None:
            if task_id in tries:
                self._logs.write(task_id, tries[task_id].number, lines)

        listener = Listener(lambda line: log.info("%s", line), news, logged, self._remember)
        order = Order(replace(self._assignment, batches=self._batches), tries)
        pod = self._pod = DbtPod(
            task_id="dbt", pods=self._pods, order=order, of=self._assignment.dag_id, listener=listener
        )
        pod.follow(self._context)
        self.warnings |= listener.warnings
        self.graph = listener.graph or self.graph
        if listener.refusal:
            raise OrderRefusedError(without_secrets(listener.refusal))
        if not listener.ended:
            raise AirflowException(pod.problem or "The pod has ended, and its log does not tell how.")
        # Of these the log has lost what became of them; they are run again.
        for task_id in tries.keys() - listener.updates.keys() - {HOOKS_END}:
            self._tally.release(task_id)

    def _remember(self, batches: Batches) -> None:
        self._batches = batches
        self._tally.remember(batches)

    def end(self, hidden: str | None = None) -> None:
        """Tell what has become of the hooks at the end, which the last pod has run."""
        update = self._last
        if update is None:
            return
        if hidden and update.state is not NodeState.FAILED:
            update = replace(update, state=NodeState.UPSTREAM_FAILED, note=hidden)
        self._tally.add(update)

    def stop(self) -> None:
        """End the pod: dbt cancels its queries, and what it has not ended by then goes back."""
        if self._pod is not None:
            self._pod.end()

    def close(self) -> None:
        """Nothing: the pod is gone."""
