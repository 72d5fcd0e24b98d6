"""TCP ports on loopback: is one free, who has it, find a free one."""

from __future__ import annotations

import os
import socket

import psutil

from orrery.local.errors import StackError
from orrery.local.layout import HOST

DEFAULT_API_PORT = 8080


def is_free(port: int) -> bool:
    """Tell whether a server could listen on 127.0.0.1:port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it, connections that a just stopped server left in TIME_WAIT would count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # BSD kernels allow the bind beside a listener on all interfaces; a connection tells.
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) != 0


def find_free(avoid: frozenset[int] = frozenset()) -> int:
    """Return a free port that the kernel chose, none of `avoid`."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in avoid:
            return port


def requested_api_port(saved: int | None) -> int:
    """The port for Airflow: ORRERY_PORT, else the saved one, else 8080. Nonsense: StackError."""
    text = os.environ.get("ORRERY_PORT", "").strip()
    if not text:
        return saved or DEFAULT_API_PORT
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise StackError(
            f"ORRERY_PORT is not a port: {text!r}\n  at: the environment\n  fix: ORRERY_PORT=8090 ./orrery up"
        )
    return int(text)


def owner(port: int) -> str | None:
    """Describe the process that listens on `port`, or None when the system does not tell."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status != psutil.CONN_LISTEN or not connection.laddr:
                continue
            if connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except (psutil.Error, OSError):
        return None
    return None


def require_free(port: int) -> None:
    """Raise a StackError that names the port, its holder and the remedy, unless the port is free."""
    if is_free(port):
        return
    other = 8090 if port != 8090 else 8091
    raise StackError(
        f"port {port} is taken by {owner(port) or 'another program'}\n  at: {HOST}:{port}\n"
        f"  fix: ORRERY_PORT={other} ./orrery up   (the port is remembered)"
    )
