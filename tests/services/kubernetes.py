"""A stand-in for the API of Kubernetes, with the Spark operator.

What pods and Spark applications run is run here, as processes. Every object is checked as a cluster would
check it; what is asked for and not known is kept in `unknown`.
"""

from __future__ import annotations

import json
import secrets as random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from services.kubernetes_checks import StatusError, check_pod, check_spark_application, selected
from services.kubernetes_http import HttpServer
from services.kubernetes_pods import Cluster, Json, Pod
from services.service import Service

Key = tuple[str, str]


class KubernetesServer(Service):
    """A cluster of one machine.

    :param folder: where containers run, and what local:/// stands for
    :param images: the images that can be pulled, each with its entrypoint; `python` in a command is the
        interpreter of this process
    :param environment: variables that every container has
    :param config_maps: contents by name; `secrets` too
    :param connection: the id of the Airflow connection
    """

    def __init__(
        self,
        folder: Path,
        images: Mapping[str, Sequence[str]],
        *,
        environment: Mapping[str, str] | None = None,
        config_maps: Mapping[str, Mapping[str, str]] | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        connection: str = "kubernetes_default",
    ) -> None:
        self.cluster = Cluster(folder, environment or {}, config_maps or {}, secrets or {}, images)
        self.connection = connection
        self.token = random.token_hex(16)
        self.pods: dict[Key, Pod] = {}
        self.applications: dict[Key, Json] = {}
        # What was posted, and the names of what was deleted, in their order.
        self.posted: list[Json] = []
        self.deleted: list[str] = []
        self.unknown: list[str] = []
        self.changed = threading.Condition()
        self.closing = False
        # Every pod that there ever was: none may outlive the server.
        self._made: list[Pod] = []
        self._http = HttpServer(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def connections(self) -> dict[str, Json]:
        """The Airflow connection that leads to it, as Airflow's API takes it."""
        name = "stand-in"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": self.url}}],
            "users": [{"name": name, "user": {"token": self.token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
        extra = json.dumps({"kube_config": json.dumps(config), "namespace": "default"})
        return {
            self.connection: {"connection_id": self.connection, "conn_type": "kubernetes", "extra": extra}
        }

    def close(self) -> None:
        """End all that runs."""
        self.closing = True
        self.notify()
        for pod in self._made:
            pod.close()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def running(self) -> list[str]:
        """The names of the pods whose processes run."""
        return [pod.name for pod in self._made if pod.process is not None and pod.process.poll() is None]

    def notify(self) -> None:
        """Wake those who wait for a change."""
        with self.changed:
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool], seconds: float = 3600) -> bool:
        """Wait until something is the case; False when it is not within `seconds`, or the server closes."""
        with self.changed:
            return self.changed.wait_for(lambda: self.closing or condition(), seconds) and not self.closing

    # What the API does

    def create_pod(self, body: Json, namespace: str) -> Json:
        body.setdefault("metadata", {})["namespace"] = namespace
        check_pod(body)
        self.posted.append(body)
        return self._run(body).as_json()

    def pod(self, namespace: str, name: str) -> Pod:
        try:
            return self.pods[namespace, name]
        except KeyError:
            raise StatusError(404, "NotFound", f'pods "{name}" not found') from None

    def list_pods(self, namespace: str, query: Mapping[str, str]) -> Json:
        labels, fields = query.get("labelSelector", ""), query.get("fieldSelector", "")
        found = [
            pod.as_json()
            for (where, _), pod in [*self.pods.items()]
            if where == namespace
            and selected(labels, pod.labels)
            and selected(fields, {"status.phase": pod.phase, "metadata.name": pod.name})
        ]
        return {"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": found}

    def patch_pod(self, namespace: str, name: str, body: Json) -> Json:
        pod = self.pod(namespace, name)
        pod.labels |= body["metadata"]["labels"]
        return pod.as_json()

    def delete_pod(self, namespace: str, name: str, grace: int | None = None) -> Json:
        pod = self.pod(namespace, name)
        if pod.lost and grace != 0:
            # The object stays until the machine says that the pod has ended.
            pod.terminating = True
            return pod.as_json()
        pod.close()
        del self.pods[namespace, name]
        self.deleted.append(name)
        self.notify()
        return pod.as_json()

    def events(self, namespace: str, query: Mapping[str, str]) -> list[Json]:
        pods = [pod for (where, _), pod in [*self.pods.items()] if where == namespace]
        selector = query.get("fieldSelector", "")
        return [
            event
            for pod in pods
            for event in pod.events
            if selected(selector, {"involvedObject.name": event["involvedObject"]["name"]})
        ]

    def create_application(self, body: Json, namespace: str) -> Json:
        name = body["metadata"]["name"]
        if (namespace, name) in self.applications:
            raise StatusError(409, "AlreadyExists", f'sparkapplications "{name}" already exists')
        check_spark_application(body)
        self.posted.append(body)
        self.applications[namespace, name] = body
        spec = body["spec"]
        labels = {"sparkoperator.k8s.io/app-name": name, "spark-app-name": name}
        for role, suffix in (("executor", "-exec-1"), ("driver", "-driver")):
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name + suffix,
                    "namespace": namespace,
                    "labels": {**(spec[role].get("labels") or {}), **labels, "spark-role": role},
                },
                "spec": self._pod_spec(spec, role),
            }
            check_pod(pod)
        self._run(pod)
        return self.application(namespace, name)

    def application(self, namespace: str, name: str) -> Json:
        if (namespace, name) not in self.applications:
            raise StatusError(404, "NotFound", f'sparkapplications "{name}" not found')
        driver = self.pods.get((namespace, f"{name}-driver"))
        states = {"Pending": "SUBMITTED", "Running": "RUNNING", "Succeeded": "COMPLETED"}
        state: Json = {"state": states.get(driver.phase, "FAILED") if driver else "FAILED"}
        if driver is None:
            state["errorMessage"] = "driver pod not found"
        elif driver.phase == "Failed":
            ended = driver.state["terminated"]
            state["errorMessage"] = (
                f"driver container failed with ExitCode: {ended['exitCode']}, Reason: {ended['reason']}"
            )
        return {**self.applications[namespace, name], "status": {"applicationState": state}}

    def delete_application(self, namespace: str, name: str) -> Json:
        found = self.application(namespace, name)
        with suppress(StatusError):
            self.delete_pod(namespace, f"{name}-driver")
        del self.applications[namespace, name]
        self.deleted.append(name)
        return found

    def _run(self, manifest: Json) -> Pod:
        pod = Pod(manifest, self.cluster, self.notify)
        if (pod.namespace, pod.name) in self.pods:
            raise StatusError(409, "AlreadyExists", f'pods "{pod.name}" already exists')
        self.pods[pod.namespace, pod.name] = pod
        self._made.append(pod)
        pod.start()
        return pod

    def _pod_spec(self, spec: Json, role: str) -> Json:
        """What the Spark operator makes of an application for its driver or its executors."""
        own = spec[role]
        path = spec["mainApplicationFile"].removeprefix("local://")
        container = {
            "name": "spark-kubernetes-driver" if role == "driver" else "spark-kubernetes-executor",
            "image": spec["image"],
            "command": ["python", str(self.cluster.folder / path.lstrip("/"))],
            "args": spec.get("arguments") or [],
            **{key: own[key] for key in ("env", "envFrom", "volumeMounts") if key in own},
        }
        made: Json = {
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": spec.get("volumes") or [],
        }
        if "initContainers" in own:
            made["initContainers"] = own["initContainers"]
        return made
