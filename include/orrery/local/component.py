"""What supervisord starts: clear away a dead predecessor's rest, then become the component.

`python -m orrery.local.component <name>`. Becoming (exec) keeps the process id that supervisord watches.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from orrery.local import processes
from orrery.local.environment import component_env
from orrery.local.layout import DAG_PROCESSOR, POSTGRES, SCHEDULER, TRIGGERER, Layout
from orrery.local.state import load_saved, load_secrets


def airflow_command(name: str) -> list[str]:
    """The command of an Airflow part. No log servers: they listen on every interface, and the logs are here.

    -P keeps the project's own folders (`dbt/`) out of Python's module search path. What works in forks of
    itself comes with what these import.
    """
    module = "orrery.execute.preloaded" if name in (SCHEDULER, DAG_PROCESSOR) else "airflow"
    command = [sys.executable, "-P", "-m", module, name]
    return [*command, "--skip-serve-logs"] if name in (SCHEDULER, TRIGGERER) else command


def clear_predecessor(layout: Layout, name: str) -> None:
    """End what a killed predecessor left: workers and their tasks, or PostgreSQL's backends."""
    if name != POSTGRES:
        left = processes.find(layout.marker, name)
        if left:
            print(f"orrery: ending {len(left)} processes of the {name} before this one", flush=True)
            processes.end_orphans(left, grace=10)
        return
    from orrery.local.postgres import clear_stale_pid  # the other components need none of it

    # Without their postmaster the backends only keep a new one from starting.
    processes.end(processes.find_postgres(layout.pgdata), grace=0, first=signal.SIGKILL)
    clear_stale_pid(layout.pgdata)


def main(name: str) -> NoReturn:
    """Become the component `name` of the stack that the environment names. Never returns."""
    layout = Layout.of_environment()
    saved, keys = load_saved(layout), load_secrets(layout)
    if saved is None or keys is None:
        sys.exit(f"orrery: {layout.state} holds no complete state; run ./orrery up")
    clear_predecessor(layout, name)
    env = component_env(layout, saved, keys, name)
    if name != POSTGRES:
        command = airflow_command(name)
        os.execve(command[0], command, env)
    from orrery.local import pgwheel, postgres

    command = postgres.command(layout)
    owner = pgwheel.account()
    if owner:
        pgwheel.become(owner)
    os.execve(command[0], command, env)


if __name__ == "__main__":
    main(sys.argv[1])
