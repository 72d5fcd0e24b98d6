"""supervisord: its configuration, starting it, and talking to it over its private socket."""

from __future__ import annotations

import http.client
import os
import shlex
import socket
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from pathlib import Path
from typing import Any, Final

from orrery.local.errors import StackError, tail, with_log
from orrery.local.layout import COMPONENTS, POSTGRES, SUPERVISOR, WATCH, Layout
from orrery.local.processes import COMPONENT

ACTIVE: Final = frozenset({"STARTING", "RUNNING", "BACKOFF"})
# 104 bytes is the shorter limit (macOS), and supervisord appends its pid while it creates the socket.
_SOCKET_LIMIT: Final = 90

_MAIN = """\
; Written by every `./orrery up`; changes made here are lost. Holds no secrets.
[supervisord]
logfile = {log}
logfile_maxbytes = 5MB
logfile_backups = 1
pidfile = {pid}
directory = {root}
umask = {umask:03o}
identifier = orrery
nocleanup = true
{user}
[unix_http_server]
file = {socket}
chmod = 0600

[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
"""
# Restarts never end: between attempts that fail at once supervisord waits one second longer each time.
_PROGRAM = """
[program:{name}]
command = {command}
autostart = false
autorestart = true
startsecs = {startsecs}
startretries = 1000000
stopsignal = {stopsignal}
stopwaitsecs = 20
killasgroup = true
redirect_stderr = true
stdout_logfile = {log}
stdout_logfile_maxbytes = 10MB
stdout_logfile_backups = 3
"""

_WATCH = """
[eventlistener:{name}]
command = {command}
events = TICK_60
autorestart = true
startretries = 1000000
environment = {component}="{name}"
stderr_logfile = {log}
stderr_logfile_maxbytes = 1MB
stderr_logfile_backups = 1
"""


def _quoted(path: object) -> str:
    return str(path).replace("%", "%%")


def render(layout: Layout, control_socket: str) -> str:
    """The text of supervisord.conf."""
    umask = os.umask(0o022)
    os.umask(umask)
    text = _MAIN.format(
        log=_quoted(layout.log(SUPERVISOR)),
        pid=_quoted(layout.supervisord_pid),
        root=_quoted(layout.root),
        umask=umask,
        user="user = root\n" if os.geteuid() == 0 else "",
        socket=_quoted(control_socket),
    )
    text += _WATCH.format(
        name=WATCH,
        component=COMPONENT,
        command=_command("orrery.local.watch"),
        log=_quoted(layout.log(WATCH)),
    )
    for name in COMPONENTS:
        text += _PROGRAM.format(
            name=name,
            command=_command("orrery.local.component", name),
            startsecs=1 if name == POSTGRES else 5,
            # To PostgreSQL INT is "fast shutdown". Each gets it alone and tells its own children.
            stopsignal="INT" if name == POSTGRES else "TERM",
            log=_quoted(layout.log(name)),
        )
    return text


def _command(module: str, *arguments: str) -> str:
    return _quoted(shlex.join([sys.executable, "-P", "-m", module, *arguments]))


def socket_path(layout: Layout, remembered: str | None) -> str:
    """Where the control socket goes: into the state directory, or a private short one if that is too deep."""
    own = layout.run / "supervisor.sock"
    if len(os.fsencode(own)) <= _SOCKET_LIMIT:
        return str(own)
    if remembered and _private(Path(remembered).parent):
        return remembered
    return str(Path(tempfile.mkdtemp(prefix="orrery-")) / "supervisor.sock")


def _private(directory: Path) -> bool:
    try:
        found = directory.lstat()
    except OSError:
        return False
    mode = stat.S_IMODE(found.st_mode)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and mode == 0o700


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path
        self._seconds = timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self._seconds)
        self.sock.connect(self._path)


class _Transport(xmlrpc.client.Transport):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__()
        self._path = path
        self._seconds = timeout

    def make_connection(self, host: object) -> http.client.HTTPConnection:
        return _Connection(self._path, self._seconds)


class Supervisor:
    """A running supervisord. Its methods raise OSError when there is none at the socket."""

    def __init__(self, control_socket: str) -> None:
        self._path = control_socket

    def _call(self, method: str, *arguments: object) -> Any:
        with xmlrpc.client.ServerProxy("http://localhost", transport=_Transport(self._path, 10)) as server:
            return getattr(server.supervisor, method)(*arguments)

    def reachable(self) -> bool:
        """Tell whether a supervisord answers."""
        try:
            return bool(self._call("getState")["statename"] == "RUNNING")
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False

    def processes(self) -> dict[str, dict[str, Any]]:
        """supervisord's own view by component: statename, pid, start, now (seconds since the epoch), ..."""
        return {str(entry["name"]): entry for entry in self._call("getAllProcessInfo")}

    def start(self, name: str) -> None:
        """Start a component now, also one that waits for its next attempt. Running ones stay as they are."""
        if self.processes()[name]["statename"] == "BACKOFF":
            self.stop(name)
            self.wait_stopped([name], 5)
        try:
            self._call("startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise StackError(
                    f"{name} cannot be started: {fault.faultString}\n  at: {self._path}\n"
                    "  fix: ./orrery down, then ./orrery up"
                ) from fault

    def stop(self, name: str) -> None:
        """Ask a component to stop, without waiting."""
        try:
            self._call("stopProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if "NOT_RUNNING" not in fault.faultString:
                raise

    def wait_stopped(self, names: list[str], seconds: float) -> None:
        """Wait until the components are stopped, for at most `seconds`."""
        deadline = time.monotonic() + seconds
        stopping = {*ACTIVE, "STOPPING"}
        while time.monotonic() < deadline:
            states = self.processes()
            if not any(states[name]["statename"] in stopping for name in names):
                return
            time.sleep(0.05)

    def shutdown(self) -> None:
        """Ask supervisord to end."""
        self._call("shutdown")


def launch(layout: Layout, control_socket: str, env: dict[str, str]) -> Supervisor:
    """Start supervisord in the background and wait until it answers. Not within 20 s: StackError."""
    Path(control_socket).unlink(missing_ok=True)
    result = subprocess.run(
        [sys.executable, "-P", "-m", "supervisor.supervisord", "-c", str(layout.supervisord_conf)],
        env=env,
        cwd=layout.root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    log = layout.log(SUPERVISOR)
    if result.returncode != 0:
        shown = result.stdout.strip() or tail(log)
        raise StackError(
            f"supervisord does not start: {shown}\n  at: {layout.supervisord_conf}\n  fix: see the message"
        )
    running = Supervisor(control_socket)
    deadline = time.monotonic() + 20
    while not running.reachable():
        if time.monotonic() > deadline:
            raise with_log("supervisord does not answer", log, "./orrery down, then ./orrery up")
        time.sleep(0.02)
    return running
