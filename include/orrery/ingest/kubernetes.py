"""The operators of what runs in a Kubernetes cluster, on those of Airflow's Kubernetes provider.

A worker only submits and cleans up; in between Airflow's triggerer waits, and passes the log on.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.cncf.kubernetes.hooks.kubernetes import KubernetesHook
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.operators.spark_kubernetes import SparkKubernetesOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator, make_safe_label_value
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import ApiClient, ApiException, CustomObjectsApi
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from orrery.config.errors import OrreryError
from orrery.config.kubernetes import Job, JobIngest, Spark
from orrery.config.project import Project
from orrery.config.templates import render_template
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, outcome
from orrery.ingest.connections import require
from orrery.ingest.errors import IngestError, without_secrets
from orrery.ingest.pod_trigger import DRIVER, GROUP, VERSION, PodTrigger, SparkTrigger
from orrery.ingest.pods import UnavailableError, failure, in_words, staying, unknown_keys
from orrery.plan.model import Work

if TYPE_CHECKING:
    from airflow.sdk import Context

EXAMPLE = "kubernetes://?kube_config_path=/path/to/kubeconfig"
# Images can be large, and clusters that grow need time for a new machine.
STARTUP_SECONDS = 600
STARTUP_CHECK_SECONDS = 2
POLL_SECONDS = 2
LOG_SECONDS = 10
# What Kubernetes and the Spark operator put behind it has to fit into 63 characters.
NAME_LENGTH = 40
_ERRORS = (OrreryError, AirflowException, ApiException, ConfigException, HTTPError)


class KubernetesOperator(KubernetesPodOperator):
    """What both operators have in common.

    :param stage: the stage that the task is in; a run may leave whole stages out
    :param nodes: dbt unique ids of what the task fills
    :param work: what runs, and what it is for
    """

    # The block is dbt's; Airflow's own Jinja has no part in it.
    template_fields = ()
    ui_color = "#f5e6cc"
    trigger_class: type[PodTrigger] = PodTrigger

    def __init__(self, *, stage: str, nodes: tuple[str, ...], work: Work, **kwargs: Any) -> None:
        block: Any = work.block
        self.settings: Job | Spark = block.job if isinstance(block, JobIngest) else block.spark
        super().__init__(
            **{
                "execution_timeout": self.settings.timeout,
                "kubernetes_conn_id": self.settings.connection,
                "deferrable": True,
                "startup_timeout_seconds": STARTUP_SECONDS,
                "schedule_timeout_seconds": STARTUP_SECONDS,
                "startup_check_interval_seconds": STARTUP_CHECK_SECONDS,
                "poll_interval": POLL_SECONDS,
                "logging_interval": LOG_SECONDS,
                "log_events_on_failure": True,
                "log_pod_spec_on_failure": False,
                "on_finish_action": "delete_pod",
                **kwargs,
            }
        )
        self.stage = stage
        self.nodes = nodes
        self.work = work
        self._timed_out = False

    def execute(self, context: Context) -> None:
        """Submit, and let the triggerer wait.

        Raises AirflowFailException where no retry helps, and AirflowSkipException when the run leaves it out.
        """
        uri = check_choices(self, context).uri
        try:
            require(self.settings.connection, EXAMPLE)
            self._prepare(self._rendered(context, uri or ""))
            self._submit(context)
        except _ERRORS as error:
            self._fail(context, error)

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> None:
        """End the task when the triggerer says that the pod has ended, or that its time is over."""
        self._timed_out = event["status"] == "timeout"
        try:
            self._resume(event["namespace"])
            super().trigger_reentry(context, event)
        except _ERRORS as error:
            self._fail(context, error)
        context["ti"].xcom_push(key=RESULT_KEY, value=outcome(f"{event['name']} has succeeded"))

    def cleanup(
        self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Context | None = None
    ) -> None:
        """Delete the pod; raises AirflowException with the end of its log when it has not succeeded."""
        what = ""
        if remote_pod and remote_pod.status.phase != "Succeeded":
            # Now: the log goes with the pod.
            timeout = self.settings.timeout if self._timed_out else None
            what = failure(self.client, remote_pod, self.base_container_name, self.work.of, timeout)
        try:
            super().cleanup(pod, remote_pod, xcom_result, context)
        except AirflowException:
            raise AirflowException(what) from None

    def defer(self, *, trigger: Any, **kwargs: Any) -> NoReturn:
        """Wait with a trigger of ours in place of the provider's."""
        _, arguments = trigger.serialize()
        super().defer(trigger=self.trigger_class(**arguments), **kwargs)

    def _submit(self, context: Context) -> None:
        super().execute(context)

    def _prepare(self, manifest: dict[str, Any]) -> None:
        """Take over what the template has made."""
        raise NotImplementedError

    def _resume(self, namespace: str) -> None:
        """Get ready to end what runs in a namespace; a template that is broken by now is no obstacle."""

    def _rendered(self, context: Context, uri: str) -> dict[str, Any]:
        """The object of the template, with the names and labels of this task."""
        ti = context["ti"]
        name = re.sub(r"[^a-z0-9]+", "-", f"{ti.dag_id}-{ti.task_id}".lower())[:NAME_LENGTH].strip("-")
        labels = {"pipeline": ti.dag_id, "task": ti.task_id, "run": context["run_id"]}
        return render_template(
            Project.find(),
            self.settings,
            name=name or "orrery",
            labels={f"orrery/{key}": make_safe_label_value(value) for key, value in labels.items()},
            uri=uri,
        )

    def _fail(self, context: Context, error: Exception) -> NoReturn:
        """End the task with `error`, in words for users."""
        told = in_words(error, self.settings.connection)
        context["ti"].xcom_push(key=RESULT_KEY, value=outcome(without_secrets(str(told)), status="error"))
        if isinstance(told, AirflowException):
            raise told
        again = isinstance(told, UnavailableError)
        raise (AirflowException if again else AirflowFailException)(without_secrets(str(told))) from error


class JobOperator(KubernetesOperator):
    """Runs a pod to its end, and fails when it does.

    Its parameters are those of KubernetesOperator, with a block of kind `job`.
    """

    custom_operator_name = "job"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.namespace = self.settings.namespace
        # Kubernetes keeps the end of the log, should the pod be gone before it is read.
        self.termination_message_policy = "FallbackToLogsOnError"

    def find_pod(self, namespace: str, context: Context, *, exclude_checked: bool = True) -> Any:
        """The pod that an earlier try has started, unless it is about to go."""
        return staying(super().find_pod(namespace, context, exclude_checked=exclude_checked))

    def _get_pod_from_task_state_store(self, context: Context) -> Any:
        return staying(super()._get_pod_from_task_state_store(context))

    def _prepare(self, manifest: dict[str, Any]) -> None:
        pod = PodGenerator.deserialize_model_dict(manifest)
        kept = ApiClient().sanitize_for_serialization(pod)
        unknown = unknown_keys(manifest, kept)
        if unknown:
            raise IngestError(
                f"include/templates/{self.settings.template}: a pod has no {', '.join(unknown)}\n"
                "  See `kubectl explain pod.spec`."
            )
        self.pod_template_dict = manifest


class SparkOperator(KubernetesOperator, SparkKubernetesOperator):  # type: ignore[misc]
    """Runs a Spark application to its end, and fails when its driver does.

    Its parameters are those of KubernetesOperator, with a block of kind `spark`. A cluster in which the
    Spark operator is installed runs it.
    """

    custom_operator_name = "spark"
    trigger_class = SparkTrigger

    @property
    def custom_obj_api(self) -> CustomObjectsApi:
        """The client of the task's connection; the provider's own leaves out what that says about TLS."""
        return self.hook.custom_object_client

    def _prepare(self, manifest: dict[str, Any]) -> None:
        self.template_spec = manifest
        given = KubernetesHook(conn_id=self.settings.connection).get_namespace()
        self.namespace = self.settings.namespace or given or self._incluster_namespace or "default"

    def _resume(self, namespace: str) -> None:
        # Enough for the provider to delete the application.
        self.template_spec = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "SparkApplication",
            "spec": {"driver": {}, "executor": {}},
        }
        self.namespace = namespace

    def _submit(self, context: Context) -> None:
        try:
            super()._submit(context)
        except Exception as error:
            # It has not come to run; what there is of it would go on trying.
            why = self._early_failure() if isinstance(error, AirflowException) else None
            self.launcher.delete_spark_job(self.name)  # type: ignore[no-untyped-call]
            if why:
                raise AirflowException(why) from error
            raise

    def find_spark_job(self, context: Context, exclude_checked: bool = True) -> Any:
        """The driver that an earlier try has started, unless it is about to go."""
        return staying(super().find_spark_job(context, exclude_checked))

    def _early_failure(self) -> str | None:
        """What is wrong with a driver that never came to run; None when there is none."""
        try:
            pod = self.client.read_namespaced_pod(f"{self.name}{DRIVER}", self.namespace)
        except ApiException:
            return None
        return failure(self.client, pod, self.base_container_name, self.work.of, None)

    def process_pod_deletion(self, pod: Any, *, reraise: bool = True) -> bool:
        """Delete the application of a driver; the provider would spoil a name with -driver inside."""
        if pod is None:
            return False
        application = str(pod.metadata.name).removesuffix(DRIVER)
        self.launcher.delete_spark_job(application)  # type: ignore[no-untyped-call]
        return True
