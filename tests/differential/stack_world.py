"""A running stack in the place of differential.orrery_world: the same questions, asked of a real Airflow."""

from __future__ import annotations

import shutil
from pathlib import Path

from differential.planned import read_plan, tasks_of
from differential.servers import Json
from orrery.config.project import Project
from support.airflow import moment
from support.live import Live
from support.waiting import wait_for


class StackWorld:
    """Tries one project after the other in a stack; no hands are laid on its runs."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._pipeline = self._run_id = ""

    def ask(self, request: Json) -> Json:
        """Build the project of a request, and wait until Airflow knows its DAG."""
        assert request["op"] == "open"
        live, self._pipeline = self._live, request["pipeline"]
        shutil.rmtree(live.dbt)
        shutil.copytree(Path(request["root"]) / "dbt", live.dbt)
        built = live.orrery("build")
        if built.code:
            return {"refused": built.output}
        path = f"/api/v2/dags/{self._pipeline}"
        wait_for(f"Airflow knows {self._pipeline}", lambda: live.airflow.status_of(path) == 200, 300)
        live.airflow.patch(f"/dags/{self._pipeline}", {"is_paused": False})
        return {"tasks": tasks_of(read_plan(Project(live.root), self._pipeline))}

    def send(self, request: Json) -> None:
        """Start a run."""
        assert request["op"] == "run"
        assert not request["hands"]
        answer = self._live.airflow.trigger(self._pipeline, request["conf"])
        assert answer.status_code == 200, answer.text
        self._run_id = answer.json()["dag_run_id"]

    def answer(self) -> Json:
        """What Airflow shows of the run when it has ended."""
        airflow = self._live.airflow
        state = airflow.wait_ended(self._pipeline, self._run_id)
        tasks = airflow.tasks(self._pipeline, self._run_id)
        shown = {task_id: self._shown(task_id, task) for task_id, task in tasks.items()}
        return {"ended": True, "state": state, "shown": shown}

    def _shown(self, task_id: str, task: Json) -> Json:
        start, end = (task[key] and moment(task[key]).timestamp() for key in ("start_date", "end_date"))
        return {
            "state": task["state"],
            "try": task["try_number"],
            "start": start,
            "end": end,
            "note": task["note"],
            "result": self._live.airflow.xcom(self._pipeline, self._run_id, task_id),
        }
