"""The parts of Airflow's public REST API that the commands use."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import httpx

from orrery.config.errors import OrreryError

Json = dict[str, Any]

FINISHED_RUN = frozenset({"success", "failed"})
FINISHED_TASK = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})

LOCAL_ADVICE = "See ./orrery status and ./orrery logs api-server"
REMOTE_ADVICE = "See whether it runs, and whether the address of --remote and the proxy, if any, are right."


class ApiError(OrreryError):
    """Airflow refused a request, with an HTTP status, or cannot be reached; then there is none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """A client of one Airflow; a context manager, because it keeps connections open.

    :param advice: what to do when it does not answer
    :param options: what Orrery's commands need, beside their own arguments, to reach it
    """

    def __init__(
        self, url: str, username: str, password: str, *, advice: str = LOCAL_ADVICE, options: str = ""
    ) -> None:
        self.url = url.rstrip("/")
        self.options = options
        self._credentials = {"username": username, "password": password}
        self._advice = advice
        # A proxy of the environment is for other machines, and must not see the password of this one.
        self._http = httpx.Client(timeout=60.0, trust_env=not _is_loopback(url))

    def __enter__(self) -> AirflowApi:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def dag(self, dag_id: str) -> Json | None:
        """The DAG's details, or None when Airflow does not know it (yet)."""
        response = self._send("GET", f"/dags/{quote(dag_id)}/details", allow=(404,))
        return None if response.status_code == httpx.codes.NOT_FOUND else cast("Json", response.json())

    def dag_ids(self) -> list[str]:
        """The ids of the DAGs that Airflow knows, of the first 100."""
        dags = self._send("GET", "/dags?limit=100").json()["dags"]
        return [str(dag["dag_id"]) for dag in dags]

    def reparse(self, dag: Json) -> None:
        """Ask for the DAG's file to be read again soon; `dag` is what `dag()` returned."""
        # 409: the same request is waiting already.
        self._send("PUT", f"/parseDagFile/{dag['file_token']}", allow=(409,))

    def import_errors(self) -> list[Json]:
        """The import errors of all DAG files."""
        return cast("list[Json]", self._send("GET", "/importErrors").json()["import_errors"])

    def has_pool(self, name: str) -> bool:
        """Whether the pool exists; tasks of one that does not are never started."""
        response = self._send("GET", f"/pools/{quote(name, safe='')}", allow=(404,))
        return response.status_code != httpx.codes.NOT_FOUND

    def connection(self, name: str) -> Json | None:
        """A connection without its secrets, or None when there is none."""
        response = self._send("GET", f"/connections/{quote(name, safe='')}", allow=(404,))
        return None if response.status_code == httpx.codes.NOT_FOUND else cast("Json", response.json())

    def add_connection(self, connection: Json) -> None:
        """Add a connection; `connection` is Airflow's request body."""
        self._send("POST", "/connections", connection)

    def remove_connection(self, name: str) -> None:
        """Remove a connection, if it is there."""
        self._send("DELETE", f"/connections/{quote(name, safe='')}", allow=(404,))

    def trigger(self, dag_id: str, conf: Mapping[str, Any]) -> str:
        """Start a run and return its id."""
        body = {"logical_date": None, "conf": dict(conf)}
        return str(self._send("POST", f"/dags/{quote(dag_id)}/dagRuns", body).json()["dag_run_id"])

    def unpause(self, dag_id: str) -> None:
        """Let the DAG run (and its schedule, too)."""
        self._send("PATCH", f"/dags/{quote(dag_id)}", {"is_paused": False})

    def run(self, dag_id: str, run_id: str) -> Json:
        """A DAG run."""
        # From the list of all: asked for one run, Airflow reads all of its task instances, and asked for
        # those of one DAG, the whole DAG.
        patterns = {"dag_id_prefix_pattern": dag_id, "run_id_prefix_pattern": run_id}
        for found in self._send("GET", f"/dags/~/dagRuns?{urlencode(patterns)}").json()["dag_runs"]:
            if (found["dag_id"], found["dag_run_id"]) == (dag_id, run_id):
                return cast("Json", found)
        raise ApiError(f"{self.url}: {dag_id} has no run {run_id!r}")

    def latest_run(self, dag_id: str) -> Json | None:
        """The run that was started last, or None."""
        path = f"/dags/{quote(dag_id)}/dagRuns?order_by=-run_after&limit=1"
        runs = self._send("GET", path).json()["dag_runs"]
        return cast("Json", runs[0]) if runs else None

    def task_instances(self, dag_id: str, run_id: str) -> list[Json]:
        """All task instances of a run."""
        found: list[Json] = []
        while True:
            path = f"{self._run_path(dag_id, run_id)}/taskInstances?limit=100&offset={len(found)}"
            page = self._send("GET", path).json()
            found += page["task_instances"]
            if not page["task_instances"] or len(found) >= page["total_entries"]:
                return found

    def xcom(self, task: Json, key: str) -> Any:
        """The value of an XCom of a task instance, or None where it pushed none."""
        path = f"{self._task_path(task)}/xcomEntries/{key}?map_index={task.get('map_index', -1)}"
        response = self._send("GET", f"{path}&deserialize=true", allow=(400, 404))
        if response.status_code == httpx.codes.BAD_REQUEST:
            response = self._send("GET", path, allow=(404,))
        return response.json()["value"] if response.is_success else None

    def clear(self, dag_id: str, run_id: str, **choice: Any) -> list[Json]:
        """Clear task instances of a run, so that they run again; `choice` is Airflow's request body."""
        body = {"dag_run_id": run_id, "dry_run": False, "reset_dag_runs": True, **choice}
        response = self._send("POST", f"/dags/{quote(dag_id)}/clearTaskInstances", body)
        return cast("list[Json]", response.json()["task_instances"])

    def log_tail(self, task: Json, lines: int) -> list[str]:
        """The last `lines` messages of a task instance's log."""
        path = (
            f"{self._task_path(task)}/logs/{max(task['try_number'], 1)}"
            f"?full_content=true&map_index={task.get('map_index', -1)}"
        )
        response = self._send("GET", path, allow=(404,), headers={"Accept": "application/json"})
        if not response.is_success:
            return []
        entries = response.json().get("content") or []
        return [str(entry["event"]) for entry in entries if isinstance(entry, dict)][-lines:]

    def run_url(self, dag_id: str, run_id: str) -> str:
        """The page of a run in Airflow's UI."""
        return f"{self.url}/dags/{quote(dag_id)}/runs/{quote(run_id, safe='')}"

    def task_url(self, task: Json) -> str:
        """The page of a task instance in Airflow's UI."""
        index = task.get("map_index", -1)
        page = f"{self.run_url(task['dag_id'], task['dag_run_id'])}/tasks/{task['task_id']}"
        return f"{page}/mapped/{index}" if index >= 0 else page

    def _task_path(self, task: Json) -> str:
        return f"{self._run_path(task['dag_id'], task['dag_run_id'])}/taskInstances/{quote(task['task_id'])}"

    def _run_path(self, dag_id: str, run_id: str) -> str:
        return f"/dags/{quote(dag_id)}/dagRuns/{quote(run_id, safe='')}"

    def _send(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        allow: tuple[int, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            if "Authorization" not in self._http.headers:
                self._log_in()
            response = self._http.request(method, f"{self.url}/api/v2{path}", json=body, headers=headers)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                # A token lives for a day; a run may take longer.
                self._log_in()
                response = self._http.request(method, f"{self.url}/api/v2{path}", json=body, headers=headers)
        except httpx.HTTPError as error:
            raise ApiError(
                f"{self.url}: Airflow does not answer: {str(error) or type(error).__name__}\n  {self._advice}"
            ) from None
        if response.is_success or response.status_code in allow:
            return response
        raise ApiError(
            f"{self.url}: Airflow refused {method} {path}: {_detail(response)}", response.status_code
        )

    def _log_in(self) -> None:
        response = self._http.post(f"{self.url}/auth/token", json=self._credentials)
        if not response.is_success:
            raise ApiError(f"{self.url}: Airflow refused the log-in: {_detail(response)}")
        self._http.headers["Authorization"] = f"Bearer {response.json()['access_token']}"


def _is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _detail(response: httpx.Response) -> str:
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = response.text[:300]
    return f"{response.status_code} {detail}"
