"""A Celery worker's sign of life, for orrery.deploy.health: a file that it touches every few seconds.

Celery's own question (`celery inspect ping`) costs seconds of imports each time that it is asked.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

# Celery sends its broker a heartbeat every two seconds, for as long as it reaches it.
_PATIENCE = 60.0


def _file() -> Path:
    return Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser() / "worker.alive"


def keep() -> None:
    """Touch the file with every heartbeat of the Celery worker that this process becomes."""
    from celery.signals import heartbeat_sent  # type: ignore[import-untyped]

    heartbeat_sent.connect(_touch, weak=False)


def silence() -> str | None:
    """Why the worker of this machine does not seem to live, in words; None when it does."""
    try:
        seconds = time.time() - _file().stat().st_mtime
    except FileNotFoundError:
        return "the worker has not reached its broker yet"
    return None if seconds < _PATIENCE else f"the worker has not reached its broker for {seconds:.0f} s"


def _touch(**_: object) -> None:
    _file().touch()
