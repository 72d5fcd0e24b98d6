"""The operators of `execute: kubernetes`; what brings Kubernetes is imported when they run."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from orrery.config.dbt_pods import DbtPods
from orrery.config.errors import OrreryError
from orrery.config.stages import publishes
from orrery.execute.assignment import Assignment, max_field_length
from orrery.execute.build import DbtBuildOperator
from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.node import NodeFailedError, SingleNodeOperator
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY, outcome
from orrery.plan.model import TaskPlan

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.execute.build_run import Runner
    from orrery.execute.reporter import Logs
    from orrery.execute.tally import Tally
    from orrery.pods.pod import DbtPod
    from orrery.pods.speech import Listener

_RETRY_DELAY = timedelta(seconds=5)


class PodBuildOperator(DbtBuildOperator):
    """Runs dbt once, in a pod, for all nodes of a pipeline that wait for it, and ends their tasks.

    Its parameters are those of DbtBuildOperator.
    """

    def _make_runner(self, assignment: Assignment, tally: Tally, logs: Logs, context: Context) -> Runner:
        from orrery.pods.runner import PodRunner

        assert self.plan.config.pods is not None
        return PodRunner(self.plan.config.pods, assignment, tally, logs, context)


class PodNodeOperator(SingleNodeOperator):
    """The task is one run of dbt in a pod of its own. While it runs, Airflow's triggerer waits for it.

    Workers get lost, and a scheduler that is very busy may notice their end too late (see
    orrery.ingest.resume). So each has at least one retry, which is not for a node that dbt could not build.

    :param pods: the pipeline's block
    :param retries: those of the pipeline
    """

    def __init__(self, *, pods: DbtPods, retries: int, **kwargs: Any) -> None:
        tries_again = max(1, retries)
        super().__init__(**{"retry_delay": _RETRY_DELAY, **kwargs, "retries": tries_again})
        self.pods = pods
        self.spare = tries_again - retries
        self._pod: DbtPod | None = None

    def execute(self, context: Context) -> None:
        """Start the pod and wait for it without a worker.

        Raises AirflowSkipException when the run leaves the nodes out, and AirflowFailException where no
        retry helps.
        """
        options = self._begin(context)
        from orrery.pods.order import Order

        order = Order(self._assignment(context, options), {self.task_id: Try(context["ti"].try_number)})
        pod, listener = self._make_pod(order)
        self._checked(context, lambda: pod.submit(context))
        self._finish(context, pod, listener)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> None:
        """End the task as its pod has ended; the triggerer says that it has."""
        pod, listener = self._make_pod(None)
        self._checked(context, lambda: pod.resume(context, event))
        self._finish(context, pod, listener)

    def on_kill(self) -> None:
        """Airflow stops the task."""
        if self._pod is not None:
            self._pod.end()

    def _assignment(self, context: Context, options: RunOptions) -> Assignment:
        memory = self._memory(context)
        known: dict[str, Any] = {**memory.known} if memory else {}
        ti, tasks = context["ti"], context["dag"].task_ids
        task = TaskPlan(
            task_id=self.task_id,
            stage=self.stage,
            kind=self.kind,
            nodes=self.nodes,
            upstream=frozenset(),
            owner=None,
            doc="",
        )
        return Assignment(
            dag_id=ti.dag_id,
            run_id=ti.run_id,
            log_url=ti.log_url,
            tasks={self.task_id: task},
            # What the run leaves out is left out already.
            options=RunOptions(
                full_refresh=options.full_refresh, variables=options.variables, threads=options.threads
            ),
            tests="gate",
            stale=self.stale,
            elementary=publishes("elementary", tasks),
            keep_results=publishes("artifacts", tasks),
            max_field_length=max_field_length(),
            **known,
        )

    def _make_pod(self, order: Any) -> tuple[DbtPod, Listener]:
        from orrery.pods.pod import DbtPod
        from orrery.pods.speech import Listener

        listener = Listener(lambda line: self.log.info("%s", line))
        self._pod = DbtPod(task_id="dbt", pods=self.pods, order=order, of=self.task_id, listener=listener)
        return self._pod, listener

    @staticmethod
    def _checked(context: Context, act: Any) -> None:
        """Do something; mistakes in the block or in Airflow's settings end the task for good."""
        try:
            act()
        except OrreryError as error:
            raise AirflowFailException(_tell(context, str(error))) from error
        except AirflowException as error:
            _tell(context, str(error))
            raise

    def _finish(self, context: Context, pod: DbtPod, listener: Listener) -> None:
        """End the task as the pod has told."""
        if listener.batches is not None and (memory := self._memory(context)):
            memory.remember(listener.batches)
        update = listener.updates.get(self.task_id)
        if listener.refusal:
            raise AirflowFailException(_tell(context, listener.refusal))
        if update is None or update.state is NodeState.RELEASED:
            if pod.problem or listener.ended:
                what = pod.problem or "dbt ran nothing for it: the image has another project than the DAG."
                raise AirflowException(_tell(context, what))
            self.log.warning("The pod has succeeded, but was gone before its log could be read.")
            context["ti"].xcom_push(key=RESULT_KEY, value=outcome("The pod has succeeded."))
        else:
            self._end(context, update)

    def _end(self, context: Context, update: Update) -> None:
        if update.state is NodeState.SKIPPED:
            context["ti"].xcom_push(key=RESULT_KEY, value=update.result)
            raise AirflowSkipException(update.note)
        failure = update.failure or {}
        result = failure.get("result") or update.result or outcome("")
        sql = failure.get("compiled_sql") or (update.rendered or {}).get("compiled_sql", "")
        self._report(context, result, sql)
        if update.state is NodeState.FAILED:
            if sql:
                self.log.info("Compiled SQL:\n%s", sql)
            message = result["message"] or result["status"]
            ti = context["ti"]
            final = ti.try_number > ti.max_tries - self.spare
            raise (AirflowFailException if final else NodeFailedError)(message)


def _tell(context: Context, what: str) -> str:
    """Tell in the task's XCom why it fails; returns the text as people may see it."""
    # It leads to the warehouse's client, for which parsing must not pay.
    from orrery.ingest.errors import without_secrets

    told = without_secrets(what)
    context["ti"].xcom_push(key=RESULT_KEY, value=outcome(told, status="error"))
    return told
