"""dbt packages: where they lie, which are there, and what dbt has to know of them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orrery.config.project import Project

ELEMENTARY = "elementary"
# For dbt's YAML: whether Elementary's models and tests are there (`1`) or not (`0`).
SWITCH = "ORRERY_ELEMENTARY"
# For its macros: whether a command hands its results to Elementary.
RESULTS = "ORRERY_ELEMENTARY_RESULTS"
_FOLDER = "ORRERY_DBT_PACKAGES"


def packages_folder(project: Project) -> Path:
    """Where dbt packages lie: ORRERY_DBT_PACKAGES, else dbt_packages in the dbt project."""
    return project.dbt_dir / os.environ.get(_FOLDER, "dbt_packages")


def installed(project: Project) -> list[str]:
    """The names of the packages that dbt loads, whoever has put them there."""
    try:
        entries = sorted(packages_folder(project).iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [path.name for path in entries if path.is_dir() and not path.name.startswith("__")]


def has_elementary(project: Project) -> bool:
    """Whether Elementary takes part: when it is installed, unless ORRERY_ELEMENTARY says otherwise."""
    switch = os.environ.get(SWITCH)
    return switch == "1" if switch else ELEMENTARY in installed(project)


def state(project: Project) -> dict[str, Any]:
    """What of the packages changes the manifest, as JSON."""
    return {"installed": installed(project), ELEMENTARY: has_elementary(project)}


def variables(project: Project) -> dict[str, str]:
    """The environment variables by which dbt's files learn of the packages, the same for all of dbt's users.

    dbt parses everything anew when one of them changes.
    """
    return {
        _FOLDER: str(packages_folder(project).absolute()),
        SWITCH: "1" if has_elementary(project) else "0",
    }


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
