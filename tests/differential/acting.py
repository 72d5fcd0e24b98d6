"""Lays hands on a run in the world, by Airflow's public API."""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import psycopg2
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select

from differential import recorder
from differential.files import SWITCH
from differential.gates import Gates, passed
from differential.hands import BUILD, RUN
from differential.oracle import name_of
from orrery.plan.model import PipelinePlan, TaskKind

if TYPE_CHECKING:
    from differential.airflow_world import World

# Until what has been published so far has come in: people act on what they see.
_SEEN = 0.4
# How often a build that is always killed is killed at most.
_KILLS = 30
_RETRIED = ("failed", "upstream_failed")


class Hands:
    """The hands of one run; each is laid when its moment has come, or when the run has ended."""

    def __init__(
        self,
        world: World,
        plan: PipelinePlan,
        run_id: str,
        hands: list[dict[str, Any]],
        *,
        gates: Gates,
        warehouse: dict[str, Any],
    ) -> None:
        self._world, self._plan, self._run_id = world, plan, run_id
        self._gates, self._warehouse = gates, warehouse
        self._waiting = list(hands)
        self._always: str | None = None
        self._kills = 0
        for hand in hands:
            if hand["at"]:
                gates.close_at(str(hand["at"]))

    @property
    def done(self) -> bool:
        """Whether all hands have been laid."""
        return not self._waiting

    def act(self, *, ended: bool) -> bool:
        """Lay the next hands if it is time; returns whether one has been laid."""
        if self._always and self._gates.waits_at(self._always):
            self._kill_again(self._always)
            return True
        if not self._waiting:
            return False
        moment = self._waiting[0]["at"]
        point = str(moment)
        here = self._gates.waits_at(point) if moment else None
        if not (ended or here or moment == 0):
            return False
        if here:
            # Airflow has been told of what was before.
            until = time.monotonic() + _SEEN
            while time.monotonic() < until:
                self._world.step()
                time.sleep(0.05)
        while self._waiting and self._waiting[0]["at"] == moment:
            self._lay(self._waiting.pop(0), here)
        if here:
            self._world.step()
            self._gates.open(point)
            if self._kills:
                self._gates.forget(point)
        elif moment:
            # The run has ended before it came there; what goes on with it is not to wait.
            self._gates.open(point)
        return True

    def _lay(self, hand: dict[str, Any], here: str | None) -> None:
        task_ids = self._tasks(hand)
        said = {key: value for key, value in hand.items() if key != "at"}
        recorder.note(event="hand", passed=passed(), here=here, tasks=task_ids, **said)
        match hand["act"]:
            case "fix" | "break" as act:
                with (
                    closing(psycopg2.connect(**self._warehouse["address"])) as link,
                    link,
                    link.cursor() as c,
                ):
                    c.execute(f"update {self._warehouse['schema']}.{SWITCH} set ok = {int(act == 'fix')}")
            case "kill":
                self._kill()
            case "always":
                self._kill()
                if here:
                    event, uid = here.split()
                    self._always = f"{event}-{uid}"
                    self._gates.close_at(self._always)
            case "lost":
                with create_session() as session:
                    keys = {"dag_id": self._plan.name, "run_id": self._run_id, "task_id": "build"}
                    session.scalars(select(TaskInstance).filter_by(**keys)).one().set_state(
                        "failed", session=session
                    )
            case "retry":
                self._clear([tid for tid, state in self._states().items() if state in _RETRIED], hand)
            case "clear" if hand["task"] == RUN:
                self._call("POST", "/clear", {"dry_run": False, "only_failed": False})
                recorder.note(event="cleared", tasks=sorted(task_ids))
            case "clear":
                self._clear(task_ids, hand)
            case "success" | "failed" as state:
                self._mark(task_ids, state, hand)

    def _tasks(self, hand: dict[str, Any]) -> list[str]:
        """The ids of the tasks that a hand is laid on."""
        name = hand["task"]
        if name == BUILD:
            return [BUILD]
        if name == RUN:
            return [*self._plan.tasks]
        node, _, tests = name.partition(":")
        found = [
            task_id
            for task_id, task in self._plan.tasks.items()
            if (task.kind is TaskKind.TEST) == bool(tests)
            and task.kind is not TaskKind.UNIT_TEST
            and (task.name == node if tests else [name_of(uid) for uid in task.nodes] == [node])
        ]
        return found[:1]

    def _clear(self, task_ids: list[str], hand: dict[str, Any]) -> None:
        if not task_ids:
            return
        body = {
            "dry_run": False,
            "dag_run_id": self._run_id,
            "task_ids": task_ids,
            "only_failed": False,
            "only_running": False,
            "reset_dag_runs": True,
            "include_downstream": hand["downstream"],
            "include_upstream": hand["upstream"],
        }
        path = f"/dags/{self._plan.name}/clearTaskInstances"
        cleared = self._world.call("POST", path, body)["task_instances"]
        recorder.note(event="cleared", tasks=sorted(task["task_id"] for task in cleared))

    def _mark(self, task_ids: list[str], state: str, hand: dict[str, Any]) -> None:
        if hand["task"] == RUN:
            self._call("PATCH", "", {"state": state})
            return
        for task_id in task_ids:
            self._call("PATCH", f"/taskInstances/{task_id}", {"new_state": state})

    def _call(self, method: str, path: str, body: Any) -> None:
        # Airflow may refuse: a task may be in the state already.
        with suppress(RuntimeError):
            self._world.call(method, f"/dags/{self._plan.name}/dagRuns/{self._run_id}{path}", body)

    def _states(self) -> dict[str, str | None]:
        return self._world.states(self._plan.name, self._run_id)

    def _kill_again(self, point: str) -> None:
        self._kill()
        self._gates.forget(point)
        if self._kills > _KILLS:
            self._gates.open(point)
            self._always = None

    def _kill(self) -> None:
        """The process of the build vanishes."""
        self._kills += 1
        with create_session() as session:
            pid, state = session.execute(
                select(TaskInstance.pid, TaskInstance.state).filter_by(
                    dag_id=self._plan.name, run_id=self._run_id, task_id="build"
                )
            ).one()
        if pid and str(state) == "running":
            recorder.note(event="killed", pid=pid)
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
