"""The paths of Kubernetes' API, for the stand-in."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from services.kubernetes_checks import InvalidError, StatusError
from services.kubernetes_pods import Json, Pod, log_lines

if TYPE_CHECKING:
    from services.kubernetes import KubernetesServer

PODS = r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods"
EVENTS = r"/api/v1/namespaces/(?P<namespace>[^/]+)/events"
SPARKS = r"/apis/sparkoperator\.k8s\.io/v1beta2/namespaces/(?P<namespace>[^/]+)/sparkapplications"
NAME = r"/(?P<name>[^/]+)"


class HttpServer(ThreadingHTTPServer):
    """Serves the API of a KubernetesServer on a free port."""

    daemon_threads = True

    def __init__(self, api: KubernetesServer) -> None:
        super().__init__(("127.0.0.1", 0), type("Handler", (_Handler,), {"api": api}))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection to the server."""

    api: KubernetesServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: str) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.headers.get("Authorization") != f"Bearer {self.api.token}":
                raise StatusError(401, "Unauthorized", "Unauthorized")
            for verb, pattern, act in _ROUTES:
                match = re.fullmatch(pattern, parts.path)
                if verb == method and match:
                    body = json.loads(raw) if raw else {}
                    found = act(self.api, match.groupdict(), query, body)
                    # The client finds nothing in an answer to POST that is not 201.
                    self._send(found, 201 if method == "POST" else 200)
                    return
            self.api.unknown.append(f"{method} {self.path}")
            raise StatusError(404, "NotFound", "the server could not find the requested resource")
        except InvalidError as error:
            self._fail(422, "Invalid", str(error))
        except StatusError as error:
            self._fail(*error.args)

    def _fail(self, status: int, reason: str, message: str) -> None:
        content = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status}
        self._send({**content, "reason": reason, "message": message}, status)

    def _send(self, content: Any, status: int = 200) -> None:
        """Send JSON, or a stream of texts, as long as anybody listens."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self._write(content, status)

    def _write(self, content: Any, status: int) -> None:
        self.send_response(status)
        if isinstance(content, dict):
            raw = json.dumps(content).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)
            return
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for text in content:
            part = text.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


def _log(api: KubernetesServer, at: Mapping[str, str], query: Mapping[str, str], _: Json) -> Iterator[str]:
    pod = api.pod(at["namespace"], at["name"])
    container = query.get("container") or pod.container["name"]
    if container != pod.container["name"]:
        known = [each["name"] for each in pod.manifest["spec"].get("initContainers") or []]
        if container in known:
            return iter(())
        raise StatusError(400, "BadRequest", f"container {container} is not valid for pod {pod.name}")
    if "waiting" in pod.state:
        why = pod.state["waiting"]["reason"]
        raise StatusError(
            400, "BadRequest", f'container "{container}" in pod "{pod.name}" is waiting to start: {why}'
        )
    if pod.lost:
        raise StatusError(500, "InternalError", "dial tcp 10.0.0.7:10250: connect: no route to host")
    since = float(query["sinceSeconds"]) if "sinceSeconds" in query else None
    tail = int(query["tailLines"]) if "tailLines" in query else None
    return _log_stream(api, pod, query, since, tail)


def _log_stream(
    api: KubernetesServer, pod: Pod, query: Mapping[str, str], since: float | None, tail: int | None
) -> Iterator[str]:
    timestamps = query.get("timestamps", "").lower() == "true"
    given = len(pod.lines)
    yield from log_lines(pod, pod.read(since, tail), timestamps=timestamps)
    while query.get("follow", "").lower() == "true" and not (pod.ended and given >= len(pod.lines)):
        if not api.wait(lambda known=given: pod.ended or len(pod.lines) > known):
            return
        new = pod.lines[given:]
        given += len(new)
        yield from log_lines(pod, new, timestamps=timestamps)


def _events(api: KubernetesServer, at: Mapping[str, str], query: Mapping[str, str], _: Json) -> Any:
    found = api.events(at["namespace"], query)
    if query.get("watch", "").lower() == "true":
        return _event_stream(api, at["namespace"], query)
    return {"apiVersion": "v1", "kind": "EventList", "metadata": {"resourceVersion": "1"}, "items": found}


def _event_stream(api: KubernetesServer, namespace: str, query: Mapping[str, str]) -> Iterator[str]:
    seen = 0
    deadline = time.monotonic() + float(query.get("timeoutSeconds") or 60)
    while time.monotonic() < deadline:
        new = api.events(namespace, query)[seen:]
        seen += len(new)
        for event in new:
            yield json.dumps({"type": "ADDED", "object": event}) + "\n"
        left = max(deadline - time.monotonic(), 0)
        api.wait(lambda known=seen: len(api.events(namespace, query)) > known, left)
        if api.closing:
            return


def _grace(query: Mapping[str, str], body: Json) -> int | None:
    """How many seconds a pod gets that is deleted; None: what it asks for itself."""
    found = query.get("gracePeriodSeconds", body.get("gracePeriodSeconds"))
    return None if found is None else int(found)


Act = Callable[[Any, Mapping[str, str], Mapping[str, str], Json], Any]
_ROUTES: list[tuple[str, str, Act]] = [
    ("POST", PODS, lambda api, at, _, body: api.create_pod(body, at["namespace"])),
    ("GET", PODS, lambda api, at, query, _: api.list_pods(at["namespace"], query)),
    ("GET", PODS + NAME, lambda api, at, *_: api.pod(**at).as_json()),
    ("PATCH", PODS + NAME, lambda api, at, _, body: api.patch_pod(**at, body=body)),
    ("DELETE", PODS + NAME, lambda api, at, query, body: api.delete_pod(**at, grace=_grace(query, body))),
    ("GET", PODS + NAME + "/log", _log),
    ("GET", EVENTS, _events),
    ("POST", SPARKS, lambda api, at, _, body: api.create_application(body, at["namespace"])),
    ("GET", SPARKS + NAME + "(/status)?", lambda api, at, *_: api.application(**at)),
    ("DELETE", SPARKS + NAME, lambda api, at, *_: api.delete_application(**at)),
]
