"""An Airflow of one DAG, on a loopback port: only what the commands ask of its REST API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Json = dict[str, Any]


def task(task_id: str, state: str | None, **more: Any) -> Json:
    """A task instance of the run `r1` as Airflow describes it."""
    return {
        "dag_id": "shop",
        "dag_run_id": "r1",
        "task_id": task_id,
        "state": state,
        "start_date": None,
        "duration": None,
        "try_number": 1,
        **more,
    }


class Airflow:
    """What the fake Airflow knows, and what it was asked.

    `states` are the task instances of the run at each look at them; the last stay. The run has the
    state `running` until the last look, then `outcome`; before that `queued` for so many looks. `xcoms`
    and `logs` are by task id, those of an instance of a mapped task by `<task id>[<index>]`. `conflicts` are
    the statuses that it answers to requests that clear tasks, before it does.
    """

    def __init__(self) -> None:
        self.dag: Json | None = {
            "dag_id": "shop",
            "is_paused": False,
            "is_stale": False,
            "file_token": "token",
            "last_parsed_time": "2999-01-01T00:00:00+00:00",
            "params": {"skip_stages": {"schema": {"items": {"enum": ["seed", "core", "tests"]}}}},
        }
        self.states: list[list[Json]] = [[]]
        self.outcome = "success"
        self.queued = 0
        self.runs: list[str] = ["r1"]
        self.xcoms: dict[str, Json] = {}
        self.logs: dict[str, list[str]] = {}
        self.pools = {"default_pool"}
        self.password = "secret"
        self.tokens = 0
        self.expired: set[str] = set()
        self.fail_next: list[int] = []
        self.conflicts: list[int] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.url = ""

    def bodies(self, method: str, ending: str) -> list[Any]:
        """What was sent to the paths that end in `ending`."""
        return [body for verb, path, body in self.asked if verb == method and path.endswith(ending)]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
        """The status and content of a response."""
        parts = path.removeprefix("/api/v2").strip("/").split("/")
        known: tuple[int, Any] = 404, {"detail": f"{path} was not found"}
        match parts:
            case ["dags", "shop", "details"] if self.dag:
                known = 200, self.dag
            case ["dags", "shop"] if method == "PATCH" and self.dag:
                self.dag["is_paused"] = body["is_paused"]
                known = 200, self.dag
            case ["dags", "shop" | "~", "dagRuns"]:
                known = self._runs(method, query)
            case ["dags", "shop", "dagRuns", _, "taskInstances", *rest]:
                known = self._tasks(rest, query)
            case ["dags", "shop", "clearTaskInstances"] if self.conflicts:
                known = self.conflicts.pop(0), {"detail": {"reason": "Database error"}}
            case ["dags", "shop", "clearTaskInstances"]:
                known = 200, {"task_instances": [task(task_id, None) for task_id in body["task_ids"]]}
            case ["pools", name] if name in self.pools:
                known = 200, {"name": name}
            case ["importErrors"]:
                known = 200, {"import_errors": []}
            case ["parseDagFile", _]:
                known = 201, None
        return known

    def _runs(self, method: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if method == "POST":
            self.runs.append("r2")
            return 200, {"dag_run_id": "r2"}
        prefix = query.get("run_id_prefix_pattern")
        named = [run for run in self.runs if run.startswith(prefix[0])] if prefix else self.runs[-1:]
        return 200, {"dag_runs": [self._run(run) for run in named]}

    def _run(self, run: str) -> Json:
        state = "running" if len(self.states) > 1 else self.outcome
        if self.queued > 0:
            self.queued -= 1
            state = "queued"
        return {"dag_id": "shop", "dag_run_id": run, "state": state, "duration": 12.3}

    def _tasks(self, rest: list[str], query: dict[str, list[str]]) -> tuple[int, Any]:
        if not rest:
            tasks, start = self.states[0], int(query["offset"][0])
            page = tasks[start : start + int(query["limit"][0])]
            if start + len(page) >= len(tasks) and len(self.states) > 1:
                self.states.pop(0)
            return 200, {"task_instances": page, "total_entries": len(tasks)}
        task_id, kind = rest[:2]
        if (index := query.get("map_index", ["-1"])[0]) != "-1":
            task_id = f"{task_id}[{index}]"
        if kind == "xcomEntries" and task_id in self.xcoms:
            return 200, {"value": self.xcoms[task_id]}
        if kind == "logs":
            return 200, {"content": [{"event": line} for line in self.logs.get(task_id, [])]}
        return 404, {"detail": "no such XCom"}


@contextmanager
def serve(airflow: Airflow) -> Iterator[Airflow]:
    """Serve `airflow`; its `url` tells where."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            parts = urlsplit(self.path)
            status, content = self._respond(unquote(parts.path), parse_qs(parts.query), body)
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_PUT = do_PATCH = do_GET

        def _respond(self, path: str, query: dict[str, list[str]], body: Any) -> tuple[int, Any]:
            if path == "/auth/token":
                if body["password"] != airflow.password:
                    return 401, {"detail": "Invalid credentials"}
                airflow.tokens += 1
                return 201, {"access_token": f"t{airflow.tokens}"}
            token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            if token in airflow.expired or not token:
                return 401, {"detail": "Token expired"}
            if airflow.fail_next:
                return airflow.fail_next.pop(0), {"detail": "out of order"}
            airflow.asked.append((self.command, path, body))
            return airflow.answer(self.command, path, query, body)

        def log_message(self, *_: Any) -> None:
            """Say nothing on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        airflow.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield airflow
        finally:
            server.shutdown()
            thread.join()
