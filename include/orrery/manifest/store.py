"""The built manifests on disk: one slim manifest per pipeline and an index of how they were built."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import orjson

from orrery.config.environment import environment
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.manifest import fingerprint, packages
from orrery.manifest.profile import ProfileError, read_profile

# Changes whenever the content of these files changes in a way that an older reader cannot follow.
FORMAT = 4
# dbt's memory of the parsed project; without it every run would parse all files anew.
PARTIAL_PARSE = "partial_parse.msgpack"
BUILD_COMMAND = "./orrery build"


class ManifestError(OrreryError):
    """The manifest is missing or stale, or dbt could not make one."""


class ManifestStore:
    """Reads and writes the slim manifests of a project."""

    def __init__(self, project: Project) -> None:
        self.project = project

    def path(self, pipeline: str) -> Path:
        """The slim manifest of a pipeline, in the shape that Cosmos reads."""
        return self.project.manifest_dir / f"{pipeline}.json"

    @property
    def index_path(self) -> Path:
        """The file that says what the manifests were built from."""
        return self.project.manifest_dir / "index.json"

    @property
    def partial_parse(self) -> Path:
        """A copy of dbt's partial parse for the runs; the original is spoiled by any other use of dbt."""
        return self.project.manifest_dir / PARTIAL_PARSE

    def keep_partial_parse(self) -> None:
        """Make the copy, after dbt has parsed the project."""
        temporary = self.partial_parse.with_suffix(f".{os.getpid()}")
        self.project.manifest_dir.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self.project.target_dir / PARTIAL_PARSE, temporary)
        temporary.replace(self.partial_parse)

    def read_index(self) -> dict[str, Any] | None:
        """The index, or None when nothing (or something of another version) was built."""
        try:
            index = orjson.loads(self.index_path.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        return cast("dict[str, Any]", index) if index.get("format") == FORMAT else None

    def stale(self) -> list[str]:
        """Why the manifests must be built again, in words; empty when they are current."""
        index = self.read_index()
        if index is None:
            return ["there is no manifest yet"]
        changes = self.made_for_another() + fingerprint.changes(self.project, index["files"])
        if index["packages"] != packages.state(self.project):
            changes.append("other dbt packages are installed than it was built with")
        return changes

    def made_for_another(self) -> list[str]:
        """Which other target or environment the manifests were built for, in words; empty when for these."""
        reasons = []
        index = self.read_index() or {}
        for kind, here in _made_for(self.project).items():
            built = index.get(kind, here)
            if built != here:
                then = f"for the {kind} {built}" if built else f"without {kind}"
                now = f"it is {here}" if here else "there is none"
                reasons.append(f"it was built {then}, here {now}")
        return reasons

    def check_current(self) -> None:
        """Raise ManifestError unless the manifests belong to the project as it is now."""
        reasons = self.stale()
        if reasons:
            shown = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
            raise ManifestError(
                f"{self.project.relative(self.index_path)}: the manifest is not current: {shown}.\n"
                f"  Run {BUILD_COMMAND}"
            )

    def check(self, pipeline: str) -> None:
        """Raise ManifestError with what the build found wrong, or when there is no slim manifest."""
        index = self.read_index()
        problem = index and (index["problem"] or index["pipelines"].get(pipeline))
        if problem:
            raise ManifestError(problem)
        if index is None or not self.path(pipeline).is_file():
            raise ManifestError(
                f"{self.project.relative(self.path(pipeline))}: the manifest of {pipeline!r} is missing.\n"
                f"  Run {BUILD_COMMAND}"
            )

    def read(self, pipeline: str) -> dict[str, Any]:
        """The slim manifest of `pipeline`; raises ManifestError as `check` does."""
        self.check(pipeline)
        return cast("dict[str, Any]", orjson.loads(self.path(pipeline).read_bytes()))

    def write(self, pipeline: str, content: dict[str, Any]) -> None:
        """Store the slim manifest of `pipeline`."""
        write_whole(self.path(pipeline), orjson.dumps(content))

    def write_index(
        self, files: dict[str, Any], problem: str | None, pipelines: dict[str, str | None]
    ) -> None:
        """Store the index, and remove slim manifests that no pipeline uses any more.

        `problem` is an error of the whole project; `pipelines` maps each pipeline to its own, or None.
        """
        index = {
            "format": FORMAT,
            "files": files,
            "packages": packages.state(self.project),
            **_made_for(self.project),
            "problem": problem,
            "pipelines": pipelines,
        }
        write_whole(self.index_path, orjson.dumps(index))
        for path in self.project.manifest_dir.glob("*.json"):
            if path != self.index_path and path.stem not in pipelines:
                path.unlink()


def _made_for(project: Project) -> dict[str, str]:
    """What gives the tables and the pipelines of a manifest their names, beside the project's files."""
    try:
        target = read_profile(project).target
    except ProfileError:
        # It is an error of its own wherever dbt is called.
        target = ""
    return {"target": target, "environment": environment()}


def write_whole(path: Path, content: bytes) -> None:
    """Write a file anew: readers see the old one or the new one, nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of different containers that share the folder may have the same number.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.write_bytes(content)
    temporary.replace(path)
