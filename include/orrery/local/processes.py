"""Find and end exactly this stack's processes, by the mark in their environment, never by name."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

STACK = "ORRERY_STACK"
COMPONENT = "ORRERY_COMPONENT"
_ON_KILL = 3.0  # seconds for on_kill to end the task
_REPORT = 3.0  # seconds for a worker to tell Airflow of a task's end


def _ours(process: psutil.Process, marker: str, component: str | None) -> bool:
    try:
        environment = process.environ()
    except (psutil.Error, OSError):
        return False  # another user's process: not ours
    if environment.get(STACK) != marker:
        return False
    return component is None or environment.get(COMPONENT) == component


def _works_in(process: psutil.Process, directory: str) -> bool:
    try:
        return process.cwd() == directory and process.name() == "postgres"
    except (psutil.Error, OSError):
        return False


def _kin() -> set[int]:
    """This process and its ancestors: a task may run `./orrery`, and must not end itself by it."""
    pids = {os.getpid()}
    with suppress(psutil.Error):
        pids.update(parent.pid for parent in psutil.Process().parents())
    return pids


def find(marker: str, component: str | None = None) -> list[psutil.Process]:
    """List the live processes of the stack `marker`, or of one of its components."""
    kin = _kin()
    return [
        process
        for process in psutil.process_iter()
        if process.pid not in kin and alive(process) and _ours(process, marker, component)
    ]


def find_postgres(data: Path) -> list[psutil.Process]:
    """List the PostgreSQL processes that work in `data`.

    PostgreSQL overwrites its environment with its process title, but always works in its directory.
    """
    return [process for process in psutil.process_iter() if alive(process) and _works_in(process, str(data))]


def alive(process: psutil.Process) -> bool:
    """True while the very process (pid and creation time) runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def leads_task(process: psutil.Process) -> bool:
    """Tell a task from the scheduler's other processes: it leads a process group below a worker."""
    try:
        parent = _parent(process)
        return os.getpgid(process.pid) == process.pid and os.getpgid(parent) == _parent(
            psutil.Process(parent)
        )
    except (OSError, psutil.Error):
        return False


def send(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)  # psutil checks the creation time first
        except psutil.Error:
            continue


def wait_gone(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Wait until the processes are gone; return those that are left after `seconds`."""
    deadline = time.monotonic() + seconds
    left = [process for process in processes if alive(process)]
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [process for process in left if alive(process)]
    return left


def end(
    processes: Iterable[psutil.Process], grace: float, first: int = signal.SIGTERM
) -> list[psutil.Process]:
    """End the processes: signal `first`, then SIGKILL after `grace` seconds. Return what survived."""
    chosen = list(processes)
    send(chosen, first)
    left = wait_gone(chosen, grace)
    send(left, signal.SIGKILL)
    return wait_gone(left, 10)


def end_orphans(processes: Iterable[psutil.Process], grace: float) -> list[psutil.Process]:
    """End what a dead parent left: its workers and, below them, tasks. Return what survived.

    The tasks get `grace` seconds for their clean-up. The workers themselves ignore SIGTERM and would
    wait for work for ever, so once no task is left they have a few seconds to report its end.
    """
    chosen = list(processes)
    pids = {process.pid for process in chosen}
    tasks = [process for process in chosen if _parent(process) in pids]
    send(chosen, signal.SIGTERM)
    # Airflow answers SIGTERM with the operator's on_kill and goes on with the task; SIGINT interrupts it.
    send(wait_gone(tasks, _ON_KILL), signal.SIGINT)
    wait_gone(tasks, grace - _ON_KILL)
    left = wait_gone(chosen, _REPORT)
    send(left, signal.SIGKILL)
    return wait_gone(left, 10)


def end_postgres(data: Path, grace: float) -> list[psutil.Process]:
    """Stop the server in `data`: fast shutdown, then SIGKILL after `grace` seconds. Return survivors."""
    found = find_postgres(data)
    pids = {process.pid for process in found}
    # Only the postmaster gets the signal: to a backend SIGINT means "cancel the query".
    postmasters = [process for process in found if _parent(process) not in pids]
    send(postmasters, signal.SIGINT)
    left = wait_gone(found, grace)
    send(left, signal.SIGKILL)
    return wait_gone(left, 10)


def _parent(process: psutil.Process) -> int:
    try:
        return process.ppid()
    except psutil.Error:
        return 0
