"""The embedded stack as others see it: up, down, and what there is to know about it."""

from __future__ import annotations

import http.client
import xmlrpc.client
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from orrery.local import environment, history, postgres, processes, startup
from orrery.local.errors import StackError, explained
from orrery.local.layout import COMPONENTS, HOST, SUPERVISOR, WATCH, Layout
from orrery.local.shutdown import stop
from orrery.local.state import Saved, Secrets, load_saved, load_secrets, locked
from orrery.local.supervisor import Supervisor

State = Literal["running", "starting", "stopped", "failed"]
Role = Literal["transformer", "loader", "postgres"]
_STATES: Final[dict[str, State]] = {
    "RUNNING": "running",
    "STARTING": "starting",
    "BACKOFF": "failed",  # it dies as soon as it starts; supervisord keeps trying
    "EXITED": "starting",  # it has just died and is about to be restarted
    "FATAL": "failed",
    "UNKNOWN": "failed",
}


@dataclass(frozen=True)
class StackInfo:
    """Where the stack is and how to get in. Ports are TCP ports on loopback.

    `outdated`: `up` has found it running with other settings, or another Orrery, than those of now.
    """

    url: str
    username: str
    password: str
    api_port: int
    postgres_port: int
    first_start: bool
    running: bool
    outdated: bool


@dataclass(frozen=True)
class ComponentStatus:
    """One component: `restarts` and `last_exit` tell of unwanted ends since the stack was started."""

    name: str
    state: State
    pid: int | None
    uptime_seconds: float | None
    restarts: int
    last_exit: str | None


def _silent(_: str) -> None:
    pass


class Stack:
    """PostgreSQL and Airflow on this machine, supervised as one. Methods raise StackError and no other."""

    def __init__(self, root: Path, state_dir: Path | None = None) -> None:
        """`root`: the project; `state_dir`: else ORRERY_STATE_DIR, else `<root>/.orrery`."""
        self._layout = Layout.of(root, state_dir)

    def up(self, report: Callable[[str], None] = _silent) -> StackInfo:
        """Start the stack, or repair it, or find it well; `report` gets a line of plain words per step."""
        startup.prepare(self._layout)
        with explained("the stack cannot be started", self._layout.state), locked(self._layout.lock, report):
            first = startup.start(self._layout, report)
            saved, keys = self._known()
            outdated = startup.is_outdated(self._layout, saved, keys)
            if outdated:
                report("Orrery or its settings have changed: ./orrery down and ./orrery up apply them")
            return self._info(saved, keys, first_start=first, running=True, outdated=outdated)

    def down(self, report: Callable[[str], None] = _silent) -> None:
        """Stop everything, in order; nothing of the stack is left afterwards. Repeatable."""
        if not self._layout.state.is_dir():
            report("the stack was never started")
            stop(self._layout, None, report)
            return
        with explained("the stack cannot be stopped", self._layout.state), locked(self._layout.lock, report):
            stop(self._layout, load_saved(self._layout), report)

    def info(self) -> StackInfo | None:
        """What is known of the stack; None when it was never started."""
        with explained("the stack's state cannot be read", self._layout.state):
            saved, keys = load_saved(self._layout), load_secrets(self._layout)
            if saved is None or keys is None:
                return None
            running = Supervisor(saved.control_socket).reachable()
        return self._info(saved, keys, first_start=False, running=running, outdated=False)

    def status(self) -> list[ComponentStatus]:
        """The state of every component, in the order in which they start."""
        saved = load_saved(self._layout)
        found: dict[str, dict[str, Any]] = {}
        if saved is not None:
            try:
                found = Supervisor(saved.control_socket).processes()
            except (OSError, http.client.HTTPException, xmlrpc.client.Error):
                found = {}
        if not found:
            return self._without_supervisor()
        deaths = history.read(self._layout.log(SUPERVISOR))
        return [_status(name, found[name], deaths.get(name, history.Deaths())) for name in COMPONENTS]

    def log_files(self, component: str | None = None) -> list[Path]:
        """The existing log files of one component, or of all; rotated ones are left out."""
        names = (*COMPONENTS, SUPERVISOR, WATCH) if component is None else (component,)
        return [path for path in map(self._layout.log, names) if path.exists()]

    def dbt_env(self) -> dict[str, str]:
        """What to add to the environment of a dbt that shall use the warehouse (holds its password).

        The loader's connection is there to be hidden from the project's files, as in Airflow.
        """
        known = self._known()
        return environment.dbt_env(*known) | environment.loader_env(*known)

    def warehouse_dsn(self, role: Role) -> str:
        """A libpq URL of the warehouse for one of its roles (holds its password)."""
        saved, keys = self._known()
        return postgres.dsn(role, getattr(keys, role), "warehouse", saved.postgres_port)

    def _known(self) -> tuple[Saved, Secrets]:
        with explained("the stack's state cannot be read", self._layout.state):
            saved, keys = load_saved(self._layout), load_secrets(self._layout)
        if saved is None or keys is None:
            raise StackError(
                f"the stack was never started\n  at: {self._layout.state}\n  fix: run ./orrery up first"
            )
        return saved, keys

    def _info(
        self, saved: Saved, keys: Secrets, *, first_start: bool, running: bool, outdated: bool
    ) -> StackInfo:
        return StackInfo(
            url=f"http://{HOST}:{saved.api_port}",
            username="admin",
            password=keys.admin,
            api_port=saved.api_port,
            postgres_port=saved.postgres_port,
            first_start=first_start,
            running=running,
            outdated=outdated,
        )

    def _without_supervisor(self) -> list[ComponentStatus]:
        """Stopped; or, after a kill of supervisord, running without anybody to restart it."""
        orphans = {}
        if self._layout.supervisord_pid.exists():  # an orderly stop removes it
            orphans = {name: processes.find(self._layout.marker, name) for name in COMPONENTS}
        note = "the supervisor died and this part runs on unwatched: ./orrery up repairs it"
        return [
            ComponentStatus(name, "failed", orphans[name][0].pid, None, 0, note)
            if orphans.get(name)
            else ComponentStatus(name, "stopped", None, None, 0, None)
            for name in COMPONENTS
        ]


def _status(name: str, entry: dict[str, Any], deaths: history.Deaths) -> ComponentStatus:
    alive = entry["statename"] in ("RUNNING", "STARTING")
    return ComponentStatus(
        name=name,
        state=_STATES.get(entry["statename"], "stopped"),
        pid=int(entry["pid"]) if alive and entry["pid"] else None,
        uptime_seconds=float(entry["now"] - entry["start"]) if alive else None,
        restarts=deaths.count,
        last_exit=deaths.last,
    )
