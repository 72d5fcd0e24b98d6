"""The pipelines of the project as Airflow has them, read again after each build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from orrery.config.environment import environment
from orrery.config.errors import OrreryError
from orrery.config.pipeline import Pipeline
from orrery.config.project import Project
from orrery.manifest.store import ManifestStore, read_version
from orrery.plan.planner import plan_pipeline


@dataclass(frozen=True)
class Listed:
    """A pipeline: its file as it was when a build last found it good, or None when none ever has.

    `notice` says which version runs and what is wrong, in a sentence and the first line of the message; None
    when nothing is.
    """

    name: str
    version: Path | None = field(repr=False, default=None)
    notice: tuple[str, str] | None = None

    @cached_property
    def config(self) -> Pipeline | None:
        """The settings of the pipeline."""
        try:
            return read_version(self.version, self.name)[0].config if self.version else None
        except OrreryError:
            return None

    @cached_property
    def tasks(self) -> Mapping[str, str]:
        """The task id of each of its nodes, by dbt's unique id; nothing while it cannot be planned."""
        try:
            plan = plan_pipeline(*read_version(self.version, self.name)) if self.version else None
        except OrreryError:
            return {}
        return {uid: task.task_id for task in plan.tasks.values() for uid in task.nodes} if plan else {}


class Catalog:
    """The pipelines of a project. Several threads may use it at once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._store = ManifestStore(project)
        self._read: tuple[tuple[int, int], Mapping[str, Listed]] | None = None

    def pipelines(self) -> Mapping[str, Listed]:
        """All pipelines of this environment by name."""
        try:
            status = self._store.index_path.stat()
        except FileNotFoundError:
            return {}
        stamp = (status.st_mtime_ns, status.st_ino)
        if self._read is None or self._read[0] != stamp:
            self._read = stamp, self._list()
        return self._read[1]

    def _list(self) -> Mapping[str, Listed]:
        index, folder = self._store.index(), self.project.manifest_dir
        return {
            name: Listed(name, folder / entry.manifest if entry.manifest else None, index.standing(name))
            for name, entry in index.of_environment(environment()).items()
        }
