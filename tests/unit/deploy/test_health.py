"""What Docker hears of a container's health, from real servers on loopback."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
from celery.signals import heartbeat_sent

from orrery.deploy import health
from orrery.execute import heartbeat

REPORT = {"metadatabase": {"status": "healthy"}, "triggerer": {"status": "unhealthy"}, "dag_processor": {}}


class Answers(BaseHTTPRequestHandler):
    """What Airflow and Flower answer."""

    def do_GET(self) -> None:
        told = {"/api/v2/monitor/health": (200, json.dumps(REPORT)), "/well": (200, "OK"), "/ill": (503, "")}
        status, text = told.get(self.path, (404, ""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", f"{url}/execution/")
    yield url
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def _proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy that Docker gives to all containers, and which reaches none of them."""
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("component", "wrong"),
    [
        ("api-server", None),
        ("triggerer", "triggerer: unhealthy"),
        ("dag-processor", "dag_processor: no report"),
    ],
)
def test_airflow_tells_of_its_parts(url: str, component: str, wrong: str | None) -> None:
    assert health.problem(component) == wrong


@pytest.mark.parametrize("component", ["scheduler", "flower"])
def test_others_answer_themselves(url: str, component: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(health._PAGES, component, f"{url}/well")
    assert health.problem(component) is None
    monkeypatch.setitem(health._PAGES, component, f"{url}/ill")
    assert "503" in str(health.problem(component))


def test_a_worker_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    assert health.problem("worker") == "the worker has not reached its broker yet"
    heartbeat.keep()
    try:
        heartbeat_sent.send(sender=None)
    finally:
        heartbeat_sent.receivers.clear()
    assert health.problem("worker") is None
    [file] = tmp_path.iterdir()
    later = file.stat().st_mtime + 70
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(time=lambda: later))
    assert health.problem("worker") == "the worker has not reached its broker for 70 s"


def test_the_exit_code_tells(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["health"])
    monkeypatch.setenv("ORRERY_COMPONENT", "triggerer")
    with pytest.raises(SystemExit, match="triggerer: unhealthy"):
        health.main()
    monkeypatch.setattr(sys, "argv", ["health", "api-server"])
    health.main()
