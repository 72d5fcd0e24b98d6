"""A machine of a cluster, as far as the pods of rendered manifests need one: each is containers of Docker's.

Environment, commands, volumes, rights, limits and checks are those of the manifests. There is one network,
where services are names for the containers that they select.
"""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]

# Kubernetes' $(NAME) in commands and arguments.
_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
# What kubelet gives the files of secrets and config maps.
_FILE_MODE = 0o644


class NodeError(Exception):
    """What a pod asks for is not there, or one of its containers has failed."""


class Node:
    """The pods of one namespace. Call `clean` at the end.

    :param name: of the network, and what all containers' names begin with
    :param folder: for volumes; only this node uses it
    """

    def __init__(self, name: str, folder: Path, objects: Iterable[Json]) -> None:
        self._name = name
        self._folder = folder
        self._objects = {(each["kind"], each["metadata"]["name"]): each for each in objects}
        self._ports: dict[int, int] = {}
        docker("network", "create", name)

    def run_job(self, name: str, seconds: float) -> None:
        """Run the pod of a job to its end. Raises NodeError when it fails."""
        spec = self.template("Job", name)["spec"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            self._complete(spec, name, container, seconds)

    def start(self, kind: str, name: str, ports: Mapping[int, int] | None = None) -> None:
        """Start one pod of a Deployment or StatefulSet, once its init containers have ended well.

        :param ports: where this machine reaches ports of the pod
        """
        self._ports |= ports or {}
        template = self.template(kind, name)
        spec = template["spec"]
        for container in spec.get("initContainers", ()):
            self._complete(spec, name, container, 300)
        # Those that a StatefulSet makes for its pods.
        claims = [
            {"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": f"{name}-0"}}
            for claim in self._objects[kind, name]["spec"].get("volumeClaimTemplates", ())
        ]
        spec = {**spec, "volumes": [*(spec.get("volumes") or ()), *claims]}
        for container in spec["containers"]:
            services = self._services(template["metadata"]["labels"])
            options = [f"--network-alias={service}" for service in services]
            options += [f"--publish=127.0.0.1:{here}:{port}" for port, here in (ports or {}).items()]
            docker("run", "--detach", *options, *self._arguments(spec, name, container))

    def check(self, kind: str, name: str, probe: str) -> str:
        """What a check of a pod's first container says against it; empty when it is well."""
        [container, *_] = self.template(kind, name)["spec"]["containers"]
        asked = container[probe]
        seconds = asked.get("timeoutSeconds", 1)
        if "exec" in asked:
            command = ["docker", "exec", self.container(name, container["name"]), *asked["exec"]["command"]]
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
            except subprocess.TimeoutExpired:
                return f"no answer within {seconds} s"
            return "" if done.returncode == 0 else f"{done.returncode}: {done.stdout}{done.stderr}"
        url = f"http://127.0.0.1:{self._ports[asked['httpGet']['port']]}{asked['httpGet']['path']}"
        try:
            answer = httpx.get(url, timeout=seconds, trust_env=False)
        except httpx.TransportError as error:
            return repr(error)
        return "" if answer.status_code < 400 else f"{answer.status_code}: {answer.text}"

    def container(self, workload: str, name: str) -> str:
        """The name of a container."""
        return f"{self._name}-{workload}-{name}"

    def clean(self) -> None:
        """Remove all containers and the network."""
        docker("rm", "--force", "--volumes", *self._containers(), check=False)
        docker("network", "rm", self._name, check=False)

    def logs(self) -> str:
        """The ends of all containers' logs."""
        parts = (
            f"== {each}\n{docker('logs', '--tail', '40', each, check=False)}" for each in self._containers()
        )
        return "\n".join(parts)

    def _containers(self) -> list[str]:
        found = docker("ps", "--all", "--filter", f"network={self._name}", "--format", "{{.Names}}")
        return found.split()

    def _services(self, labels: Mapping[str, str]) -> list[str]:
        """The names of the services that select pods with these labels."""
        return [
            name
            for (kind, name), each in self._objects.items()
            if kind == "Service" and each["spec"]["selector"].items() <= labels.items()
        ]

    def template(self, kind: str, name: str) -> Json:
        """What the pods of a workload are made of."""
        template: Json = self._objects[kind, name]["spec"]["template"]
        return template

    def _complete(self, spec: Json, workload: str, container: Json, seconds: float) -> None:
        """Run a container to its end."""
        name = self.container(workload, container["name"])
        docker("run", "--detach", *self._arguments(spec, workload, container))
        try:
            code = docker("wait", name, seconds=seconds).strip()
            log = docker("logs", name)
        finally:
            docker("rm", "--force", name, check=False)
        if code != "0":
            raise NodeError(f"{name} ended with {code}:\n{log}")

    def _arguments(self, spec: Json, workload: str, container: Json) -> list[str]:
        """Options, image and command of `docker run`."""
        env = self.environment(container)
        rights = {**(spec.get("securityContext") or {}), **(container.get("securityContext") or {})}
        options = [
            f"--name={self.container(workload, container['name'])}",
            f"--network={self._name}",
            *(f"--env={name}={value}" for name, value in env.items()),
            *(f"--cap-drop={name}" for name in rights.get("capabilities", {}).get("drop", ())),
        ]
        if "runAsUser" in rights:
            options.append(f"--user={rights['runAsUser']}:{rights.get('runAsGroup', 0)}")
        if not rights.get("allowPrivilegeEscalation", True):
            options.append("--security-opt=no-new-privileges")
        if rights.get("readOnlyRootFilesystem"):
            options.append("--read-only")
        if limit := (container.get("resources") or {}).get("limits", {}).get("memory"):
            options.append(f"--memory={limit.removesuffix('i').lower()}")
        volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
        for mount in container.get("volumeMounts", ()):
            source = self._volume(workload, volumes[mount["name"]], rights.get("fsGroup", 0))
            if sub := mount.get("subPath"):
                source /= sub
                if not source.exists():
                    source.mkdir()  # so does Kubernetes
            mode = ":ro" if mount.get("readOnly") else ""
            options.append(f"--volume={source}:{mount['mountPath']}{mode}")
        command, arguments = (
            [_VARIABLE.sub(lambda found: env.get(found[1], found[0]), word) for word in words or ()]
            for words in (container.get("command"), container.get("args"))
        )
        if command:
            options.append(f"--entrypoint={command[0]}")
        return [*options, container["image"], *command[1:], *arguments]

    def environment(self, container: Json) -> dict[str, str]:
        """The variables of a container. Raises NodeError when one that it needs is nowhere."""
        env: dict[str, str] = {}
        for each in container.get("envFrom") or ():
            for kind, reference in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if reference in each:
                    env |= self._values(kind, each[reference]["name"])
        for each in container.get("env") or ():
            given = each.get("valueFrom")
            if given is None:
                env[each["name"]] = each.get("value") or ""
                continue
            kind = "Secret" if "secretKeyRef" in given else "ConfigMap"
            [reference] = given.values()
            try:
                env[each["name"]] = self._values(kind, reference["name"])[reference["key"]]
            except KeyError as error:
                if not reference.get("optional"):
                    raise NodeError(f"{container['name']}: {each['name']} is nowhere: {reference}") from error
        return env

    def _values(self, kind: str, name: str) -> dict[str, str]:
        """The values of a secret or a config map. Raises KeyError without it."""
        found = self._objects[kind, name]
        plain: dict[str, str] = found.get("stringData") or {}
        data: dict[str, str] = found.get("data") or {}
        if kind == "ConfigMap":
            return data
        return {key: base64.b64decode(value).decode() for key, value in data.items()} | plain

    def _volume(self, workload: str, volume: Json, group: int) -> Path:
        """The folder of a volume on this machine."""
        for kind, key, reference in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName")):
            if key in volume:
                folder = self._folder / f"{key}-{volume[key][reference]}"
                folder.mkdir(exist_ok=True)
                for name, value in self._values(kind, volume[key][reference]).items():
                    (folder / name).write_text(value, encoding="utf-8")
                    (folder / name).chmod(_FILE_MODE)
                return folder
        if "persistentVolumeClaim" in volume:
            folder = self._folder / f"claim-{volume['persistentVolumeClaim']['claimName']}"
        else:
            folder = self._folder / f"empty-{workload}-{volume['name']}"
        if not folder.exists():
            folder.mkdir()
            shutil.chown(folder, 0, group)
            folder.chmod(0o2775)
        return folder


def docker(*arguments: str, seconds: float = 300, check: bool = True) -> str:
    """Run a command of Docker's; returns what it printed, of `logs` both streams. Raises NodeError."""
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=False
    )
    if check and done.returncode:
        raise NodeError(f"docker {arguments[0]}: {done.stdout}{done.stderr}")
    return done.stdout + (done.stderr if arguments[0] == "logs" else "")
