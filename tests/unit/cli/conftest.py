"""A served Airflow, and the commands as a user calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from conftest import WriteProject
from orrery.cli import follow, session
from orrery.cli.__main__ import main
from orrery.config.project import Project
from support import manifests
from unit.cli.airflow import Airflow, serve

Command = Callable[..., Result]


@pytest.fixture
def airflow() -> Iterator[Airflow]:
    with serve(Airflow()) as served:
        yield served


@pytest.fixture
def shop(write_project: WriteProject) -> Project:
    """A project whose pipeline `shop` is built, and whose pipeline `broken` is not."""
    project = write_project(
        {"dbt/pipelines/shop.yml": "select: a\npool: default_pool", "dbt/pipelines/broken.yml": "slect: a"}
    )
    manifests.keep(project, {"shop": {"nodes": {}}}, {"broken": "broken is broken"})
    return project


@pytest.fixture
def orrery(airflow: Airflow, shop: Project, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Calls a command against the served Airflow, in place of the stack of this machine."""
    info = SimpleNamespace(url=airflow.url, username="admin", password="secret")
    monkeypatch.setattr(session, "start", lambda project, console: info)
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.001)

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments)

    return call
