"""A Celery worker beside the local stack, in the foreground and under nobody's supervision.

The stack itself needs no more than Airflow's own variables: AIRFLOW__CORE__EXECUTOR=CeleryExecutor and the
broker's address.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from orrery.local.environment import component_env
from orrery.local.errors import StackError
from orrery.local.layout import WORKER, Layout
from orrery.local.state import load_saved, load_secrets

BROKER = "AIRFLOW__CELERY__BROKER_URL"


def become_worker(layout: Layout, *, queues: str, slots: int) -> NoReturn:
    """Replace this process by a worker. Without a stack or a broker: StackError.

    :param queues: names with commas between them
    :param slots: how many tasks it runs at once
    """
    saved, keys = load_saved(layout), load_secrets(layout)
    if saved is None or keys is None:
        raise StackError(f"the stack was never started\n  at: {layout.state}\n  fix: run ./orrery up first")
    if not os.environ.get(BROKER):
        raise StackError(
            f"{BROKER} is not set\n  at: the environment\n"
            "  fix: start the worker with the same Airflow variables as ./orrery up, see docs/celery.md"
        )
    command = [sys.executable, "-P", "-m", "orrery.execute.preloaded", "celery", "worker"]
    options = {
        "--queues": queues,
        "--concurrency": str(slots),
        # Celery tells workers apart by their names, and there may be several on this machine.
        "--celery-hostname": f"worker-{os.getpid()}",
    }
    # Workers have nothing to tell each other. No log server: the logs are here, and it would listen on
    # every interface.
    flags = ["--without-mingle", "--without-gossip", "--skip-serve-logs"]
    command += [*(part for option in options.items() for part in option), *flags]
    os.execve(command[0], command, component_env(layout, saved, keys, WORKER))
