"""Airbyte on loopback: its public API, with syncs that load CSV files into PostgreSQL."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse
from uuid import NAMESPACE_DNS, uuid5

import psycopg2
from psycopg2.sql import SQL, Identifier, Literal

from services.service import Service

API = "/api/public/v1"
TOKEN = "stand-in-token"
# What Airbyte adds to every row.
META = {
    "_airbyte_raw_id": "text",
    "_airbyte_extracted_at": "timestamptz",
    "_airbyte_meta": "jsonb",
    "_airbyte_generation_id": "bigint",
}
_RUNNING = ("pending", "running")


@dataclass
class Job:
    """A sync; `error` is why it has failed."""

    number: int
    connection: str
    status: str = "pending"
    rows: int | None = None
    error: str | None = None
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))


class AirbyteServer(Service):
    """An Airbyte whose connections load folders.

    :param connections: by the names of connections in Airbyte folders with a <stream>.csv each; columns are
        text, but for those with another type in `_types.json` there: {stream: {column: type}}
    :param dsn: where the syncs load to; None loads nothing
    :param schema: in which schema, which has to be there
    :param conn_id: the Airflow connection that leads here
    :param credentials: client id and secret that are asked for
    """

    def __init__(
        self,
        connections: Mapping[str, Path],
        *,
        dsn: str | None = None,
        schema: str = "landing",
        conn_id: str = "airbyte_default",
        credentials: tuple[str, str] | None = None,
    ) -> None:
        self.folders, self.dsn, self.schema = dict(connections), dsn, schema
        self.ids = {name: str(uuid5(NAMESPACE_DNS, name)) for name in self.folders}
        self.conn_id, self.credentials = conn_id, credentials
        self.jobs: dict[int, Job] = {}
        # Names that further connections have, by their ids.
        self.twins: dict[str, str] = {}
        self._failures: dict[str, str] = {}
        self._lock, self._go = threading.Lock(), threading.Event()
        self._go.set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def connections(self) -> dict[str, dict[str, Any]]:
        """The Airflow connection, as its API takes it."""
        login, password = self.credentials or (None, None)
        body = {"conn_type": "airbyte", "host": f"{self.url}{API}", "login": login, "password": password}
        return {self.conn_id: {"connection_id": self.conn_id, **body}}

    def fail(self, name: str, message: str) -> None:
        """Let the next sync of a connection fail."""
        self._failures[self.ids[name]] = message

    def hold(self) -> None:
        """Let syncs run until `release`."""
        self._go.clear()

    def release(self) -> None:
        """Let the syncs that are held end."""
        self._go.set()

    def close(self) -> None:
        """Stop."""
        self.release()
        self._server.shutdown()
        self._server.server_close()

    def start(self, connection: str) -> Job | None:
        """Begin a sync; None when one is running."""
        with self._lock:
            if any(job.connection == connection and job.status in _RUNNING for job in self.jobs.values()):
                return None
            job = self.jobs[len(self.jobs) + 1] = Job(len(self.jobs) + 1, connection)
        threading.Thread(target=self._sync, args=(job,), daemon=True).start()
        return job

    def cancel(self, job: Job) -> None:
        """End a job that runs."""
        with self._lock:
            if job.status in _RUNNING:
                job.status = "cancelled"

    def _sync(self, job: Job) -> None:
        with self._lock:
            job.status = "running" if job.status == "pending" else job.status
        self._go.wait()
        try:
            message = self._failures.pop(job.connection, None)
            if message is None and job.status == "running":
                name = next(name for name, uid in self.ids.items() if uid == job.connection)
                job.rows = self._load(self.folders[name], job.number)
        except Exception as error:  # whatever it is, Airbyte tells it
            message = str(error)
        with self._lock:
            if job.status == "running":
                job.status, job.error = ("failed", message) if message else ("succeeded", None)

    def _load(self, folder: Path, generation: int) -> int:
        """Put the files of a folder in the place of what their tables hold; the number of rows."""
        types_file = folder / "_types.json"
        types = json.loads(types_file.read_text()) if types_file.exists() else {}
        if self.dsn is None:
            return sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("*.csv"))
        rows = 0
        with closing(psycopg2.connect(self.dsn)) as link, link, link.cursor() as cursor:
            for path in sorted(folder.glob("*.csv")):
                rows += self._load_stream(cursor, path, types.get(path.stem, {}), generation)
        return rows

    def _load_stream(self, cursor: Any, path: Path, types: dict[str, str], generation: int) -> int:
        with path.open(newline="", encoding="utf-8") as file:
            columns = next(csv.reader(file))
        kinds = {**META, **{column: types.get(column, "text") for column in columns}}
        table = Identifier(self.schema, path.stem)
        fields = SQL(", ").join(SQL("{} " + kind).format(Identifier(name)) for name, kind in kinds.items())
        cursor.execute(SQL("create table if not exists {} ({})").format(table, fields))
        texts = SQL(", ").join(SQL("{} text").format(Identifier(column)) for column in columns)
        cursor.execute(SQL("create temp table stream ({}) on commit drop").format(texts))
        with path.open("rb") as file:
            cursor.copy_expert("copy stream from stdin (format csv, header)", file)
        # Not dropped: models may be views of it.
        cursor.execute(SQL("delete from {}").format(table))
        names = [Identifier(name) for name in kinds]
        values = [SQL("{}::" + kinds[column]).format(Identifier(column)) for column in columns]
        cursor.execute(
            SQL("insert into {} ({}) select gen_random_uuid()::text, now(), {}, {}, {} from stream").format(
                table,
                SQL(", ").join(names),
                Literal('{"changes": []}'),
                Literal(generation),
                SQL(", ").join(values),
            )
        )
        count = int(cursor.rowcount)
        cursor.execute("drop table stream")
        return count


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    # Head and body of an answer in one packet.
    wbufsize = -1

    def __init__(self, service: AirbyteServer, *arguments: Any) -> None:
        self.service = service
        super().__init__(*arguments)

    def do_GET(self) -> None:
        parts = self._begin()
        query = {key: value[0] for key, value in parse_qs(urlparse(self.path).query).items()}
        if parts == ["health"]:
            self._answer(200, {})
        elif not self._allowed():
            return
        elif parts == ["connections"]:
            first, count = int(query.get("offset", 0)), int(query.get("limit", 20))
            pairs = [*((uid, name) for name, uid in self.service.ids.items()), *self.service.twins.items()]
            data = [_connection(uid, name) for uid, name in pairs][first : first + count]
            self._answer(200, {"data": data, "previous": "", "next": ""})
        elif parts == ["jobs"]:
            jobs = [job for job in self.service.jobs.values() if job.connection == query.get("connectionId")]
            self._answer(200, {"data": [_told(job) for job in reversed(jobs)], "previous": "", "next": ""})
        else:
            self._with_job(parts, lambda job: None)

    def do_POST(self) -> None:
        parts = self._begin()
        body = self._body()
        if parts == ["applications", "token"]:
            given = (body.get("client_id"), body.get("client_secret"))
            if given != self.service.credentials:
                self._problem(401, "invalid client")
            else:
                self._answer(200, {"access_token": TOKEN, "token_type": "Bearer", "expires_in": 180})
        elif not self._allowed():
            return
        elif parts == ["jobs"]:
            self._start(body)
        elif urlparse(self.path).path == "/api/v1/jobs/get":
            job = self.service.jobs[int(body["id"])]
            failures = [{"failureOrigin": "source", "externalMessage": job.error}] if job.error else []
            attempt = {"attempt": {"id": 0, "status": job.status, "failureSummary": {"failures": failures}}}
            self._answer(200, {"job": {"id": job.number}, "attempts": [attempt]})
        else:
            self._problem(404, "not found")

    def do_DELETE(self) -> None:
        parts = self._begin()
        if self._allowed():
            self._with_job(parts, self.service.cancel)

    def _start(self, body: dict[str, Any]) -> None:
        connection = body.get("connectionId")
        if connection not in self.service.ids.values():
            self._problem(404, f"Could not find configuration for STANDARD_SYNC: {connection}.")
        elif job := self.service.start(connection):
            self._answer(200, _told(job))
        else:
            self._problem(409, f"A sync is already running for: {connection}")

    def _with_job(self, parts: list[str], act: Any) -> None:
        job = self.service.jobs.get(int(parts[1])) if len(parts) == 2 and parts[0] == "jobs" else None
        if job is None:
            self._problem(404, "no such job")
            return
        act(job)
        self._answer(200, _told(job))

    def _begin(self) -> list[str]:
        return urlparse(self.path).path.removeprefix(API).strip("/").split("/")

    def _body(self) -> dict[str, Any]:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "json" in (self.headers.get("Content-Type") or ""):
            return dict(json.loads(raw))
        return {key: value[0] for key, value in parse_qs(raw.decode()).items()}

    def _allowed(self) -> bool:
        if self.service.credentials and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._problem(401, "Unauthorized")
            return False
        return True

    def _problem(self, status: int, detail: str) -> None:
        self._answer(status, {"status": status, "title": "error", "detail": detail})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        """Tell nothing: a test shows what it needs."""


def _told(job: Job) -> dict[str, Any]:
    told = {
        "jobId": job.number,
        "status": job.status,
        "jobType": "sync",
        "startTime": job.started,
        "connectionId": job.connection,
        "lastUpdatedAt": job.started,
        "duration": "PT1S",
    }
    return told if job.rows is None else {**told, "rowsSynced": job.rows, "bytesSynced": 100 * job.rows}


def _connection(uid: str, name: str) -> dict[str, Any]:
    return {
        "connectionId": uid,
        "name": name,
        "sourceId": str(uuid5(NAMESPACE_DNS, f"{name} source")),
        "destinationId": str(uuid5(NAMESPACE_DNS, f"{name} destination")),
        "workspaceId": str(uuid5(NAMESPACE_DNS, "workspace")),
        "status": "active",
        "schedule": {"scheduleType": "manual"},
        "dataResidency": "auto",
        "configurations": {"streams": []},
        "createdAt": 1,
        "tags": [],
        "namespaceDefinition": "destination",
        "nonBreakingSchemaUpdatesBehavior": "ignore",
        "prefix": "",
    }
