"""Which profile and target dbt uses for the project."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2.sandbox import SandboxedEnvironment

from orrery.config.environment import is_of_airflow
from orrery.config.errors import OrreryError
from orrery.config.project import Project


class ProfileError(OrreryError):
    """The profile that dbt_project.yml names, or its target, cannot be found."""


@dataclass(frozen=True)
class Profile:
    """A profile's name, its target's name, and the file that defines both.

    `adapter` is the type of the target, such as `postgres` or `bigquery`; empty where dbt would find none.
    """

    name: str
    target: str
    file: Path
    adapter: str


def read_profile(project: Project, target: str | None = None) -> Profile:
    """The profile that dbt itself would use: from dbt_project.yml, profiles.yml and DBT_TARGET.

    :param target: another target than dbt would choose

    Cosmos wants profile and target by name, and dbt's partial parsing holds only for the same names:
    everybody who calls dbt gets them here. Raises ProfileError when profiles.yml lacks the profile.
    """
    return _find(project, target)[0]


def read_output(project: Project) -> dict[str, Any]:
    """How dbt reaches the warehouse: the settings of the target in profiles.yml, as dbt renders them.

    They hold secrets. For those who cannot pay for dbt, which costs seconds to import. Raises ProfileError.
    """
    found, profile = _find(project)
    output = (profile.get("outputs") or {}).get(found.target)
    if not isinstance(output, dict):
        raise ProfileError(
            f"{project.relative(found.file)}: the profile {found.name!r} has no target {found.target!r}.\n"
            "  Add it to its outputs, or choose another one."
        )
    return {key: _rendered(value) for key, value in output.items()}


def what_is_set(output: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a target that say something: None, for what is not set, is rendered as a text."""
    return {key: value for key, value in output.items() if value not in (None, "", "None")}


def _find(project: Project, target: str | None = None) -> tuple[Profile, dict[str, Any]]:
    """The profile, and what the file says of it."""
    file = project.profiles_dir / "profiles.yml"
    name = str(_read(project, project.dbt_dir / "dbt_project.yml").get("profile"))
    profile = _read(project, file).get(name)
    if not isinstance(profile, dict):
        raise ProfileError(
            f"{project.relative(file)}: there is no profile {name!r}, which dbt_project.yml names.\n"
            "  Add it, or change the profile in dbt_project.yml."
        )
    target = target or os.environ.get("DBT_TARGET") or _render(str(profile.get("target", "default")))
    outputs = profile.get("outputs")
    output = outputs.get(target) if isinstance(outputs, dict) else None
    kind = str(output.get("type", "")) if isinstance(output, dict) else ""
    return Profile(name, target, file, kind), profile


def _read(project: Project, path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
    except FileNotFoundError:
        raise ProfileError(f"{project.relative(path)}: there is no such file.\n  Add it.") from None
    except yaml.YAMLError as error:
        raise ProfileError(f"{project.relative(path)}: not valid YAML: {error}\n  Mend it.") from None
    return content if isinstance(content, dict) else {}


def _rendered(value: Any) -> Any:
    # A key for BigQuery is a mapping.
    if isinstance(value, dict):
        return {key: _rendered(each) for key, each in value.items()}
    return _render(value) if isinstance(value, str) else value


def _render(text: str) -> str:
    # As in dbt: the text of a profile must not run code in Airflow's processes.
    jinja = SandboxedEnvironment(autoescape=False)
    # What dbt makes of these, their readers make of text.
    jinja.filters.update(dict.fromkeys(("as_number", "as_bool", "as_native", "as_text"), str))
    return jinja.from_string(text).render(env_var=_env_var)


def _env_var(name: str, default: str | None = None) -> str:
    value = default if is_of_airflow(name) else os.environ.get(name, default)
    if value is None:
        raise ProfileError(f"profiles.yml needs the environment variable {name}.\n  Set it.")
    return value
