"""Orrery in a process of its own: builds a project's manifests, renders its DAG, and runs it in a World."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from importlib_metadata import version
from sqlalchemy import select

from differential import gates, mutants, recorder
from differential.acting import Hands
from differential.airflow_world import World
from differential.gates import Gates
from differential.planned import read_plan, tasks_of
from differential.servers import Json, serve
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.execute import publisher
from orrery.execute.dbt_run import DbtRun
from orrery.manifest.build import build_manifests
from orrery.manifest.store import ManifestStore
from orrery.render.dag import render
from orrery.render.loader import make_dags

_ENDED = ("success", "failed")
# A run of a small project that takes longer never ends.
_PATIENCE = 400.0
# How often nothing may happen before the clock is set forward, and how often that may be.
_IDLE = 3
# How often the scheduler looks while tasks are at work, in seconds.
_BEAT = 0.3
_JUMPS = 40


class Trial:
    """A project's pipeline in the world."""

    def __init__(self, world: World, request: Json) -> None:
        root, pipeline = Path(request["root"]), request["pipeline"]
        self._world, self.pipeline, self._root = world, pipeline, root
        self._warehouse = request["warehouse"]
        os.environ["ORRERY_PROJECT_DIR"] = str(root)
        project = Project.find()
        _in_a_fork(lambda: _build(project, pipeline))
        self.plan = read_plan(project, pipeline)
        version = project.manifest_dir / ManifestStore(project).index().entries[pipeline].manifest
        world.store(render(self.plan, project, version, announced=False))

    def run(self, conf: Mapping[str, Any], hands: list[dict[str, Any]]) -> Json:
        """Start a run, and see it and what hands do to it to its end."""
        body = {"logical_date": None, "conf": dict(conf)}
        run_id = self._world.call("POST", f"/dags/{self.pipeline}/dagRuns", body)["dag_run_id"]
        folder = self._root / f"gates-{time.time_ns()}"
        folder.mkdir()
        laid = Hands(self._world, self.plan, run_id, hands, gates=Gates(folder), warehouse=self._warehouse)
        ended = self._follow(run_id, laid)
        return {"ended": ended, "state": self._world.run_state(self.pipeline, run_id), **self._shown(run_id)}

    def _follow(self, run_id: str, hands: Hands) -> bool:
        world, deadline = self._world, time.monotonic() + _PATIENCE
        idle = jumps = 0
        while time.monotonic() < deadline and jumps < _JUMPS:
            ended = world.run_state(self.pipeline, run_id) in _ENDED and not world.executor.workers
            if ended and hands.done:
                return True
            happened = hands.act(ended=ended) or world.step()
            if world.executor.workers:
                idle = 0
                self._wait()
            else:
                idle = 0 if happened else idle + 1
            if idle > _IDLE:
                idle, jumps = 0, jumps + 1
                world.pass_time(self.pipeline, run_id)
        world.end_run(self.pipeline, run_id)
        return False

    def _wait(self) -> None:
        """Wait a moment, or until a worker ends."""
        until = time.monotonic() + _BEAT
        while time.monotonic() < until:
            time.sleep(0.02)
            self._world.executor.sync()
            if self._world.executor.ended:
                return

    def _shown(self, run_id: str) -> Json:
        """What Airflow shows of a run."""
        keys = {"dag_id": self.pipeline, "run_id": run_id}
        with create_session() as session:
            found = session.scalars(select(TaskInstance).filter_by(**keys)).all()
            values = session.execute(
                select(XComModel.task_id, XComModel.value).filter_by(**keys, key="dbt")
            ).all()
            results = dict(map(tuple, values))
            tasks = {
                ti.task_id: {
                    "state": ti.state and str(ti.state),
                    "try": ti.try_number,
                    "start": ti.start_date and ti.start_date.timestamp(),
                    "end": ti.end_date and ti.end_date.timestamp(),
                    "note": ti.note,
                    "result": results.get(ti.task_id),
                }
                for ti in found
            }
        return {"shown": tasks}


def _build(project: Project, pipeline: str) -> None:
    built = build_manifests(project, lambda line: None)
    if error := built.errors.get(pipeline):
        raise error


def _store(world: World, root: str) -> Json:
    """Make all DAGs of a project known, as the file in dags/ does; returns them, and what became none."""
    os.environ["ORRERY_PROJECT_DIR"] = root
    project = Project.find()
    try:
        _in_a_fork(lambda: build_manifests(project, lambda line: None))
    except OrreryError:
        # dbt does not take it.
        return {"dags": [], "problems": {}}
    made = make_dags(project)
    world.store(*made.dags.values())
    return {"dags": sorted(made.dags), "problems": made.problems}


def _in_a_fork(work: Callable[[], object]) -> None:
    """Do something in a process of its own; raises its OrreryError.

    dbt's parser leaves threads behind, for which the tasks that are forked later would wait for ever.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = b""
        try:
            work()
        except OrreryError as error:
            told = f"refused {error}".encode()
        except BaseException:
            told = f"broken {traceback.format_exc()}".encode()
        os.write(writing, told)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        kind, _, text = pipe.read().decode().partition(" ")
    os.waitpid(pid, 0)
    if kind == "refused":
        raise OrreryError(text)
    if kind:
        raise RuntimeError(text)


def _note_rounds() -> None:
    """Take down when a round begins, which may have several commands of dbt."""
    original = DbtRun.run

    def run(self: DbtRun, tries: Mapping[str, Any]) -> None:
        recorder.note(event="round")
        original(self, tries)

    DbtRun.run = run  # type: ignore[method-assign]


def main() -> None:
    """Serve trials."""
    mutants.apply(os.environ.get(mutants.CHOSEN, ""))
    recorder.install(gates.pause)
    _note_rounds()
    # dbt looks for it in each process that parses; the search is remembered.
    version("dbt-semantic-interfaces")
    # What is published twice a second would be awaited again and again.
    publisher.INTERVAL = 0.1
    world = World()

    trials: list[Trial] = []

    def handle(request: Json) -> Json:
        if request["op"] == "run":
            recorder.note(event="run")
            return trials[-1].run(request["conf"], request["hands"])
        if request["op"] == "store":
            return _store(world, request["root"])
        os.environ[recorder.JOURNAL] = request["journal"]
        try:
            trials[:] = [Trial(world, request)]
        except OrreryError as error:
            return {"refused": str(error)}
        return {"tasks": tasks_of(trials[-1].plan)}

    serve(handle)


if __name__ == "__main__":
    main()
