"""Which environment variables dbt shows to the files of a project: the user's, and none of Airflow's.

Whatever `env_var` gives to a model is in its compiled SQL, in dbt's artifacts and in the published docs. A
worker's environment also has Airflow's connections and keys. Only dbt's Jinja is kept from them: the
environment of the process stays as it is, for Airflow's own threads and for the clients of warehouses.

`python -m orrery.manifest.dbt_environment ARGUMENTS` is dbt's command line with the same rule.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress

from orrery.config.environment import is_of_airflow
from orrery.config.project import Project
from orrery.manifest.known_secrets import DBT_SECRET, of_airflow
from orrery.manifest.profile import ProfileError, read_profile

_ENV_VAR = re.compile(r"""env_var\(\s*["'](\w+)["']""")
_HINT = (
    "\n  Orrery shows no variable of Airflow's to dbt, and none that holds a secret of Airflow's."
    "\n  Set one of another name, see docs/secrets.md."
)


def visible(environment: Mapping[str, str], own: frozenset[str] = frozenset()) -> dict[str, str]:
    """The variables that dbt may show: not Airflow's, nor others with the same secrets.

    :param own: variables that are dbt's whatever they hold, because the profile is made of them
    """
    secrets = of_airflow(environment)
    return {
        name: value
        for name, value in environment.items()
        if not is_of_airflow(name)
        and (name.startswith(DBT_SECRET) or name in own or not any(secret in value for secret in secrets))
    }


def without_airflow(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program that runs dbt for itself."""
    return {name: value for name, value in environment.items() if not is_of_airflow(name)}


def hide_from_dbt(project: Project) -> None:
    """From now on, dbt in this process shows only what is visible."""
    from dbt.cli import requires

    own = _of_profile(project)
    # dbt takes its environment at the beginning of each command.
    vars(requires)["get_env"] = lambda: visible(os.environ, own)


def explained(message: str) -> str:
    """A message of dbt, which may lack a variable that it is not shown."""
    missing = re.search(r"Env var required but not provided: '(\w+)'", message)
    return message + _HINT if missing and missing[1] in os.environ else message


def _of_profile(project: Project) -> frozenset[str]:
    with suppress(ProfileError, OSError):
        return frozenset(_ENV_VAR.findall(read_profile(project).file.read_text(encoding="utf-8")))
    return frozenset()


def main() -> None:
    """dbt's command line."""
    from dbt.cli.main import cli

    hide_from_dbt(Project.find())
    cli(prog_name="dbt")


if __name__ == "__main__":
    main()
