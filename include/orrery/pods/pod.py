"""A pod in which dbt runs: how it is made, followed, and ended."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import AirflowException
from kubernetes.client import ApiException
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from orrery.config.dbt_pods import IMAGE_VARIABLE, DbtPods
from orrery.ingest.connections import require
from orrery.ingest.errors import SetupError, without_secrets
from orrery.ingest.kubernetes import EXAMPLE, JobOperator
from orrery.ingest.pods import UnavailableError, failure, in_words
from orrery.plan.model import Work
from orrery.pods.order import Order
from orrery.pods.speech import Listener, for_people

if TYPE_CHECKING:
    from airflow.sdk import Context

COMMAND = ("python", "-m", "orrery.pods.inside")
_ENDED = ("Succeeded", "Failed")
_GONE, _NOT_ALLOWED = 404, (401, 403)
# How long a log may be silent before it is asked for anew, and how long the cluster may be away, in seconds.
_SILENCE = (10, 60)
_PATIENCE = 600.0
_PAUSE = 0.5
# A log that is read anew begins so many seconds before what was heard last.
_OVERLAP = 60
# How long a pod that is deleted may take to end dbt: Kubernetes gives it 30 s.
_DELETION = 90.0
# How long after a pod's time is over its machine may take to say that it has ended it.
_LOST = 120.0


class DbtPod(JobOperator):
    """A pod with one run of dbt. It is no task: a task makes it and calls `follow`, or `submit` and `resume`.

    :param pods: the pipeline's block
    :param order: what dbt is to do
    :param of: what it is for, in words
    :param listener: takes what the pod tells
    """

    settings: DbtPods

    def __init__(
        self, *, pods: DbtPods, order: Order | None, of: str, listener: Listener, **kwargs: Any
    ) -> None:
        super().__init__(
            stage="",
            nodes=(),
            work=Work("dbt", pods, of),
            do_xcom_push=False,
            # The trigger leaves the log to `cleanup`, which understands it.
            get_logs=False,
            logging_interval=None,
            **kwargs,
        )
        self._order, self._listener = order, listener
        self.problem = ""

    def submit(self, context: Context) -> None:
        """Start the pod, or find the one of an earlier try; raises TaskDeferred until it has ended."""
        with _in_words(self.settings.connection):
            self._ready(context)
            # What `execute` of the provider does for tasks.
            self.name = self._set_name(self.name)
            KubernetesPodOperator.execute_async(self, context)

    def resume(self, context: Context, event: dict[str, Any]) -> None:
        """Take what the pod has told, and delete it; raises TaskDeferred when it has not ended after all."""
        self._timed_out = event["status"] == "timeout"
        with _in_words(self.settings.connection):
            self._resume(event["namespace"])
            try:
                KubernetesPodOperator.trigger_reentry(self, context, event)
            except AirflowException as error:
                self.problem = self.problem or without_secrets(str(error))

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> None:
        """The provider calls it for a pod that has ended before anybody waited."""
        self.resume(context, event)

    def follow(self, context: Context) -> None:
        """Run the pod to its end, and pass on what it tells while it runs; then delete it."""
        with _in_words(self.settings.connection):
            self._ready(context)
            request = self.build_pod_request_obj(context)
            self._end_others(request.metadata.namespace, context)
            name, namespace = request.metadata.name, request.metadata.namespace
            self.pod = self.pod_manager.create_pod(request)
            try:
                try:
                    self.await_pod_start(self.pod)
                except AirflowException:
                    self._timed_out = True
                    self.problem = self._problem(self._get(name, namespace))
                else:
                    timer = _Timer(request, self.settings.timeout.total_seconds())
                    self.problem = self._problem(self._listen(name, namespace, timer))
            finally:
                self.end()

    def end(self) -> None:
        """Delete the pod; dbt gets a moment to cancel its queries. Never raises."""
        pod: Any = self.pod
        if pod is None:
            return
        try:
            self.pod_manager.delete_pod(pod)
        except (ApiException, HTTPError) as error:
            self.log.warning("The pod %s cannot be deleted: %s", pod.metadata.name, error)

    def cleanup(
        self, pod: Any, remote_pod: Any, xcom_result: Any = None, context: Context | None = None
    ) -> None:
        """Take what the pod has told, before its log goes with it."""
        if remote_pod and not self._listener.ended:
            try:
                for line in self._log(remote_pod.metadata.name, remote_pod.metadata.namespace):
                    self._listener.hear(line.partition(" ")[2])
            except (ApiException, HTTPError) as error:
                self.log.warning("The log of the pod cannot be read: %s", error)
            self.problem = self._problem(remote_pod)
            # The cluster's events are for pods that could not do their work.
            self.log_events_on_failure = not self._listener.ended
        KubernetesPodOperator.cleanup(self, pod, remote_pod, xcom_result, context)

    def _ready(self, context: Context) -> None:
        require(self.settings.connection, EXAMPLE)
        self._prepare(self._rendered(context, None))

    def _given(self) -> dict[str, Any]:
        image = self.settings.image or os.environ.get(IMAGE_VARIABLE)
        if not image:
            raise SetupError(
                "There is no image for the pods of dbt.\n"
                f"  Set {IMAGE_VARIABLE} for the workers, or image in the pipeline's block kubernetes."
            )
        assert self._order is not None
        return {"image": image, "command": COMMAND, "args": self._order.arguments()}

    def _end_others(self, namespace: str, context: Context) -> None:
        """Delete what an earlier try has left behind, and wait until dbt has ended there."""
        selector = self._build_find_pod_label_selector(context, exclude_checked=False)
        deadline = time.monotonic() + _DELETION
        while left := self.client.list_namespaced_pod(namespace, label_selector=selector).items:
            late = time.monotonic() > deadline
            for pod in left:
                if late:
                    self._remove(pod.metadata.name, namespace)
                elif not pod.metadata.deletion_timestamp:
                    self.log.info("Deleting the pod of an earlier try: %s", pod.metadata.name)
                    self.pod_manager.delete_pod(pod)
            if late:
                return
            time.sleep(_PAUSE)

    def _remove(self, name: str, namespace: str) -> None:
        """Delete a pod without waiting for its machine, which no longer answers."""
        self.log.warning("The machine of the pod %s says nothing: the pod is removed without it.", name)
        try:
            self.client.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
        except ApiException as error:
            if error.status != _GONE:
                raise

    def _listen(self, name: str, namespace: str, timer: _Timer) -> Any:
        """Pass on the lines of the log until the pod has ended; returns the pod as it is then."""
        deadline = time.monotonic() + _PATIENCE
        last, since = "", time.monotonic()
        while True:
            try:
                pod = self._get(name, namespace)
                ended = pod.status.phase in _ENDED
                if not ended:
                    # A log may be silent for hours.
                    deadline = time.monotonic() + _PATIENCE
                    self._give_up(pod, timer)
                known = last
                seconds = int(time.monotonic() - since) + _OVERLAP if last else None
                for line in self._log(name, namespace, follow=True, since_seconds=seconds):
                    last, _, text = line.partition(" ")
                    since = time.monotonic()
                    self._listener.hear(text, again=last <= known)
                # Only now: what it said last is read.
                if ended:
                    return pod
            except (ApiException, HTTPError) as error:
                status = error.status if isinstance(error, ApiException) else None
                if status in _NOT_ALLOWED or time.monotonic() > deadline:
                    raise
                self.log.debug("The log of the pod is interrupted: %s", error)
            time.sleep(_PAUSE)

    def _give_up(self, pod: Any, timer: _Timer) -> None:
        """Remove a pod that should have ended long ago, and raise AirflowException; else nothing."""
        if timer.over(pod):
            self._remove(pod.metadata.name, pod.metadata.namespace)
            raise AirflowException(
                f"The pod {pod.metadata.name} of {self.work.of} should have ended, but its machine says "
                "nothing: it is lost, or cut off from the cluster. The pod is removed."
            )

    def _get(self, name: str, namespace: str) -> Any:
        try:
            return self.hook.get_pod(name, namespace)
        except ApiException as error:
            if error.status != _GONE:
                raise
        raise AirflowException(f"The pod {name} is gone: it was deleted, or its machine.")

    def _log(self, name: str, namespace: str, **choice: Any) -> Iterator[str]:
        """Lines of the log, each with its time before it."""
        answer = self.client.read_namespaced_pod_log(
            name,
            namespace,
            container=self.base_container_name,
            timestamps=True,
            _preload_content=False,
            _request_timeout=_SILENCE,
            **choice,
        )
        try:
            for raw in answer:
                yield raw.decode("utf-8", errors="backslashreplace").rstrip("\n")
        finally:
            answer.release_conn()

    def _problem(self, pod: Any) -> str:
        """Why the pod has not succeeded; empty when it has."""
        if pod.status.phase == "Succeeded":
            return ""
        timeout = self.settings.timeout if self._timed_out or pod.status.phase == "Pending" else None
        told = failure(self.client, pod, self.base_container_name, self.work.of, timeout)
        return without_secrets(for_people(told))


class _Timer:
    """When a pod that does not end is given up: to end it in time is up to its machine, which may be lost.

    :param pod: as it was asked for
    :param timeout: in seconds, where the pod names none
    """

    def __init__(self, pod: Any, timeout: float) -> None:
        self._end = time.monotonic() + (pod.spec.active_deadline_seconds or timeout) + _LOST
        self._deleted = False

    def over(self, pod: Any) -> bool:
        """Whether it is time, of a pod that has not ended."""
        if pod.metadata.deletion_timestamp and not self._deleted:
            # By this clock, which may differ from that of the cluster.
            self._deleted = True
            grace = pod.metadata.deletion_grace_period_seconds or 0
            self._end = min(self._end, time.monotonic() + grace + _LOST)
        return time.monotonic() > self._end


@contextmanager
def _in_words(connection: str) -> Iterator[None]:
    """Errors of the cluster's client in words for users; AirflowException when another try may help."""
    try:
        yield
    except (ApiException, ConfigException, HTTPError) as error:
        told = in_words(error, connection)
        again = isinstance(told, UnavailableError)
        raise (AirflowException if again else SetupError)(without_secrets(str(told))) from error
