"""The built manifests on disk: the last good version of each pipeline, and an index of them.

A version is one file: the slim manifest together with the text of the pipeline's file that it was resolved
from. Its name holds a digest of its content, so it never changes; the index, which is replaced as a whole,
says which version of each pipeline counts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import orjson

from orrery.config.environment import environment
from orrery.config.errors import OrreryError
from orrery.config.loader import LoadedPipeline, load_text
from orrery.config.project import Project
from orrery.config.text import fit_all
from orrery.manifest import fingerprint, packages
from orrery.manifest.index import FORMAT, Entry, Index
from orrery.manifest.lock import exclusively
from orrery.manifest.profile import ProfileError, read_profile

# dbt's memory of the parsed project; without it every run would parse all files anew.
PARTIAL_PARSE = "partial_parse.msgpack"
BUILD_COMMAND = "./orrery build"
# How many parses with vars are kept, but for those of the build; each has the size of manifest.json.
_KEPT = 10
_PIPELINE = "pipeline"
_NOTHING = Index({})


class ManifestError(OrreryError):
    """The manifest is missing or stale, or dbt could not make one."""


class ManifestStore:
    """Reads and writes the versions of a project's pipelines."""

    def __init__(self, project: Project) -> None:
        self.project = project

    @property
    def index_path(self) -> Path:
        """The file that says which versions count, and what they were built from."""
        return self.project.manifest_dir / "index.json"

    @property
    def parse_dir(self) -> Path:
        """dbt's target folder for builds alone: whatever else uses dbt writes to another one."""
        return self.project.manifest_dir / "dbt"

    @property
    def partial_parse(self) -> Path:
        """dbt's partial parse of the last good build, for the runs."""
        return self.project.manifest_dir / PARTIAL_PARSE

    def partial_parse_of(self, variables: Mapping[str, Any]) -> Path:
        """The same for a set of vars that pipelines have."""
        return self.project.manifest_dir / "good" / f"{digest_of_vars(variables)}.msgpack"

    def keep_partial_parses(self, others: Mapping[Path, bytes]) -> None:
        """Keep what a good build has parsed.

        :param others: those with vars, by their files
        """
        write_whole(self.partial_parse, (self.parse_dir / PARTIAL_PARSE).read_bytes())
        for path, content in others.items():
            write_whole(path, content)
        kept = sorted(
            (self.project.manifest_dir / "good").glob("*.msgpack"), key=lambda path: path.stat().st_mtime
        )
        # A pipeline that is broken now still has its version of before.
        for path in kept[: -max(_KEPT, len(others))]:
            path.unlink(missing_ok=True)

    def lock(self, report: Callable[[str], None]) -> AbstractContextManager[None]:
        """Held by whoever builds; another build waits, and `report` gets a line about it."""
        path = self.project.manifest_dir / ".lock"
        return exclusively(path, lambda: report("Another ./orrery is building: waiting for it."))

    def index(self) -> Index:
        """The index; an empty one when nothing was built, or by another version of Orrery."""
        return self._read_index() or _NOTHING

    def entries(self) -> dict[str, Entry]:
        """The pipelines of this environment that were built, or that a build has refused."""
        return self.index().of_environment(environment())

    def stale(self) -> list[str]:
        """Why the manifests must be built again, in words; empty when they are current."""
        index = self._read_index()
        if index is None:
            earlier = self.index_path.exists()
            told = "another version of Orrery has built it" if earlier else "there is no manifest yet"
            return [told]
        built_from = index.built_from
        changes = self.made_for_another() + fingerprint.changes(self.project, built_from["files"])
        if built_from["packages"] != packages.state(self.project):
            changes.append("other dbt packages are installed than it was built with")
        return changes

    def must_build(self) -> bool:
        """Whether something has changed, or was wrong: what is beside the files may have been put right."""
        index = self.index()
        troubles = [index.trouble, *(entry.trouble for entry in self.entries().values())]
        return any(troubles) or bool(self.stale())

    def made_for_another(self) -> list[str]:
        """Which other target or environment the manifests were built for, in words; empty when for these."""
        reasons = []
        built_from = self.index().built_from
        for kind, here in _made_for(self.project).items():
            built = built_from.get(kind, here)
            if built != here:
                then = f"for the {kind} {built}" if built else f"without {kind}"
                now = f"it is {here}" if here else "there is none"
                reasons.append(f"it was built {then}, here {now}")
        return reasons

    def why_stale(self) -> str | None:
        """What to say of manifests that do not belong to the project as it is now; None of current ones."""
        reasons = self.stale()
        if not reasons:
            return None
        shown = "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
        path = self.project.relative(self.index_path)
        return f"{path}: the manifest is not current: {shown}.\n  Run {BUILD_COMMAND}"

    def check(self, pipeline: str) -> None:
        """Raise ManifestError with what the last build found wrong, or when there is no version."""
        index = self.index()
        if trouble := index.trouble_of(pipeline):
            raise ManifestError(trouble.text)
        self.path(pipeline)

    def path(self, pipeline: str) -> Path:
        """The file of the last good version, in the shape that Cosmos reads; raises ManifestError."""
        entry = self.index().entries.get(pipeline)
        if entry is None or not entry.manifest:
            folder = self.project.relative(self.project.manifest_dir)
            raise ManifestError(f"{folder}: the manifest of {pipeline!r} is missing.\n  Run {BUILD_COMMAND}")
        return self.project.manifest_dir / entry.manifest

    def read(self, pipeline: str) -> dict[str, Any]:
        """The slim manifest of the last good version of `pipeline`; raises ManifestError."""
        return self.load(pipeline)[1]

    def load(self, pipeline: str) -> tuple[LoadedPipeline, dict[str, Any]]:
        """The last good version of `pipeline`: its file as it was then, and its slim manifest.

        Raises ManifestError when there is none, and ConfigError when this Orrery does not understand it.
        """
        return read_version(self.path(pipeline), pipeline)

    def keep(self, pipeline: LoadedPipeline, slim: dict[str, Any]) -> Path:
        """Store a version of a pipeline, which counts as soon as the index names it; returns its file."""
        content = {**slim, _PIPELINE: {"file": pipeline.document.file, "text": pipeline.text}}
        try:
            written = orjson.dumps(content)
        except TypeError:
            # Halves of characters, which JSON can escape and UTF-8 cannot hold.
            written = orjson.dumps(fit_all(content))
        digest = hashlib.blake2b(written, digest_size=8).hexdigest()
        path = self.project.manifest_dir / f"{pipeline.name}.{digest}.json"
        if not path.exists():
            write_whole(path, written)
        return path

    def write_index(self, index: Index) -> None:
        """Replace the index, then remove versions that neither it nor the one before names."""
        named = {entry.manifest for each in (self.index(), index) for entry in each.entries.values()}
        write_whole(self.index_path, orjson.dumps(index.as_json()))
        for path in self.project.manifest_dir.glob("*.json"):
            if path != self.index_path and path.name not in named:
                path.unlink(missing_ok=True)

    def built_from(self, files: dict[str, Any]) -> dict[str, Any]:
        """What a build is made from: `files`, which were there before it began, and what is beside them."""
        return {"files": files, "packages": packages.state(self.project), **_made_for(self.project)}

    def _read_index(self) -> Index | None:
        try:
            value = orjson.loads(self.index_path.read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return None
        return Index.read(value) if value.get("format") == FORMAT else None


def read_version(path: Path, name: str) -> tuple[LoadedPipeline, dict[str, Any]]:
    """A stored version of the pipeline `name`. Raises ManifestError, ConfigError; see ManifestStore.load."""
    try:
        slim = cast("dict[str, Any]", orjson.loads(path.read_bytes()))
    except (OSError, orjson.JSONDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read: {error}\n  Run {BUILD_COMMAND}") from None
    said = slim.pop(_PIPELINE)
    return load_text(said["text"], name, said["file"]), slim


def now() -> str:
    """The time of a build."""
    return datetime.now(UTC).isoformat()


def _made_for(project: Project) -> dict[str, str]:
    """What gives the tables and the pipelines of a manifest their names, beside the project's files."""
    try:
        target = read_profile(project).target
    except ProfileError:
        # It is an error of its own wherever dbt is called.
        target = ""
    return {"target": target, "environment": environment()}


def digest_of_vars(variables: Mapping[str, Any]) -> str:
    """A name for a set of vars, whatever the order of its keys."""
    text = json.dumps(variables, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file anew: readers see the old one or the new one, nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of different containers that share the folder may have the same number.
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    temporary.write_bytes(content)
    temporary.replace(path)
