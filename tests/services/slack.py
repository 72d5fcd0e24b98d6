"""Slack on loopback: its API, its incoming webhooks, and a web service beside them."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from services.service import Service

Json = dict[str, Any]

TOKEN = "xoxb-stand-in-token"
WEBHOOK_TOKEN = "T000/B000/stand-in-secret"


@dataclass(frozen=True)
class Call:
    """A request: `method` is one of Slack's API, `webhook`, or `http` for the web service."""

    method: str
    body: Json
    authorization: str | None = None


@dataclass(frozen=True)
class Failure:
    """How the next requests are answered: with a status, an error of Slack, or not before `release`."""

    status: int = 200
    error: str | None = None
    retry_after: int | None = None
    hang: bool = False
    times: int | None = None


class SlackServer(Service):
    """A Slack that records what it is sent."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failure: Failure | None = None
        self._failed = 0
        self._changed, self._released = threading.Condition(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def connections(self) -> dict[str, Json]:
        """The Airflow connections that lead here, as Airflow's API takes them."""
        api = {"conn_type": "slack", "password": TOKEN, "extra": json.dumps({"base_url": f"{self.url}/api/"})}
        incoming = {
            "conn_type": "slackwebhook",
            "host": f"{self.url}/services",
            "password": WEBHOOK_TOKEN,
        }
        service = {"conn_type": "http", "host": f"{self.url}/hook", "password": "service-token"}
        bodies = {"slack_default": api, "slack_incoming": incoming, "alert_service": service}
        return {name: {"connection_id": name, **body} for name, body in bodies.items()}

    def fail(self, **how: Any) -> None:
        """Let requests fail; see Failure."""
        self.failure, self._failed = Failure(**how), 0

    def clear(self) -> None:
        """Forget all requests, and answer again."""
        self.calls, self.failure = [], None

    def sent(self, method: str = "chat.postMessage") -> list[Json]:
        """The bodies of the requests of one method."""
        return [call.body for call in self.calls if call.method == method]

    def wait(self, count: int, method: str = "chat.postMessage", seconds: float = 60) -> list[Json]:
        """The bodies, once there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.sent(method)) >= count, seconds), self.calls
        return self.sent(method)

    def take(self, call: Call) -> tuple[int, Json, dict[str, str]]:
        """Take a request; the status, the body and the headers of the answer."""
        with self._changed:
            self.calls.append(call)
            number = len(self.calls)
            self._changed.notify_all()
            failure = self.failure
            if failure and failure.times is not None and self._failed >= failure.times:
                failure = None
            self._failed += 1
        if failure and failure.hang:
            self._released.wait(60)
        if failure and failure.error:
            return 200, {"ok": False, "error": failure.error}, {}
        if failure and not failure.hang:
            wait = {"Retry-After": str(failure.retry_after)} if failure.retry_after is not None else {}
            return failure.status, {"ok": False, "error": "stand-in"}, wait
        channel = call.body.get("channel", "")
        ts = call.body.get("ts", f"1700000000.{number:06}")
        # Slack tells the id of a channel, whatever it was called.
        return 200, {"ok": True, "channel": f"C{channel.strip('#C')}", "ts": ts}, {}

    def close(self) -> None:
        """Stop."""
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, slack: SlackServer, *arguments: Any) -> None:
        self._slack = slack
        super().__init__(*arguments)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        authorization = self.headers.get("Authorization")
        if self.path == f"/services/{WEBHOOK_TOKEN}":
            status, answer, headers = self._slack.take(Call("webhook", body))
        elif self.path.startswith("/api/") and authorization == f"Bearer {TOKEN}":
            method = self.path.removeprefix("/api/")
            status, answer, headers = self._slack.take(Call(method, body))
        elif self.path == "/hook":
            status, answer, headers = self._slack.take(Call("http", body, authorization))
        else:
            status, answer, headers = 200, {"ok": False, "error": "invalid_auth"}, {}
        text = b"ok" if self.path.startswith("/services") and status == 200 else json.dumps(answer).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text)
        except ConnectionError:
            pass  # who has waited too long is gone

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
