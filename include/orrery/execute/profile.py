"""dbt's profile: the project's own profiles.yml, or one made of an Airflow connection."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret
from cosmos.config import ProfileConfig

from orrery.config.project import Project
from orrery.manifest.known_secrets import known, learn
from orrery.manifest.profile import ProfileError, read_output, read_profile, what_is_set
from orrery.manifest.store import write_whole

# The id of the Airflow connection by which dbt reaches the warehouse, in place of what profiles.yml says.
CONNECTION = "ORRERY_WAREHOUSE_CONNECTION"
_FOLDER = "profiles"
# What a target says beside how to reach the warehouse.
_KEPT = frozenset(
    {
        *("schema", "dataset", "threads", "location", "priority", "maximum_bytes_billed", "api_endpoint"),
        *("job_execution_timeout_seconds", "job_retries", "execution_project"),
    }
)


def profile_config(project: Project) -> ProfileConfig:
    """The profile that dbt itself would use; raises ProfileError where there is none."""
    profile = read_profile(project)
    return ProfileConfig(
        profile_name=profile.name, target_name=profile.target, profiles_yml_filepath=profile.file
    )


def use_connection(project: Project, folder: Path) -> None:
    """From now on dbt reaches the warehouse in this process by the connection that is chosen, if any is.

    The profile, without secrets, is written below `folder`; passwords are in environment variables that dbt
    hides. Airflow masks them in logs, as it does the passwords of connections. Raises ProfileError.
    """
    if connection := os.environ.get(CONNECTION):
        _use(project, folder, connection)
    learn(project)
    mask_secret(list(known()))


def _use(project: Project, folder: Path, connection: str) -> None:
    text, secrets = _profile_of(project, connection)
    place = folder / _FOLDER
    # All tasks of a run write it, some while others read it.
    write_whole(place / "profiles.yml", text.encode())
    os.environ.update(secrets)
    os.environ["DBT_PROFILES_DIR"] = str(place)


# The second time the project's profile would be the one that is made here.
@cache
def _profile_of(project: Project, connection: str) -> tuple[str, dict[str, str]]:
    """The text of profiles.yml, and the environment variables that it reads."""
    # It imports the mappings of all warehouses.
    from cosmos.profiles import get_automatic_profile_mapping

    profile = read_profile(project)
    output = what_is_set(read_output(project))
    kept = {key: _typed(value) for key, value in output.items() if key in _KEPT}
    try:
        mapping = get_automatic_profile_mapping(connection, kept)
        if mapping.dbt_profile_type != profile.adapter:
            raise ProfileError(
                f"{CONNECTION}: the connection {connection!r} is for {mapping.dbt_profile_type}, the target "
                f"{profile.target!r} of {project.relative(profile.file)} is of the type {profile.adapter}."
            )
        text = mapping.get_profile_file_contents(profile.name, profile.target)
        variables = dict(mapping.env_vars)
    except AirflowNotFoundException:
        raise ProfileError(
            f"{CONNECTION}: Airflow has no connection {connection!r}.\n  Add it under Admin, Connections."
        ) from None
    except ValueError as error:
        raise ProfileError(
            f"{CONNECTION}: Cosmos makes no profile of the connection {connection!r}: {error}\n"
            "  See its list of profile mappings."
        ) from None
    # dbt keeps the values of variables of this name out of its logs and artifacts.
    secrets = {f"DBT_ENV_SECRET_{name}": value for name, value in variables.items()}
    # By whole words, because one name may be the beginning of another.
    text = re.sub(r"\w+", lambda word: f"DBT_ENV_SECRET_{word[0]}" if word[0] in variables else word[0], text)
    return text, secrets


def _typed(value: Any) -> Any:
    """What dbt makes of a text that it has rendered."""
    return yaml.safe_load(value) if isinstance(value, str) else value
