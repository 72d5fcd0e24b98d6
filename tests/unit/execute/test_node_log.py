"""The task logs of nodes that have no process of their own."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orrery.execute import node_log
from orrery.execute.collector import Line
from orrery.execute.node_log import NodeLogs

TI = SimpleNamespace(dag_id="shop", run_id="manual__2026-01-31T06:00:00+00:00", task_id="build", try_number=3)
LINES = [
    Line("2026-01-31T06:00:01.5+00:00", "info", "1 of 1 OK created"),
    Line("2026-01-31T06:00:02+00:00", "warn", 'Größe "x"\nsecond line'),
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Airflow's folder of logs."""
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path / "logs"))
    return tmp_path / "logs"


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_it_lies_where_airflow_looks(folder: Path) -> None:
    logs = NodeLogs(TI, datetime(2026, 1, 31, 6, tzinfo=UTC))
    logs.write("core.fct_orders", 2, LINES)
    logs.write("core.fct_orders", 1, LINES)
    logs.write("tests.fct_orders", 1, [])
    run = f"dag_id=shop/run_id={TI.run_id}"
    assert files(folder) == [
        f"{run}/task_id=core.fct_orders/attempt=1.log",
        f"{run}/task_id=core.fct_orders/attempt=2.log",
        f"{run}/task_id=tests.fct_orders/attempt=1.log",
    ]


def test_airflow_finds_it_itself(folder: Path) -> None:
    from airflow.utils.log.file_task_handler import FileTaskHandler

    NodeLogs(TI, None).write("core.a", 2, LINES)
    (path,) = files(folder)
    (message,) = FileTaskHandler(str(folder))._read_from_local(folder / path)[1:]
    assert message, "Airflow reads nothing there"


def test_a_template_of_ones_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "AIRFLOW__LOGGING__LOG_FILENAME_TEMPLATE",
        "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ts }}/{{ logical_date.year }}/{{ try_number }}.log",
    )
    NodeLogs(TI, datetime(2026, 1, 31, 6, tzinfo=UTC)).write("core.a", 4, LINES)
    assert files(folder) == ["shop/core.a/2026-01-31T06:00:00+00:00/2026/4.log"]


def test_its_lines_are_those_of_airflow(folder: Path) -> None:
    logs = NodeLogs(TI, None)
    logs.write("core.a", 1, LINES)
    # What another writer, or an earlier build, has written there stays.
    logs.write("core.a", 1, LINES[:1])
    text = (folder / files(folder)[0]).read_text(encoding="utf-8")
    first = {
        "timestamp": "2026-01-31T06:00:01.5+00:00",
        "level": "info",
        "event": "1 of 1 OK created",
        "logger": "dbt",
    }
    second = {
        "timestamp": "2026-01-31T06:00:02+00:00",
        "level": "warn",
        "event": 'Größe "x"\nsecond line',
        "logger": "dbt",
    }
    assert text.endswith("\n")
    # One line each, however many the text has.
    assert [json.loads(line) for line in text.splitlines()] == [first, second, first]


def test_a_log_that_cannot_be_written_fails_no_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("AIRFLOW__LOGGING__BASE_LOG_FOLDER", str(tmp_path / "file" / "logs"))
    uploaded = remote(monkeypatch)
    logs = NodeLogs(TI, None)
    logs.write("core.a", 1, LINES)
    assert "The log of core.a cannot be written" in caplog.text
    # What is not there is not uploaded.
    logs.upload()
    assert uploaded == []


def test_a_name_that_is_too_long_fails_no_build(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    NodeLogs(TI, None).write("core." + "x" * 300, 1, LINES)
    assert "cannot be written" in caplog.text


def remote(monkeypatch: pytest.MonkeyPatch, *, broken: str = "-") -> list[tuple[str, Any]]:
    """Turn remote logging on; returns what is uploaded. Names that contain `broken` cannot be."""
    uploaded: list[tuple[str, Any]] = []

    class Handler:
        def upload(self, path: str, ti: Any) -> None:
            if broken in path:
                raise RuntimeError("no network")
            uploaded.append((path, ti))

    monkeypatch.setattr(node_log, "load_remote_log_handler", Handler)
    return uploaded


def test_logs_are_uploaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uploaded = remote(monkeypatch, broken="core.b")
    logs = NodeLogs(TI, None)
    for name in ("core.a", "core.b", "core.c"):
        logs.write(name, 1, LINES)
    logs.upload()
    # One that fails takes no other along; the names are those below Airflow's folder.
    assert [folder / path for path, _ in uploaded] == [
        folder / path for path in files(folder) if "core.b" not in path
    ]
    assert {ti.dag_id for _, ti in uploaded} == {"shop"}
    assert "core.b/attempt=1.log cannot be uploaded" in caplog.text
    # Nothing is sent twice.
    logs.upload()
    assert len(uploaded) == 2


def test_without_remote_logging_nothing_is_uploaded(folder: Path) -> None:
    logs = NodeLogs(TI, None)
    logs.write("core.a", 1, LINES)
    logs.upload()
    assert len(files(folder)) == 1
