"""`orrery build`, `dbt` and `schema`: the dbt project and its files."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from orrery.cli.prover import prover
from orrery.cli.session import new_console, reporter
from orrery.config.errors import OrreryError, causes_of
from orrery.config.project import Project
from orrery.config.schema import stale_schemas, write_schemas
from orrery.local import Stack
from orrery.manifest import packages
from orrery.manifest.build import build_manifests

_NO_PIPELINE = """\
{folder}: there is no pipeline yet, so Airflow has nothing to show.
  Put a file such as {folder}/daily.yml there. One line is enough:
    select: "*"
  See docs/pipelines.md, and ./orrery build again."""


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
    report = reporter(console)
    with prover(project, report) as prove:
        built = build_manifests(project, report, fetch_packages=fetch, prove=prove)
    for name, count in built.nodes.items():
        console.print(f"{name}: {count} nodes", highlight=False)
    for cause in causes_of(built.errors.values()):
        console.print(f"\n{cause}", style="red", markup=False, highlight=False, soft_wrap=True)
    if built.errors:
        raise SystemExit(1)
    if not built.nodes:
        raise OrreryError(_NO_PIPELINE.format(folder=project.relative(project.pipelines_dir)))


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def dbt(arguments: tuple[str, ...]) -> None:
    """Run dbt in this project against the local warehouse; takes dbt's own ARGUMENTS."""
    project = Project.find()
    environment = dbt_environment(project) | packages.variables(project)
    environment.setdefault("DBT_PROJECT_DIR", str(project.dbt_dir))
    environment.setdefault("DBT_PROFILES_DIR", str(project.profiles_dir))
    command = [sys.executable, "-P", "-m", "orrery.manifest.dbt_environment", *arguments]
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
