"""dbt's target folder of one DAG run."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from orrery.config.project import Project
from orrery.manifest.store import PARTIAL_PARSE

# How many runs of a pipeline keep their compiled SQL and run results; those of the last day all do.
KEPT = 20
_DAY = 86400.0
# The results of each of dbt's commands, in a run's folder.
COMMANDS = "commands"
RESULTS = ("run_results.json", "sources.json")
_SCRATCH = (
    PARTIAL_PARSE,
    "graph.gpickle",
    "graph_summary.json",
    "perf_info.json",
    "semantic_manifest.json",
)


def prepare(project: Project, pipeline: str, run_id: str) -> Path:
    """The target folder of a run, so that runs at the same time do not share files; oldest ones go."""
    folder = folder_of(project, pipeline, run_id)
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    _forget_old(folder.parent)
    return folder


def folder_of(project: Project, pipeline: str, run_id: str) -> Path:
    """The target folder of a run, which another machine may have, or none."""
    return project.target_dir / "runs" / pipeline / safe_name(run_id)


def safe_name(run_id: str) -> str:
    """A name for files that no other run has; ASCII letters, digits and `_.-`, at most 89 of them."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", run_id)[:80]
    return f"{safe}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"


def keep_results(target: Path, folder: Path) -> None:
    """Keep what dbt's last command in `target` has written of its results; the next one overwrites it."""
    kept = folder / COMMANDS
    kept.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        with suppress(FileNotFoundError):
            shutil.copyfile(target / name, kept / f"{time.time_ns()}-{os.getpid()}-{name}")


def kept_results(folder: Path, name: str) -> list[Path]:
    """What `keep_results` has kept of a file, the oldest first."""
    return sorted((folder / COMMANDS).glob(f"*-{name}"))


def tidy(folder: Path) -> None:
    """Remove what only the run itself needed."""
    for name in _SCRATCH:
        (folder / name).unlink(missing_ok=True)


def _forget_old(parent: Path) -> None:
    folders = sorted(parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders[KEPT:]:
        if time.time() - folder.stat().st_mtime > _DAY:
            shutil.rmtree(folder, ignore_errors=True)
