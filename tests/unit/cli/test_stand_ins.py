"""`./orrery run --stand-ins`: Airflow's connections lead to servers on this machine while it runs."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from orrery.cli import stand_ins as module
from orrery.cli.stand_ins import MARK, stand_ins
from orrery.config.errors import OrreryError
from orrery.config.project import Project


class Connections:
    """The connections of an Airflow."""

    def __init__(self, **known: str) -> None:
        self.known: dict[str, dict[str, Any]] = {
            name: {"connection_id": name, "description": text} for name, text in known.items()
        }

    def connection(self, name: str) -> dict[str, Any] | None:
        return self.known.get(name)

    def add_connection(self, connection: dict[str, Any]) -> None:
        assert connection["connection_id"] not in self.known
        self.known[connection["connection_id"]] = connection

    def remove_connection(self, name: str) -> None:
        self.known.pop(name, None)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was served, and what is not any more, in this order."""
    events: list[str] = []

    @contextmanager
    def serve(pipeline: str, root: Path, warehouse: dict[str, str]) -> Iterator[Any]:
        assert (root, warehouse) == (
            tmp_path,
            {"loader": "dsn of loader", "transformer": "dsn of transformer"},
        )
        events.append(f"serves {pipeline}")
        yield None if pipeline == "plain" else {"store": {"conn_type": "aws"}, "lake": {"conn_type": "gs"}}
        events.append("served")

    (tmp_path / "tests" / "services").mkdir(parents=True)
    services = SimpleNamespace(serve=serve)
    monkeypatch.setattr(module.importlib, "import_module", {"services.stand_ins": services}.__getitem__)
    monkeypatch.setattr(module, "Stack", lambda root: SimpleNamespace(warehouse_dsn="dsn of {}".format))
    monkeypatch.setattr(module.sys, "path", [])
    return events


def use(root: Path, airflow: Connections, pipeline: str = "shop") -> Any:
    return stand_ins(pipeline, Project(root), airflow, Console(file=io.StringIO()))  # type: ignore[arg-type]


def test_connections_are_there_as_long_as_the_servers(tmp_path: Path, served: list[str]) -> None:
    airflow = Connections(other="")
    with use(tmp_path, airflow):
        assert set(airflow.known) == {"other", "store", "lake"}
        assert airflow.known["store"] == {"conn_type": "aws", "connection_id": "store", "description": MARK}
        assert served == ["serves shop"]
    assert set(airflow.known) == {"other"}
    assert served == ["serves shop", "served"]


def test_a_failed_run_leaves_none_behind(tmp_path: Path, served: list[str]) -> None:
    airflow = Connections()
    with pytest.raises(SystemExit), use(tmp_path, airflow):
        raise SystemExit(1)
    assert airflow.known == {}


def test_what_a_killed_command_left_is_replaced(tmp_path: Path, served: list[str]) -> None:
    airflow = Connections(store=MARK)
    with use(tmp_path, airflow):
        assert airflow.known["store"]["conn_type"] == "aws"
    assert airflow.known == {}


def test_a_connection_of_the_user_is_kept(tmp_path: Path, served: list[str]) -> None:
    airflow = Connections(lake="ours")
    with pytest.raises(OrreryError, match="has a connection 'lake' already"), use(tmp_path, airflow):
        pass
    assert airflow.known == {"lake": {"connection_id": "lake", "description": "ours"}}


def test_a_pipeline_without_stand_ins(tmp_path: Path, served: list[str]) -> None:
    with pytest.raises(OrreryError, match="plain has no stand-ins"), use(tmp_path, Connections(), "plain"):
        pass


def test_a_project_without_stand_ins(tmp_path: Path) -> None:
    with pytest.raises(OrreryError, match="tests/services"), use(tmp_path, Connections()):
        pass
