"""The launcher hands over to this module."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from orrery import __version__
from orrery.cli.checks import lint, test
from orrery.cli.init_env import init_env
from orrery.cli.pipelines import retry, run
from orrery.cli.project import build, dbt, schema
from orrery.cli.report import report
from orrery.cli.stack import down, logs, status, up, worker
from orrery.config.errors import OrreryError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orrery")
def main() -> None:
    """Runs dbt projects as Airflow pipelines."""
    check_project_dir()


def check_project_dir() -> None:
    """Raise OrreryError when ORRERY_PROJECT_DIR names a folder that is no project."""
    configured = os.environ.get("ORRERY_PROJECT_DIR")
    if not configured or Path(configured, "dbt", "dbt_project.yml").expanduser().is_file():
        return
    # In the launcher's own folder there may be no dbt project yet, which the commands tell.
    if Path(configured).expanduser().absolute() != Path(__file__).resolve().parents[3]:
        raise OrreryError(
            f"ORRERY_PROJECT_DIR is {configured!r}, which is no project: it has no dbt/dbt_project.yml.\n"
            "  Name the folder that holds dbt/, or unset the variable."
        )


for command in (run, retry, report, up, down, status, logs, worker, build, dbt, test, lint, schema, init_env):
    main.add_command(command)


if __name__ == "__main__":
    try:
        main(prog_name="./orrery")
    except OrreryError as error:
        click.secho(str(error), fg="red", err=True)
        sys.exit(1)
