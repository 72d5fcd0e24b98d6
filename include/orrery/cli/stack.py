"""`orrery up`, `down`, `status`, `logs` and `worker`: the embedded stack."""

from __future__ import annotations

import os
import subprocess

import click
from rich.table import Table

from orrery.cli.session import current_manifests, new_console, reporter
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.local import Stack
from orrery.local.layout import Layout
from orrery.local.worker import become_worker


@click.command()
def up() -> None:
    """Start PostgreSQL and Airflow on this machine."""
    console, project = new_console(), Project.find()
    stack = Stack(project.root)
    info = stack.up(reporter(console))
    try:
        current_manifests(project, stack, info, reporter(console))
    except OrreryError as error:
        # The stack serves all the same; Airflow shows this error too.
        console.print(str(error), style="red", markup=False, highlight=False)
    console.print(f"Airflow:   {info.url}", highlight=False)
    console.print(f"user:      {info.username}", highlight=False)
    console.print(f"password:  {info.password}", highlight=False)


@click.command()
def down() -> None:
    """Stop everything that `up` started; the data stays."""
    console = new_console()
    Stack(Project.find().root).down(reporter(console))


@click.command()
def status() -> None:
    """Show what runs, and what was restarted after a crash."""
    console = new_console()
    stack = Stack(Project.find().root)
    info = stack.info()
    if info is None or not info.running:
        console.print("The stack is not running; start it with ./orrery up", highlight=False)
        raise SystemExit(1)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("component", "state", "pid", "up", "restarts", "last exit"):
        table.add_column(column)
    components = stack.status()
    for part in components:
        uptime = "" if part.uptime_seconds is None else f"{part.uptime_seconds:.0f} s"
        pid = "" if part.pid is None else str(part.pid)
        table.add_row(part.name, part.state, pid, uptime, str(part.restarts), part.last_exit or "")
    console.print(table)
    console.print(f"Airflow: {info.url}", highlight=False)
    if any(part.state != "running" for part in components):
        raise SystemExit(1)


@click.command()
@click.argument("component", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on showing what is added.")
@click.option("--lines", "-n", default=50, show_default=True, help="How many lines of each log.")
def logs(component: str | None, follow: bool, lines: int) -> None:
    """Show the logs of the stack, or of one COMPONENT of it."""
    files = [str(path) for path in Stack(Project.find().root).log_files(component)]
    if not files:
        raise OrreryError("There are no logs yet.\n  ./orrery up")
    # Options that the tail of macOS has, too.
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), *files]
    try:
        raise SystemExit(subprocess.run(command, check=False).returncode)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


@click.command()
@click.option("--queues", "-q", help="Which tasks it takes; by default those of all queues.")
@click.option("--slots", "-n", default=4, show_default=True, help="How many tasks it runs at once.")
def worker(queues: str | None, slots: int) -> None:
    """Run tasks for a stack whose executor is CeleryExecutor, until Ctrl-C."""
    everything = dict.fromkeys(["default", os.environ.get("ORRERY_DBT_QUEUE") or "default"])
    become_worker(Layout.of(Project.find().root), queues=queues or ",".join(everything), slots=slots)
