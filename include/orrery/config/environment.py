"""The environment of a project, such as dev or prod: settings of its own, and a part of its pipelines' names.

Everything that differs between environments is an environment variable. Where several environments share one
Airflow, its processes cannot tell them apart: then each checkout has its variables in a file.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from orrery.config.errors import ConfigError, Problem

ENVIRONMENT = "ORRERY_ENVIRONMENT"
FILE = "orrery.env"
_NAME = re.compile(r"[a-z0-9]+")
# Airflow's settings, connections and variables, and what docker compose hands on under names of ours. What
# Airflow tells a task about its run is not secret, and serves for comments on statements.
_OF_AIRFLOW = re.compile(r"_?AIRFLOW(?!_CTX_)|ORRERY_\w*(PASSWORD|SECRET|KEY|TOKEN)$", re.IGNORECASE)
_LINE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def environment() -> str:
    """The name of the environment; empty where only one uses this Airflow. Raises ConfigError."""
    name = os.environ.get(ENVIRONMENT, "")
    if name and not _NAME.fullmatch(name):
        raise ConfigError(
            [Problem(ENVIRONMENT, f"{name!r} cannot be the name of an environment", "Use a-z and 0-9 only.")]
        )
    return name


def is_of_airflow(variable: str) -> bool:
    """Whether an environment variable is one of Airflow's own, which dbt must not see."""
    return _OF_AIRFLOW.match(variable) is not None


def named(name: str) -> str:
    """The name of a pipeline with its environment, such as forex_prod; it is not added twice."""
    suffix = f"_{environment()}"
    return name if suffix == "_" or name.endswith(suffix) else name + suffix


def read_settings(root: Path) -> None:
    """Take over what orrery.env of a project says, whatever the process had before. Raises ConfigError.

    It is stronger, because the process may be one of an Airflow that has several projects.
    """
    file = root / FILE
    if not file.is_file():
        return
    for number, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            problem = Problem(f"{FILE}:{number}", "this is no setting", "Write NAME=value.")
            raise ConfigError([problem])
        os.environ[found[1]] = found[2].strip()
