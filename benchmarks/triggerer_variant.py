"""The way not taken: each node is a task of its own, which starts and ends in the triggerer.

benchmarks/execution.py copies this file to the `plugins` folder of its project, so that the triggerer finds
the trigger, and measures the DAG beside Orrery's. Only what costs time is here: no failures, no retries.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

from airflow.sdk import DAG, BaseOperator
from airflow.triggers.base import BaseTrigger, StartTriggerArgs, TaskSuccessEvent, TriggerEvent

POLL_SECONDS = 0.5


class BuildOperator(BaseOperator):
    """Runs `dbt build` and writes the unique id of each node that has ended to a file of the DAG run."""

    def __init__(self, *, project: str, folder: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.project = project
        self.folder = folder

    def execute(self, context: Any) -> None:
        from dbt.cli.main import dbtRunner

        target = Path(self.folder, "target")
        target.mkdir(parents=True, exist_ok=True)
        # Like a build of Orrery it starts from what was parsed before.
        shutil.copy(Path(self.project, "target/orrery/dbt/partial_parse.msgpack"), target)
        with Path(self.folder, context["run_id"]).open("a", buffering=1) as ended:

            def publish(event: Any) -> None:
                if event.info.name == "NodeFinished":
                    ended.write(f"{event.data.node_info.unique_id}\n")

            folders = {"project-dir": self.project, "profiles-dir": self.project, "target-path": target}
            options = [f"--{name}={folder}" for name, folder in folders.items()]
            done = dbtRunner(callbacks=[publish]).invoke(["--quiet", "build", *options])
        if not done.success:
            raise RuntimeError(f"dbt build failed: {done.exception}")


class NodeOperator(BaseOperator):
    """The task of a node; nothing of it runs on a worker."""

    start_from_trigger = True

    def __init__(self, *, unique_id: str, folder: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls=f"{__name__}.{NodeTrigger.__name__}",
            trigger_kwargs={"unique_id": unique_id, "folder": folder},
            next_method="execute",
        )


class NodeTrigger(BaseTrigger):
    """Waits until dbt has ended a node. All triggers of a run share one reader of its file."""

    _ended: ClassVar[dict[Path, tuple[float, set[str]]]] = {}

    def __init__(self, unique_id: str, folder: str) -> None:
        super().__init__()
        self.unique_id = unique_id
        self.folder = folder

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", {"unique_id": self.unique_id, "folder": self.folder}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        path = Path(self.folder, self.task_instance.run_id)
        while self.unique_id not in self._read(path):
            await asyncio.sleep(POLL_SECONDS)
        yield TaskSuccessEvent()

    @classmethod
    def _read(cls, path: Path) -> set[str]:
        now = asyncio.get_running_loop().time()
        read, ended = cls._ended.get(path, (-POLL_SECONDS, set()))
        if now - read >= POLL_SECONDS:
            ended = set(path.read_text().splitlines()) if path.exists() else set()
            cls._ended[path] = (now, ended)
        return ended


def make_dag(dag_id: str, project: str, folder: str) -> DAG:
    """A task per model and test of a project made by generate.py; tests gate."""
    import json

    nodes = json.loads(Path(project, "target/orrery/dbt/manifest.json").read_text())["nodes"]
    with DAG(dag_id, schedule=None, max_active_tasks=len(nodes) + 1, fail_fast=True) as dag:
        BuildOperator(task_id="build", project=project, folder=folder)
        tasks = {
            unique_id: NodeOperator(
                task_id=unique_id.replace("test.", "tests.", 1), unique_id=unique_id, folder=folder
            )
            for unique_id in nodes
        }
        parents = {unique_id: node["depends_on"]["nodes"] for unique_id, node in nodes.items()}
        test_of = {parents[unique_id][0]: unique_id for unique_id in nodes if unique_id.startswith("test.")}
        for unique_id, before in parents.items():
            for parent in before:
                # A test waits for its model, a model for the tests of those it reads.
                tasks[parent if unique_id.startswith("test.") else test_of[parent]] >> tasks[unique_id]
    return dag
