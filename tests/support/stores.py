"""Object stores for tests, and what Airflow gives to a task."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orrery.ingest.landing import LandingZone
from services.object_store import GcsServer, S3Server
from support.warehouse import Warehouse

BUCKET = "orrery-events"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 with a bucket."""
    with S3Server("aws_events") as server:
        server.create(BUCKET)
        yield server


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """A Google Cloud Storage with a bucket."""
    with GcsServer("google_events") as server:
        server.create(BUCKET)
        yield server


@pytest.fixture
def known(s3_server: S3Server, gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow knows the connections to both."""
    for server in (s3_server, gcs_server):
        connect(monkeypatch, server.connections())


def connect(monkeypatch: pytest.MonkeyPatch, connections: Mapping[str, Mapping[str, Any]]) -> None:
    """Set connections as AIRFLOW_CONN_<ID>."""
    for name, body in connections.items():
        told = {key: value for key, value in body.items() if key != "connection_id" and value is not None}
        monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(told))


class Remote:
    """A prefix in a bucket that a test has for itself."""

    def __init__(self, server: S3Server | GcsServer, uri: str, prefix: str) -> None:
        self.server, self.prefix = server, prefix
        self.uri = f"{uri}@{BUCKET}/{prefix}"

    def put(self, name: str, content: bytes | str) -> None:
        content = content.encode() if isinstance(content, str) else content
        self.server.put(BUCKET, f"{self.prefix}/{name}", content)

    def get(self, name: str) -> bytes:
        return self.server.get(BUCKET, f"{self.prefix}/{name}")

    def delete(self, name: str) -> None:
        self.server.delete(BUCKET, f"{self.prefix}/{name}")

    def names(self) -> list[str]:
        """The names of what is there."""
        begin = f"{self.prefix}/"
        return [name.removeprefix(begin) for name in self.server.names(BUCKET) if name.startswith(begin)]


class RemoteWarehouse(Warehouse):
    """A warehouse whose landing zone is in an object store."""

    def __init__(self, uri: str, schema: str, folder: Path, remote: Remote) -> None:
        super().__init__(uri, schema, folder)
        self.remote = remote

    @property
    def zone(self) -> LandingZone:
        return LandingZone(self.remote.uri)

    def land(self, name: str, content: str | bytes) -> Path:
        self.remote.put(name, content)
        return Path(name)


class Task:
    """What a task has of its own, in the place of Airflow's task instance."""

    run_id = "test"

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.xcoms[key] = json.loads(json.dumps(value))


def context(task: Task, **params: Any) -> Any:
    """The context of a task in a run with params."""
    return {"ti": task, "params": params, "dag_run": SimpleNamespace(conf={})}
