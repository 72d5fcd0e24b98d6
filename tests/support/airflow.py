"""Airflow's REST API as the tests use it: a client of its own, which shares no mistake with Orrery's."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from urllib.parse import quote

import httpx

from support.waiting import wait_for

Json = dict[str, Any]


class Airflow:
    """A logged-in client of one Airflow."""

    def __init__(self, url: str, username: str, password: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=60, trust_env=False)
        token = self._http.post("/auth/token", json={"username": username, "password": password})
        self._http.headers["Authorization"] = f"Bearer {token.raise_for_status().json()['access_token']}"

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> Json:
        """The answer to GET /api/v2<path>."""
        answer: Json = self._http.get(f"/api/v2{path}").raise_for_status().json()
        return answer

    def post(self, path: str, body: Json) -> Json:
        """The answer to POST /api/v2<path>."""
        answer: Json = self._http.post(f"/api/v2{path}", json=body).raise_for_status().json()
        return answer

    def patch(self, path: str, body: Json) -> Json:
        """The answer to PATCH /api/v2<path>."""
        answer: Json = self._http.patch(f"/api/v2{path}", json=body).raise_for_status().json()
        return answer

    def delete(self, path: str) -> None:
        """Ask for DELETE /api/v2<path>."""
        self._http.delete(f"/api/v2{path}").raise_for_status()

    def status_of(self, path: str) -> int:
        """The HTTP status of the answer to GET <path>, which the web interface asks for."""
        return self._http.get(path).status_code

    def ask(self, path: str, query: dict[str, str] | None = None) -> tuple[int, bytes]:
        """Status and content of the answer to GET <path>, whatever it is; 0 for one that breaks off."""
        try:
            answer = self._http.get(path, params=query)
        except httpx.TransportError:
            return 0, b""
        return answer.status_code, answer.content

    def pages(self, path: str, key: str) -> list[Json]:
        """All entries of a list that comes in pages."""
        found: list[Json] = []
        separator = "&" if "?" in path else "?"
        while True:
            page = self.get(f"{path}{separator}limit=100&offset={len(found)}")
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def trigger(self, dag_id: str, conf: Json | None = None) -> httpx.Response:
        """Ask for a run, with no conf at all unless one is given."""
        body: Json = {"logical_date": None} | ({} if conf is None else {"conf": conf})
        return self._http.post(f"/api/v2/dags/{dag_id}/dagRuns", json=body)

    def runs(self, dag_id: str) -> list[Json]:
        return self.pages(f"/dags/{dag_id}/dagRuns", "dag_runs")

    def wait_ended(self, dag_id: str, run_id: str, seconds: float = 300) -> str:
        """The state of a run once it has ended."""

        def ended() -> str | None:
            state = self.get(f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}")["state"]
            return str(state) if state in ("success", "failed") else None

        return str(wait_for(f"{dag_id} {run_id} ends", ended, seconds))

    def tasks(self, dag_id: str, run_id: str) -> dict[str, Json]:
        """The task instances of a run by task id; of a mapped task the last."""
        return {task["task_id"]: task for task in self.instances(dag_id, run_id)}

    def instances(self, dag_id: str, run_id: str, task_id: str = "") -> list[Json]:
        """The task instances of a run, or of one of its tasks."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances"
        found = self.pages(path, "task_instances")
        return [task for task in found if task_id in ("", task["task_id"])]

    def states(self, dag_id: str, run_id: str) -> dict[str, str]:
        """The state of each task of a run."""
        return {task_id: task["state"] for task_id, task in self.tasks(dag_id, run_id).items()}

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "dbt") -> Any:
        """An XCom of a task, or None where it has none."""
        path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/xcomEntries/{key}"
        answer = self._http.get(f"/api/v2{path}?deserialize=true")
        return None if answer.status_code == 404 else answer.raise_for_status().json()["value"]

    def descendants(self, dag_id: str, task_id: str) -> set[str]:
        """What comes after a task in Airflow's graph, at any distance."""
        tasks = self.get(f"/dags/{dag_id}/tasks")["tasks"]
        after = {task["task_id"]: task["downstream_task_ids"] for task in tasks}
        found: set[str] = set()
        waiting = [task_id]
        while waiting:
            new = set(after[waiting.pop()]) - found
            found |= new
            waiting += new
        return found

    def edges(self, dag_id: str) -> set[tuple[str, str]]:
        """Pairs of tasks, the second of which waits for the first."""
        tasks = self.get(f"/dags/{dag_id}/tasks")["tasks"]
        return {(task["task_id"], after) for task in tasks for after in task["downstream_task_ids"]}

    def import_errors(self) -> list[str]:
        """The texts of all import errors."""
        return [error["stack_trace"] for error in self.pages("/importErrors", "import_errors")]


def moment(text: str) -> datetime:
    """A time that Airflow tells."""
    return datetime.fromisoformat(text)
