"""What the benchmarks that start a stack of their own have in common."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "include"))

from orrery.config.errors import OrreryError
from orrery.local import Stack
from orrery.local.ports import find_free

ROOT = Path(__file__).resolve().parents[1]
FOREIGN = ("ORRERY_", "DBT_", "AIRFLOW", "PYTHON")

Figures = dict[str, float]


class BenchmarkError(OrreryError):
    """Something did not succeed, so that there is nothing to measure."""


def complete(root: Path, **environment: str) -> None:
    """Add what every project has, and let this process's environment point to the project in `root`."""
    shutil.copytree(ROOT / "dags", root / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "include").symlink_to(ROOT / "include")
    shutil.copy(ROOT / "dbt" / "profiles.yml", root / "dbt")
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        del os.environ[name]
    os.environ |= {
        "ORRERY_PROJECT_DIR": str(root),
        "ORRERY_STATE_DIR": str(root / ".orrery"),
        "ORRERY_PORT": str(find_free()),
        "PYTHONPATH": str(root / "include"),
        **environment,
    }


@contextmanager
def started(root: Path) -> Iterator[Stack]:
    """The project's stack, which is stopped at the end whatever happens."""
    stack = Stack(root, root / ".orrery")
    try:
        stack.up()
        yield stack
    finally:
        # A second Ctrl-C must not leave half of it running.
        before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        stack.down()
        for number, handler in before.items():
            signal.signal(number, handler)


def call(command: list[str], extra: dict[str, str] | None = None) -> None:
    """Run a command quietly; one that fails is an error with what it said."""
    env = os.environ | (extra or {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stdout + done.stderr)[-4000:]
        raise BenchmarkError(f"{' '.join(command)}: exit code {done.returncode}\n{said}")


def tree_cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and all below it; an ended one counts for the parent that waited for it."""
    total = 0.0
    for child in process.children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since
            total += sum(child.cpu_times()[:4])
    return total + sum(process.cpu_times()[:4])


def seconds(text: str) -> float:
    """An ISO 8601 time in seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()
