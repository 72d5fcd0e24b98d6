"""The way down: stop everything in order, end what an earlier stack left, and make sure nothing is left."""

from __future__ import annotations

import http.client
import signal
import time
import xmlrpc.client
from collections.abc import Callable
from pathlib import Path

import psutil

from orrery.local import processes
from orrery.local.errors import StackError
from orrery.local.layout import AIRFLOW_COMPONENTS, POSTGRES, SCHEDULER, TRIGGERER, WORKER, Layout
from orrery.local.state import Saved
from orrery.local.supervisor import Supervisor

_AIRFLOW_GRACE = 25.0  # seconds; supervisord kills after 20
_POSTGRES_GRACE = 25.0
_TRIGGER_GRACE = 5.0  # for triggers to be cancelled; the next start takes them up again
_ORPHAN_GRACE = 8.0
_TASK_GRACE = 15.0
_INTERRUPT_AFTER = 3.0  # until then on_kill may end the task by itself: dbt cancels its queries
_KILL_AFTER = 8.0


def stop(layout: Layout, saved: Saved | None, report: Callable[[str], None]) -> None:
    """Stop the stack in order, whatever is left of it. Something that survives SIGKILL: StackError."""
    if saved is not None:
        running = Supervisor(saved.control_socket)
        if running.reachable():
            try:
                _orderly(running, layout, report)
            except (OSError, http.client.HTTPException, xmlrpc.client.Error):
                report("the supervisor does not answer any more; ending its processes one by one")
    end_leftovers(layout, lambda _: None)
    layout.supervisord_pid.unlink(missing_ok=True)
    if saved is not None:
        control = Path(saved.control_socket)
        control.unlink(missing_ok=True)
        if control.parent != layout.run and control.parent.is_dir():
            control.parent.rmdir()


def _orderly(running: Supervisor, layout: Layout, report: Callable[[str], None]) -> None:
    report("stopping Airflow")
    running.stop(SCHEDULER)
    processes.end_orphans(processes.find(layout.marker, WORKER), grace=_ORPHAN_GRACE)
    _end_tasks(running, layout, report)
    for name in AIRFLOW_COMPONENTS:
        if name != TRIGGERER:
            running.stop(name)
    # Stopping by itself, the triggerer overlooks its runner's end for ten seconds. So the runner goes first.
    pid = running.processes()[TRIGGERER]["pid"]
    runners = [process for process in processes.find(layout.marker, TRIGGERER) if process.pid != pid]
    processes.send(runners, signal.SIGTERM)
    processes.wait_gone(runners, _TRIGGER_GRACE)
    running.stop(TRIGGERER)
    running.wait_stopped(list(AIRFLOW_COMPONENTS), _AIRFLOW_GRACE)
    report("stopping PostgreSQL")
    running.stop(POSTGRES)
    running.wait_stopped([POSTGRES], _POSTGRES_GRACE)
    supervisors = [process for process in processes.find(layout.marker) if _is_supervisor(process)]
    running.shutdown()
    processes.wait_gone(supervisors, 10)


def _end_tasks(running: Supervisor, layout: Layout, report: Callable[[str], None]) -> None:
    """End running tasks while the api-server can still record it, so that they may be retried later.

    The scheduler would wait for them. To a task SIGTERM means "call on_kill and go on", SIGINT then
    interrupts it, and SIGKILL ends it. New tasks may still come from the scheduler's queue.
    """
    asked: dict[psutil.Process, float] = {}
    deadline = time.monotonic() + _TASK_GRACE
    while time.monotonic() < deadline and running.processes()[SCHEDULER]["statename"] == "STOPPING":
        tasks = [task for task in processes.find(layout.marker, SCHEDULER) if processes.leads_task(task)]
        if not tasks and not asked:
            return  # nothing runs: the other parts can stop at the same time
        if not asked:
            report("ending the running tasks")
        new = [task for task in tasks if task not in asked]
        processes.send(new, signal.SIGTERM)
        now = time.monotonic()
        asked.update(dict.fromkeys(new, now))
        late = [task for task in tasks if now - asked[task] > _INTERRUPT_AFTER]
        processes.send([task for task in late if now - asked[task] <= _KILL_AFTER], signal.SIGINT)
        processes.send([task for task in late if now - asked[task] > _KILL_AFTER], signal.SIGKILL)
        time.sleep(0.25)


def _is_supervisor(process: psutil.Process) -> bool:
    """The stack's processes that belong to no component are supervisord, and components not yet become."""
    try:
        return processes.COMPONENT not in process.environ()
    except psutil.Error:
        return False


def end_leftovers(layout: Layout, report: Callable[[str], None]) -> None:
    """End all processes of this stack that run without (or with a deaf) supervisord, tasks included."""
    found = processes.find(layout.marker)
    servers = processes.find_postgres(layout.pgdata)
    if not found and not servers:
        return
    report(f"ending {len(set(found) | set(servers))} processes that an earlier start of this stack left")
    supervisors = [process for process in found if _is_supervisor(process)]
    # First, and at once: it would restart what is ended next.
    left = processes.end(supervisors, grace=0, first=signal.SIGKILL)
    parts = [process for process in found if process not in supervisors and process not in servers]
    left += processes.end(parts, grace=_ORPHAN_GRACE)
    left += processes.end_postgres(layout.pgdata, grace=_POSTGRES_GRACE)
    # Something may have been started between the look and the signal.
    left += processes.end(processes.find(layout.marker), grace=0, first=signal.SIGKILL)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        raise StackError(
            f"processes of the stack cannot be ended: {pids}\n  at: {layout.state}\n  fix: kill -9 {pids}"
        )
