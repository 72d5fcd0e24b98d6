"""dbt's target folder of one DAG run."""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

from orrery.config.project import Project
from orrery.manifest.store import PARTIAL_PARSE, ManifestStore

# How many runs of a pipeline keep their compiled SQL and run results; those of the last day all do.
KEPT = 20
_DAY = 86400.0
_SCRATCH = (
    PARTIAL_PARSE,
    "graph.gpickle",
    "graph_summary.json",
    "perf_info.json",
    "semantic_manifest.json",
)


def prepare(project: Project, pipeline: str, run_id: str) -> Path:
    """The target folder of a run, so that runs at the same time do not share files; oldest ones go."""
    parent = project.target_dir / "runs" / pipeline
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", run_id)[:80]
    folder = parent / f"{safe}-{hashlib.sha256(run_id.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    folder.touch()
    with suppress(FileNotFoundError):
        shutil.copyfile(ManifestStore(project).partial_parse, folder / PARTIAL_PARSE)
    _forget_old(parent)
    return folder


def tidy(folder: Path) -> None:
    """Remove what only the run itself needed."""
    for name in _SCRATCH:
        (folder / name).unlink(missing_ok=True)


def _forget_old(parent: Path) -> None:
    folders = sorted(parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for folder in folders[KEPT:]:
        if time.time() - folder.stat().st_mtime > _DAY:
            shutil.rmtree(folder, ignore_errors=True)
