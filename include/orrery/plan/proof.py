"""What a DAG is made with. One that a build has tried with the same need not be tried again in Airflow."""

from __future__ import annotations

import hashlib
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from orrery.plan.installed import absent

_PACKAGES = ("apache-airflow-core", "apache-airflow-task-sdk", "astronomer-cosmos", "pydantic")
# Settings that become part of a DAG.
_SETTINGS = ("ORRERY_DBT_QUEUE", "ORRERY_LANDING_ZONE")


def proof() -> str:
    """A digest of this code, of the packages that make DAGs, and of the settings that DAGs hold."""
    settings = [os.environ.get(name, "") for name in _SETTINGS]
    return hashlib.blake2b(f"{_code()}{settings}{sorted(absent())}".encode(), digest_size=12).hexdigest()


@cache
def _code() -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    for package in _PACKAGES:
        try:
            digest.update(version(package).encode())
        except PackageNotFoundError:
            digest.update(b"-")
    return digest.hexdigest()
