"""`orrery build`, `dbt` and `schema`: the dbt project and its files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from orrery.cli.session import new_console, reporter
from orrery.config.project import Project
from orrery.config.schema import stale_schemas, write_schemas
from orrery.local import Stack
from orrery.manifest import packages
from orrery.manifest.build import build_manifests


def dbt_environment(project: Project) -> dict[str, str]:
    """This process's environment, with the way into the local warehouse when the stack was ever started."""
    stack = Stack(project.root)
    return {**os.environ, **(stack.dbt_env() if stack.info() is not None else {})}


@click.command()
@click.option("--packages", "fetch", is_flag=True, help="Try again to install dbt packages.")
def build(fetch: bool) -> None:
    """Parse the dbt project and write the manifests that Airflow reads."""
    console, project = new_console(), Project.find()
    os.environ.update(dbt_environment(project))
    built = build_manifests(project, reporter(console), fetch_packages=fetch)
    for name, count in built.nodes.items():
        console.print(f"{name}: {count} nodes", highlight=False)
    for error in built.errors.values():
        console.print(f"\n{error}", style="red", markup=False, highlight=False, soft_wrap=True)
    if built.errors:
        raise SystemExit(1)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dbt(arguments: tuple[str, ...]) -> None:
    """Run dbt in this project against the local warehouse; takes dbt's own ARGUMENTS."""
    project = Project.find()
    environment = dbt_environment(project) | packages.variables(project)
    environment.setdefault("DBT_PROJECT_DIR", str(project.dbt_dir))
    environment.setdefault("DBT_PROFILES_DIR", str(project.profiles_dir))
    command = [str(Path(sys.executable).parent / "dbt"), *arguments]
    try:
        raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; fail when a committed schema is stale.")
def schema(check: bool) -> None:
    """Write the JSON Schemas of the YAML blocks, for editors."""
    project = Project.find()
    if not check:
        write_schemas(project)
        return
    stale = stale_schemas(project)
    for path in stale:
        click.echo(f"{project.relative(path)}: not the schema of the models; run ./orrery schema", err=True)
    if stale:
        raise SystemExit(1)
