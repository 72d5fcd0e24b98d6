"""The launcher hands over to this module."""

from __future__ import annotations

import sys

import click

from orrery import __version__
from orrery.cli.checks import lint, test
from orrery.cli.init_env import init_env
from orrery.cli.pipelines import retry, run
from orrery.cli.project import build, dbt, schema
from orrery.cli.report import report
from orrery.cli.stack import down, logs, status, up
from orrery.config.errors import OrreryError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="orrery")
def main() -> None:
    """Runs dbt projects as Airflow pipelines."""


for command in (run, retry, report, up, down, status, logs, build, dbt, test, lint, schema, init_env):
    main.add_command(command)


if __name__ == "__main__":
    try:
        main(prog_name="./orrery")
    except OrreryError as error:
        click.secho(str(error), fg="red", err=True)
        sys.exit(1)
