"""The pipelines of the project, read again when their files have changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from orrery.config.errors import OrreryError
from orrery.config.loader import Pipelines, load_pipelines
from orrery.config.project import Project
from orrery.manifest.store import ManifestStore
from orrery.plan.planner import plan_pipeline

Stamp = tuple[tuple[str, int, int], ...]


class Catalog:
    """The pipelines of a project and the tasks of their nodes. Several threads may use it at once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._pipelines: tuple[Stamp, Pipelines] | None = None
        self._tasks: dict[str, tuple[Stamp, Mapping[str, str]]] = {}

    def pipelines(self) -> Pipelines:
        """All pipeline files."""
        stamp = _stamp(*self.project.pipelines_dir.glob("*.y*ml"))
        if self._pipelines is None or self._pipelines[0] != stamp:
            self._pipelines = stamp, load_pipelines(self.project)
        return self._pipelines[1]

    def tasks(self, name: str) -> Mapping[str, str]:
        """The task id of each node of a pipeline, by dbt's unique id; nothing while it cannot be planned."""
        pipeline = self.pipelines().valid.get(name)
        if pipeline is None:
            return {}
        store = ManifestStore(self.project)
        stamp = _stamp(self.project.pipelines_dir / Path(pipeline.document.file).name, store.path(name))
        if name not in self._tasks or self._tasks[name][0] != stamp:
            try:
                plan = plan_pipeline(pipeline, store.read(name))
                found = {uid: task.task_id for task in plan.tasks.values() for uid in task.nodes}
            except OrreryError:
                found = {}
            self._tasks[name] = stamp, found
        return self._tasks[name][1]


def _stamp(*paths: Path) -> Stamp:
    """What changes with the files: names, sizes and times."""
    found = []
    for path in sorted(paths):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((path.name, status.st_mtime_ns, status.st_size))
    return tuple(found)
