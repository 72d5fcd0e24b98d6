"""What Kubernetes says about a pod, in words for users."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiClient, ApiException

from orrery.ingest.errors import IngestError
from orrery.ingest.pods import UnavailableError, failure, refused, unknown_keys

RUNNING = {"running": {"startedAt": "2026-01-31T00:00:00Z"}}


def status(name: str, **state: Any) -> dict[str, Any]:
    """A container's status as the API gives it."""
    return {"name": name, "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}


def told(pod_status: dict[str, Any], timeout: timedelta | None = None) -> str:
    """What is said about a pod with this status, of which there is no log any more."""

    class Gone:
        def read_namespaced_pod_log(self, *_: Any, **__: Any) -> None:
            raise ApiException(404)

    raw = {
        "metadata": {"name": "load-1", "namespace": "data"},
        "spec": {"containers": []},
        "status": pod_status,
    }
    pod = ApiClient().deserialize(SimpleNamespace(data=json.dumps(raw)), "V1Pod")
    client: Any = Gone()
    return failure(client, pod, "base", "shop.orders", timeout)


@pytest.mark.parametrize(
    ("pod_status", "message"),
    [
        (
            {
                "phase": "Failed",
                "containerStatuses": [status("base", terminated={"exitCode": 3, "reason": "Error"})],
            },
            "failed with exit code 3.",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [status("base", terminated={"exitCode": 137, "reason": "OOMKilled"})],
            },
            "failed with exit code 137 (OOMKilled).",
        ),
        (
            {
                "phase": "Failed",
                "initContainerStatuses": [
                    status(
                        "git-sync", terminated={"exitCode": 1, "reason": "Error", "message": "no such ref"}
                    )
                ],
                "containerStatuses": [status("base", waiting={"reason": "PodInitializing"})],
            },
            "failed in git-sync with exit code 1. Its last lines:\nno such ref",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            "did not run to its end: Evicted: The node was low on memory.",
        ),
        (
            {
                "phase": "Failed",
                "reason": "DeadlineExceeded",
                "containerStatuses": [status("base", terminated={"exitCode": 137, "reason": "Error"})],
            },
            "did not end in time.",
        ),
        (
            {
                "phase": "Pending",
                "containerStatuses": [status("base", waiting={"reason": "ImagePullBackOff"})],
            },
            "did not run to its end: ImagePullBackOff.",
        ),
    ],
)
def test_why_a_pod_failed(pod_status: dict[str, Any], message: str) -> None:
    assert told(pod_status) == f"The pod load-1 of shop.orders {message}"


def test_why_a_pod_took_too_long() -> None:
    hour = timedelta(hours=1)
    assert told({"phase": "Running", "containerStatuses": [status("base", **RUNNING)]}, hour) == (
        "The pod load-1 of shop.orders did not end within its timeout of 1:00:00; it is deleted."
    )
    unplaced = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    assert told({"phase": "Pending", "conditions": [unplaced]}, hour) == (
        "The pod load-1 of shop.orders did not start in time: Unschedulable: 0/3 nodes; it is deleted."
    )


def answer(code: int, body: str) -> ApiException:
    error = ApiException(code, "Reason")
    error.body = body
    return error


def test_an_answer_that_another_try_does_not_change() -> None:
    error = refused(answer(403, json.dumps({"message": "pods is forbidden"})), "gpu")
    assert not isinstance(error, UnavailableError)
    assert str(error).startswith("The cluster of the connection 'gpu' answers 403: pods is forbidden\n  The ")


@pytest.mark.parametrize("body", ["", "<html>", "[]"])
def test_an_answer_that_another_try_may_change(body: str) -> None:
    error = refused(answer(503, body), "gpu")
    assert isinstance(error, UnavailableError)
    assert isinstance(error, IngestError)
    assert str(error) == "The cluster of the connection 'gpu' answers 503: Reason"


def test_unknown_keys() -> None:
    given = {"spec": {"containers": [{"name": "a"}, {"name": "b", "imge": "i"}], "none": None}, "sepc": {}}
    kept = {"spec": {"containers": [{"name": "a"}, {"name": "b"}]}}
    assert unknown_keys(given, kept) == ["spec.containers.imge", "sepc"]
    assert unknown_keys(kept, kept) == []
