"""`orrery test` and `orrery lint`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

from orrery.config.project import Project

# What takes longest comes first. Two processes share the files: one has the tests with a stack in common.
FOLDERS = ("pipelines", "browser", "integration", "differential", "containers", "integrity", "unit")
_BOTH = ("-n", "2", "--no-loadscope-reorder")


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--only", metavar="FOLDERS", help=f"Only these folders of tests/: {', '.join(FOLDERS)}.")
@click.option(
    "--soak", metavar="MINUTES", type=float, help="Compare drawn projects with dbt build this long."
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(only: str | None, soak: float | None, arguments: tuple[str, ...]) -> None:
    """Check the code, then run the tests; further ARGUMENTS go to pytest, or with --soak to its search."""
    project = Project.find()
    if soak is not None:
        raise SystemExit(_soak(project, [f"{soak:g}", *arguments]))
    folders = only.split(",") if only else list(FOLDERS)
    for folder in folders:
        if folder not in FOLDERS:
            raise click.UsageError(f"There is no folder tests/{folder}; known: {', '.join(FOLDERS)}.")
    failed = [] if only or arguments else failing_checks(project)
    paths = [] if any(Path(argument.split("::")[0]).exists() for argument in arguments) else folders
    options = arguments or _BOTH
    command = [sys.executable, "-m", "pytest", *(f"tests/{folder}" for folder in paths), *options]
    code = subprocess.run(command, cwd=project.root, check=False).returncode
    for name in failed:
        click.secho(f"failed: {name}", fg="red", err=True)
    raise SystemExit(code or bool(failed))


def _soak(project: Project, arguments: list[str]) -> int:
    """Run tests/differential/soak.py; returns its exit code."""
    path = os.pathsep.join(str(project.root / folder) for folder in ("include", "tests"))
    command = [sys.executable, "-m", "differential.soak", *arguments]
    return subprocess.run(
        command, cwd=project.root, env=os.environ | {"PYTHONPATH": path}, check=False
    ).returncode


@click.command()
def lint() -> None:
    """Check code, SQL, YAML, schemas and shell scripts."""
    raise SystemExit(bool(failing_checks(Project.find())))


def failing_checks(project: Project) -> list[str]:
    """Run every static check; returns the names of those that fail."""
    tools = Path(sys.executable).parent
    commands: dict[str, list[str | Path]] = {
        "ruff": [tools / "ruff", "check", "."],
        "ruff format": [tools / "ruff", "format", "--check", "."],
        "mypy": [tools / "mypy"],
        "sqlfluff": [tools / "sqlfluff", "lint", "dbt", "--processes", "2", "--disable-progress-bar"],
        "yamllint": [tools / "yamllint", "--strict", "."],
        "schema": [sys.executable, "-m", "orrery.cli", "schema", "--check"],
    }
    if shellcheck := shutil.which("shellcheck"):
        commands["shellcheck"] = [shellcheck, "orrery", ".ci/run"]
    failing = []
    for name, command in commands.items():
        started = time.monotonic()
        passed = subprocess.run(command, cwd=project.root, check=False).returncode == 0
        click.echo(f"{name}: {'ok' if passed else 'FAILED'} ({time.monotonic() - started:.1f} s)")
        if not passed:
            failing.append(name)
    return failing
