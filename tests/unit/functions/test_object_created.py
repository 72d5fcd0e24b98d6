"""The cloud function against an Airflow on a loopback port."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from functions.object_created import NotStarted, handler, run_of

SECRET = "not-for-the-log"


class Airflow:
    """Of Airflow's API only what the function calls; `answers` come before what it would say itself."""

    def __init__(self) -> None:
        self.runs: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None, Any]] = []
        self.answers: list[tuple[int, bytes]] = []
        self.url = ""

    def answer(self, path: str, authorization: str | None, body: Any) -> tuple[int, bytes]:
        """Status and content for a request."""
        self.asked.append((path, authorization, body))
        if self.answers:
            return self.answers.pop(0)
        if path == "/auth/token":
            good = body == {"username": "loader", "password": SECRET}
            return (201, b'{"access_token": "issued"}') if good else (401, b'{"detail": "no"}')
        if path != "/api/v2/dags/events_batch/dagRuns":
            return 404, b'{"detail": "no such DAG"}'
        if authorization not in ("Bearer issued", f"Bearer {SECRET}"):
            return 401, b"{}"
        if body["dag_run_id"] in self.runs:
            return 409, b'{"detail": "exists"}'
        self.runs[body["dag_run_id"]] = body
        return 200, json.dumps(body).encode()


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    """An Airflow, and the settings of a function that calls it with a token."""
    known = Airflow()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = known.answer(self.path, self.headers["Authorization"], json.loads(content))
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    known.url = f"http://127.0.0.1:{server.server_port}"
    for name in ("AIRFLOW_USERNAME", "AIRFLOW_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRFLOW_URL", f"{known.url}/")
    monkeypatch.setenv("AIRFLOW_TOKEN", SECRET)
    monkeypatch.setenv("PIPELINE", "events_batch")
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


def record(
    key: str = "incoming/2026-03-02-00.jsonl", tag: str = "5d41", name: str = "ObjectCreated:Put"
) -> Any:
    """A record of a notification as S3 writes it."""
    stored = {"key": key, "size": 12, "eTag": tag, "sequencer": "0055AED6DCD90281E5"}
    bucket = {"name": "orrery-events", "arn": "arn:aws:s3:::orrery-events"}
    return {"eventSource": "aws:s3", "eventName": name, "s3": {"bucket": bucket, "object": stored}}


def test_a_new_object_starts_a_run(airflow: Airflow) -> None:
    done = handler({"Records": [record()]}, None)
    ((path, authorization, body),) = airflow.asked
    assert path == "/api/v2/dags/events_batch/dagRuns"
    assert authorization == f"Bearer {SECRET}"
    assert body["logical_date"] is None
    assert body["conf"] == {"uri": "s3://orrery-events/incoming/2026-03-02-00.jsonl"}
    assert done == {"started": [body["dag_run_id"]], "known": []}


def test_a_notification_that_comes_twice_starts_one_run(airflow: Airflow) -> None:
    first = handler({"Records": [record()]}, None)
    again = handler({"Records": [record()]}, None)
    assert again == {"started": [], "known": first["started"]}
    assert len(airflow.runs) == 1


def test_an_object_that_was_written_again_starts_another_run(airflow: Airflow) -> None:
    handler({"Records": [record(tag="5d41"), record(tag="7d79"), record("incoming/other.jsonl")]}, None)
    assert len(airflow.runs) == 3


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("incoming/two+words.jsonl", "incoming/two words.jsonl"),
        ("incoming/a%2Bb%25.jsonl", "incoming/a+b%.jsonl"),
        ("incoming/gr%C3%BC%C3%9Fe.jsonl", "incoming/grüße.jsonl"),
    ],
)
def test_keys_are_decoded(airflow: Airflow, key: str, meant: str) -> None:
    handler({"Records": [record(key)]}, None)
    (body,) = airflow.runs.values()
    assert body["conf"] == {"uri": f"s3://orrery-events/{meant}"}
    # Airflow allows no others.
    assert set(body["dag_run_id"]) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")


def test_a_long_key_has_an_id_that_airflow_can_store() -> None:
    run_id, uri = run_of(record(f"incoming/{'x' * 900}.jsonl"))
    assert len(run_id) <= 250
    assert len(uri) > 900
    assert run_of(record(f"incoming/{'x' * 901}.jsonl"))[0] != run_id


def test_one_token_serves_all_records(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_TOKEN")
    monkeypatch.setenv("AIRFLOW_USERNAME", "loader")
    monkeypatch.setenv("AIRFLOW_PASSWORD", SECRET)
    done = handler({"Records": [record("incoming/a.jsonl"), record("incoming/b.jsonl")]}, None)
    assert len(done["started"]) == 2
    assert [path for path, _, _ in airflow.asked].count("/auth/token") == 1
    assert {authorization for _, authorization, _ in airflow.asked[1:]} == {"Bearer issued"}


def test_other_events_start_nothing(airflow: Airflow) -> None:
    events = {"Records": [record(name="ObjectRemoved:Delete"), record(name="ObjectTagging:Put")]}
    assert handler(events, None) == {"started": [], "known": []}
    assert handler({"Service": "Amazon S3", "Event": "s3:TestEvent"}, None) == {"started": [], "known": []}
    assert airflow.asked == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((401, b"{}"), "Check AIRFLOW_TOKEN"),
        ((403, b"{}"), "Let the user create runs of 'events_batch'"),
        ((404, b"{}"), "Airflow has no pipeline 'events_batch'"),
        ((400, b'{"detail": "Unknown choice"}'), "Airflow says: Unknown choice."),
        ((502, b"<html>Bad gateway</html>"), "(502). Airflow says: nothing."),
    ],
)
def test_a_refusal_says_what_to_do(airflow: Airflow, answer: tuple[int, bytes], message: str) -> None:
    airflow.answers = [answer]
    with pytest.raises(NotStarted) as error:
        handler({"Records": [record()]}, None)
    assert message in str(error.value)
    assert "s3://orrery-events/incoming/2026-03-02-00.jsonl" in str(error.value)


def test_a_wrong_password_is_no_token(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_TOKEN")
    monkeypatch.setenv("AIRFLOW_USERNAME", "loader")
    monkeypatch.setenv("AIRFLOW_PASSWORD", "wrong")
    with pytest.raises(NotStarted, match=r"gives no token \(401\)"):
        handler({"Records": [record()]}, None)


@pytest.mark.parametrize("name", ["AIRFLOW_URL", "PIPELINE", "AIRFLOW_TOKEN"])
def test_a_missing_setting_is_named(airflow: Airflow, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(NotStarted, match=name):
        handler({"Records": [record()]}, None)


def test_nobody_answers(airflow: Airflow, monkeypatch: pytest.MonkeyPatch) -> None:
    # Port 1 is reserved, and nobody listens there.
    monkeypatch.setenv("AIRFLOW_URL", "http://127.0.0.1:1")
    with pytest.raises(NotStarted, match=r"does not answer at http://127.0.0.1:1/.*Check AIRFLOW_URL"):
        handler({"Records": [record()]}, None)


def test_what_is_no_notification_is_refused(airflow: Airflow) -> None:
    with pytest.raises(NotStarted, match="no record of an S3 notification"):
        handler({"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": None}}]}, None)


@pytest.mark.parametrize("token", [SECRET, f"{SECRET}\n", f"{SECRET}\u2028"])
def test_the_token_is_told_to_nobody(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, token: str
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("AIRFLOW_TOKEN", token)
    said = ""
    for answer in ((200, b"{}"), (401, b"{}"), (500, b"{}")):
        airflow.answers = [answer]
        try:
            handler({"Records": [record()]}, None)
        except NotStarted as error:
            said += f"{error!r} {error.__cause__!r}"
    assert SECRET not in said + caplog.text
    assert said
