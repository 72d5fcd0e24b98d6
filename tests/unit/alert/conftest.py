"""A loopback Slack, and what Airflow gives a task: XComs, states, connections and a memory."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from conftest import WriteProject
from orrery.alert import memory
from orrery.config.project import Project
from services.slack import SlackServer
from support import manifests
from unit.alert.airflow import FakeMemory, Run
from unit.alert.shop import DAG, slim


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackServer]:
    """A Slack, and the connections of Airflow that lead to it."""
    with SlackServer() as server:
        for name, body in server.connections().items():
            value = {key: text for key, text in body.items() if key != "connection_id"}
            monkeypatch.setenv(f"AIRFLOW_CONN_{name.upper()}", json.dumps(value))
        yield server


@pytest.fixture
def project(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose manifest is that of the shop."""
    project = write_project({})
    monkeypatch.setenv("ORRERY_PROJECT_DIR", str(project.root))
    manifests.keep(project, {"shop": slim()})
    return project


@pytest.fixture
def remembered(monkeypatch: pytest.MonkeyPatch) -> FakeMemory:
    """What the alerts remember."""
    fake = FakeMemory()
    monkeypatch.setattr(memory, "AssetStateStoreAccessor", lambda name: fake)
    return fake


@pytest.fixture
def run(project: Project, remembered: FakeMemory) -> Run:
    """A run of the shop."""
    return Run(DAG)
