"""Pods of the stand-in for Kubernetes: each runs its container's command as a process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_REFERENCE = re.compile(r"\$(\$|\(([A-Za-z_][\w.-]*)\))")


@dataclass(frozen=True)
class Cluster:
    """What pods find in the cluster.

    `folder` is the working directory of every container, and what local:/// stands for; `environment` the
    variables that every container has; `images` the entrypoint of each image that can be pulled.
    """

    folder: Path
    environment: Mapping[str, str]
    config_maps: Mapping[str, Mapping[str, str]]
    secrets: Mapping[str, Mapping[str, str]]
    images: Mapping[str, Sequence[str]]


class WaitingError(Exception):
    """A container cannot start yet: the reason and the message that Kubernetes gives."""


@dataclass
class Pod:
    """A pod, from its manifest; `on_change` is called whenever its status has changed."""

    manifest: Json
    cluster: Cluster
    on_change: Callable[[], None]
    phase: str = "Pending"
    reason: str | None = None
    state: Json = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    lines: list[tuple[datetime, str]] = field(default_factory=list)
    process: subprocess.Popen[bytes] | None = None
    events: list[Json] = field(default_factory=list)
    # Whether it has been asked to end, and takes its time.
    terminating: bool = False
    # How many seconds it has to end then.
    grace: int = 30
    # Whether its machine is lost: of its end nothing is heard, and its log cannot be read.
    lost: bool = False

    def __post_init__(self) -> None:
        self.uid, self.created = str(uuid.uuid4()), now()
        self.name: str = self.manifest["metadata"]["name"]
        self.namespace: str = self.manifest["metadata"]["namespace"]
        self.labels: dict[str, str] = dict(self.manifest["metadata"].get("labels") or {})
        self._threads: list[threading.Timer | threading.Thread] = []

    @property
    def container(self) -> Json:
        """The manifest of its container."""
        found: Json = self.manifest["spec"]["containers"][0]
        return found

    @property
    def ended(self) -> bool:
        """Whether it will not change any more."""
        return self.phase in ("Succeeded", "Failed")

    def start(self) -> None:
        """Run its container."""
        self._event("Scheduled", f"Successfully assigned {self.namespace}/{self.name} to this machine")
        try:
            arguments, variables = self._command()
        except WaitingError as waits:
            reason, message = waits.args
            self._event("Failed", message, "Warning")
            self._change(state={"waiting": {"reason": reason, "message": message}})
            return
        self._event("Started", f"Started container {self.container['name']}")
        started = now()
        try:
            self.process = subprocess.Popen(
                arguments,
                cwd=self.cluster.folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            self._end(started, 128, "StartError", str(error))
            return
        self._change(phase="Running", state={"running": {"startedAt": stamp(started)}})
        self._threads.append(threading.Thread(target=self._follow, args=(started,), daemon=True))
        deadline = self.manifest["spec"].get("activeDeadlineSeconds")
        if deadline:
            self._threads.append(threading.Timer(deadline, self.kill, ("DeadlineExceeded",)))
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def kill(self, reason: str | None = None) -> None:
        """End its process, with all that it has started."""
        if self.process is not None and self.process.poll() is None:
            self.reason = reason
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End its process, and wait for the end."""
        self.kill()
        for thread in self._threads:
            if isinstance(thread, threading.Timer):
                thread.cancel()
            thread.join()

    def read(self, since: float | None = None, tail: int | None = None) -> list[tuple[datetime, str]]:
        """Time and text of the lines of its log.

        :param since: only those of so many last seconds
        """
        found = [*self.lines]
        if since is not None:
            found = [line for line in found if (now() - line[0]).total_seconds() <= since]
        return found[-tail:] if tail else found

    def as_json(self) -> Json:
        """What the API answers."""
        spec = self.manifest["spec"]
        status: Json = {
            "phase": self.phase,
            "startTime": stamp(self.created),
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [self._container_status(self.container, self.state)],
        }
        if spec.get("initContainers"):
            done = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": stamp(self.created)}}
            status["initContainerStatuses"] = [
                self._container_status(each, done) for each in spec["initContainers"]
            ]
        if self.reason:
            status["reason"] = self.reason
        metadata: Json = {
            **self.manifest["metadata"],
            "labels": self.labels,
            "uid": self.uid,
            "resourceVersion": "1",
            "creationTimestamp": stamp(self.created),
        }
        if self.terminating:
            metadata |= {"deletionTimestamp": stamp(now()), "deletionGracePeriodSeconds": self.grace}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}

    @staticmethod
    def _container_status(container: Json, state: Json) -> Json:
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": "running" in state,
            "restartCount": 0,
            "started": "waiting" not in state,
            "state": state,
        }

    def _command(self) -> tuple[list[str], dict[str, str]]:
        """The arguments and the environment of the process; raises WaitingError."""
        image = self.container["image"]
        if image not in self.cluster.images:
            raise WaitingError("ErrImagePull", f'Failed to pull image "{image}": not found')
        variables = {"PATH": os.defpath, "HOSTNAME": self.name, **self.cluster.environment}
        for source in self.container.get("envFrom") or []:
            for key, known in (("configMapRef", "config_maps"), ("secretRef", "secrets")):
                if key in source:
                    name = source[key]["name"]
                    content = getattr(self.cluster, known).get(name)
                    if content is None:
                        what = known.rstrip("s").replace("_", "")
                        raise WaitingError("CreateContainerConfigError", f'{what} "{name}" not found')
                    variables |= content
        for each in self.container.get("env") or []:
            variables[each["name"]] = expanded(each.get("value") or "", variables)
        command = self.container.get("command") or self.cluster.images[image]
        arguments = [expanded(each, variables) for each in [*command, *(self.container.get("args") or [])]]
        arguments = [self._here(each) for each in arguments]
        if arguments and re.fullmatch(r"python3?", arguments[0]):
            arguments[0] = sys.executable
        return arguments, variables

    def _here(self, argument: str) -> str:
        """A path inside the container, where it is on this machine; other arguments as they are."""
        path = self.cluster.folder / argument.lstrip("/")
        return str(path) if argument.startswith("/") and path.exists() else argument

    def _follow(self, started: datetime) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for raw in output:
                self.lines.append((now(), raw.decode(errors="replace").rstrip("\n")))
                self.on_change()
        code = self.process.wait()
        # As a shell counts: 128 and the signal.
        exit_code = code if code >= 0 else 128 - code
        self._end(started, exit_code, "Error" if exit_code else "Completed", "")

    def _end(self, started: datetime, exit_code: int, reason: str, message: str) -> None:
        if exit_code and self.container.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            message = message or "\n".join(text for _, text in self.read(tail=80))[-2048:]
        terminated = {
            "exitCode": exit_code,
            "reason": reason,
            "startedAt": stamp(started),
            "finishedAt": stamp(now()),
        }
        if message:
            terminated["message"] = message
        self._change(phase="Failed" if exit_code else "Succeeded", state={"terminated": terminated})

    def _change(self, *, state: Json, phase: str | None = None) -> None:
        self.state, self.phase = state, phase or self.phase
        self.on_change()

    def _event(self, reason: str, message: str, kind: str = "Normal") -> None:
        self.events.append(
            {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {
                    "name": f"{self.name}.{len(self.events)}",
                    "namespace": self.namespace,
                    "uid": str(uuid.uuid4()),
                    "resourceVersion": str(len(self.events) + 1),
                },
                "involvedObject": {"kind": "Pod", "name": self.name, "namespace": self.namespace},
                "reason": reason,
                "message": message,
                "type": kind,
                "firstTimestamp": stamp(now()),
            }
        )


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """`text` with the values of $(NAME), as Kubernetes does it: unknown ones stay, $$ is one $."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] == "$" else variables.get(match[2], match[0])

    return _REFERENCE.sub(value, text)


def now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """A time as Kubernetes writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def log_lines(pod: Pod, lines: list[tuple[datetime, str]], *, timestamps: bool) -> Iterator[str]:
    """Lines of a log as the API gives them."""
    for moment, text in lines:
        prefix = moment.strftime("%Y-%m-%dT%H:%M:%S.%f000Z ") if timestamps else ""
        yield f"{prefix}{text}\n"
