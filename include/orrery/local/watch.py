"""Starts anew what lives but does nothing: supervisord's listener, `python -m orrery.local.watch`.

supervisord by itself notices only the end of a process. A scheduler that was without its database for a
moment waits for all that it has begun before it ends, for hours if need be, and meanwhile nothing runs.
"""

from __future__ import annotations

import http.client
import os
import signal
import sys
import xmlrpc.client
from collections.abc import Mapping
from typing import Any

from supervisor import childutils

from orrery.local import health
from orrery.local.layout import Layout
from orrery.local.state import load_saved
from orrery.local.supervisor import Supervisor

# How long a part may be silent. It is ended when it still is at the next look, a minute later.
PATIENCE = 60.0


def silent(
    beats: Mapping[str, float], entries: Mapping[str, Mapping[str, Any]], patience: float
) -> dict[str, int]:
    """The process ids of the parts that run, but have not been heard of for `patience` seconds.

    :param beats: when each part was last heard of, in seconds since the epoch
    :param entries: supervisord's view of all parts
    """
    return {
        name: int(entry["pid"])
        for name, entry in entries.items()
        if name in beats
        and entry["statename"] == "RUNNING"
        and entry["now"] - max(beats[name], entry["start"]) > patience
    }


def look(layout: Layout, suspects: Mapping[str, int], patience: float = PATIENCE) -> dict[str, int]:
    """End what is silent and was among `suspects`; returns those that are silent now.

    supervisord starts again what has ended. Raises OSError, and others of HTTP and XML-RPC, when Airflow or
    supervisord does not answer.
    """
    saved = load_saved(layout)
    if saved is None:
        return {}
    beats = health.heartbeats(saved.api_port)
    found = silent(beats, Supervisor(saved.control_socket).processes(), patience)
    for name, pid in found.items():
        if suspects.get(name) == pid:
            _tell(f"{name} (process {pid}) lives, but does nothing: it is started anew")
            os.kill(pid, signal.SIGKILL)
    return found


def main() -> None:
    """Look whenever supervisord says that a minute has passed. Standard output is its line to supervisord."""
    layout = Layout.of_environment()
    suspects: dict[str, int] = {}
    while True:
        childutils.listener.wait()
        try:
            suspects = look(layout, suspects)
        except (OSError, http.client.HTTPException, xmlrpc.client.Error) as error:
            suspects = {}
            _tell(f"cannot look: {error}")
        childutils.listener.ok()


def _tell(text: str) -> None:
    print(f"{childutils.get_asctime()} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
