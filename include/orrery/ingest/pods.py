"""What Kubernetes says about a pod, in words for users."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from kubernetes.client import ApiException, CoreV1Api
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from orrery.ingest.errors import IngestError

TAIL_LINES = 20
# Answers that are the same the next time: the request is wrong, or not allowed.
_FINAL = (400, 401, 403, 404, 405, 422)


class UnavailableError(IngestError):
    """The cluster cannot answer now; another try may help."""


def in_words(error: Exception, connection: str) -> Exception:
    """`error`, or an IngestError for what the client of the cluster of `connection` raises."""
    if isinstance(error, ApiException):
        return refused(error, connection)
    if isinstance(error, ConfigException):
        return IngestError(f"The connection {connection!r} leads to no cluster: {error}")
    if isinstance(error, HTTPError):
        why = getattr(error, "reason", None) or error
        return UnavailableError(f"The cluster of the connection {connection!r} does not answer: {why}")
    return error


def refused(error: ApiException, connection: str) -> IngestError:
    """What an answer of the cluster means."""
    try:
        message = json.loads(error.body)["message"]
    except (TypeError, ValueError, KeyError):
        message = error.reason
    told = f"The cluster of the connection {connection!r} answers {error.status}: {message}"
    hints = {
        401: "The connection's credentials are not valid.",
        403: "The connection's account needs the right to do this (a role and a role binding).",
        404: "Check the namespace; for spark, check that the Spark operator is installed.",
    }
    if error.status in _FINAL:
        return IngestError(f"{told}\n  {hints.get(error.status, 'Check the block and its template.')}")
    return UnavailableError(told)


def failure(client: CoreV1Api, pod: Any, container: str, label: str, timeout: timedelta | None) -> str:
    """Why a pod has not succeeded, with the end of its log.

    :param container: the container that counts
    :param label: what it was for
    :param timeout: set when the pod took longer
    """
    name = pod.metadata.name
    ended = next(_ended(pod), None)
    told = f"The pod {name} of {label}"
    if pod.status.reason == "DeadlineExceeded":
        told += " did not end in time."
    elif timeout is not None and pod.status.phase == "Pending":
        told += f" did not start in time: {_state(pod)}; it is deleted."
    elif timeout is not None:
        told += f" did not end within its timeout of {timeout}; it is deleted."
    elif ended:
        where, exit_code, reason = ended
        place = f" in {where}" if where != container else ""
        detail = f" ({reason})" if reason and reason != "Error" else ""
        told += f" failed{place} with exit code {exit_code}{detail}."
        container = where
    else:
        told += f" did not run to its end: {_state(pod).rstrip('.')}."
    lines = _tail(client, pod, container)
    return f"{told} Its last lines:\n{lines}" if lines else told


def _statuses(pod: Any) -> list[Any]:
    """The states of its containers, in the order in which they run."""
    return [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]


def _ended(pod: Any) -> Iterator[tuple[str, int, str]]:
    """Name, exit code and reason of each container that failed."""
    for status in _statuses(pod):
        terminated = status.state and status.state.terminated
        if terminated and terminated.exit_code:
            yield status.name, terminated.exit_code, terminated.reason


def _state(pod: Any) -> str:
    status = pod.status
    for each in _statuses(pod):
        waiting = each.state and each.state.waiting
        if waiting and waiting.reason:
            return ": ".join(filter(None, (waiting.reason, waiting.message)))
    for each in status.conditions or []:
        if each.type == "PodScheduled" and each.status == "False":
            return ": ".join(filter(None, (each.reason, each.message)))
    return ": ".join(filter(None, (status.reason or status.phase, status.message)))


def _tail(client: CoreV1Api, pod: Any, container: str) -> str:
    try:
        answer = client.read_namespaced_pod_log(
            pod.metadata.name,
            pod.metadata.namespace,
            container=container,
            tail_lines=TAIL_LINES,
            _preload_content=False,
        )
        found = answer.data.decode(errors="replace")
    except (ApiException, HTTPError):
        kept = (each.state.terminated for each in _statuses(pod) if each.name == container and each.state)
        found = next((each.message for each in kept if each), None)
    return str(found or "").strip()


def staying(pod: Any) -> Any:
    """The pod, or None when it is being deleted: a cleared task must not take over what its clearing ends."""
    return None if pod is None or pod.metadata.deletion_timestamp else pod


def unknown_keys(given: Any, kept: Any, path: str = "") -> list[str]:
    """The keys of a manifest that Kubernetes' client does not know, and would drop without a word."""
    if isinstance(given, list) and isinstance(kept, list):
        pairs = zip(given, kept, strict=True)
        return [key for before, after in pairs for key in unknown_keys(before, after, path)]
    if not isinstance(given, Mapping) or not isinstance(kept, Mapping):
        return []
    found = []
    for key, value in given.items():
        here = f"{path}.{key}".lstrip(".")
        if key not in kept:
            found += [here] if value is not None else []
        else:
            found += unknown_keys(value, kept[key], here)
    return found
