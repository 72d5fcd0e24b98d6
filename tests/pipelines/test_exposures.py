"""What exposures run after their models, and runs for a single object."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from support.live import Done, Live

pytestmark = pytest.mark.integration

CONNECTION = "trial_service"


class Service:
    """A web service that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []
        self.status = 200


@pytest.fixture
def service(live: Live, booking_run: Done) -> Iterator[Service]:
    """The service that the connection of the trial leads to."""
    service = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            service.asked.append((self.path, self.headers["Authorization"], body))
            self.send_response(service.status)
            self.end_headers()
            self.wfile.write(b"thank you")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        where = {"host": "127.0.0.1", "port": server.server_port, "login": "me", "password": "hush"}
        live.airflow.post("/connections", {"connection_id": CONNECTION, "conn_type": "http", **where})
        yield service
        live.airflow.delete(f"/connections/{CONNECTION}")
        server.shutdown()


def test_an_exposure_calls_a_service_and_starts_a_pipeline(live: Live, service: Service) -> None:
    done = live.orrery("run", "trial_exposed")
    assert done.code == 0, done.output
    expected = {"board": 7, "pipeline": "trial_exposed", "run_id": done.run_id, "exposure": "trial_call"}
    assert service.asked == [("/refresh", "Basic bWU6aHVzaA==", expected)]
    states = live.airflow.states("trial_exposed", done.run_id)
    assert states["exposures.trial_call"] == states["exposures.trial_next"] == "success"
    assert {run["state"] for run in live.airflow.runs("trial_bookings")} == {"success"}
    assert ("tests.trial_exposed", "exposures.trial_call") in live.airflow.edges("trial_exposed")

    # A run that is not about its models is not about the exposure.
    narrowed = live.orrery("run", "trial_exposed", "--skip-stages", "core,tests")
    states = live.airflow.states("trial_exposed", narrowed.run_id)
    assert states["exposures.trial_call"] == "skipped"
    assert len(service.asked) == 1

    service.status = 503
    failed = live.orrery("run", "trial_exposed")
    assert failed.code == 1
    assert "POST /refresh of the connection 'trial_service' is answered with 503: thank you" in failed.output
    assert "hush" not in failed.output


def test_a_connection_that_is_not_there_is_named(live: Live, booking_run: Done) -> None:
    failed = live.orrery("run", "trial_exposed")
    assert failed.code == 1
    assert "Airflow has no connection 'trial_service'." in failed.output
    assert "Set AIRFLOW_CONN_TRIAL_SERVICE='http://" in failed.output


def test_a_run_for_one_object_brings_in_no_other(live: Live, booking_run: Done) -> None:
    landing = live.dbt / "landing" / "objects"
    landing.mkdir(parents=True)
    try:
        for number in (1, 2):
            (landing / f"{number}.jsonl").write_text(f'{{"id": 90{number}}}\n')
        done = live.orrery("run", "trial_objects", "--uri", f"file://{landing}/2.jsonl")
        assert done.code == 0, done.output
        assert live.query("select id from dev.trial_objects") == [(902,)]

        refused = live.orrery("run", "trial_objects", "--uri", "s3://elsewhere/2.jsonl")
        assert refused.code == 1
        assert "no source of this pipeline takes s3://elsewhere/2.jsonl" in refused.output
        assert f"{live.dbt}/landing/objects/*.jsonl" in refused.output

        missing = live.orrery("run", "trial_objects", "--uri", f"file://{landing}/3.jsonl")
        assert missing.code == 1
        assert "There is no objects/3.jsonl in file://" in missing.output
    finally:
        shutil.rmtree(landing)
