"""Holds dbt at a point of a run, so that hands always meet it there.

A gate is a file in a folder, named after the number of a node's beginning or end in the run's journal, or
after a node's beginning whenever it comes. The thread of dbt's that comes to a gate says so by another
file, and waits until the gate is gone.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path

from differential.recorder import JOURNAL

FOLDER = "DIFFERENTIAL_GATES"
_EVENTS = ("start", "end")


def pause(event: str, uid: str, number: int) -> None:
    """In dbt's thread: wait if there is a gate."""
    folder = os.environ.get(FOLDER)
    if not folder:
        return
    for gate in (Path(folder, f"gate-{number}"), Path(folder, f"gate-{event}-{uid}")):
        if gate.exists():
            here = gate.with_name(gate.name.replace("gate", "here"))
            here.write_text(f"{event} {uid}", encoding="utf-8")
            while gate.exists():
                time.sleep(0.01)
            here.unlink(missing_ok=True)


def passed() -> int:
    """How many nodes dbt has begun or ended in this run."""
    with suppress(FileNotFoundError):
        lines = Path(os.environ[JOURNAL]).read_text(encoding="utf-8").splitlines()
        return sum(json.loads(line)["event"] in _EVENTS for line in lines)
    return 0


class Gates:
    """The gates of a run.

    :param folder: an empty folder
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ[FOLDER] = str(folder)

    def close_at(self, point: str) -> None:
        """Let dbt wait at a point: the number of an event, or `start-<unique id>`."""
        (self.folder / f"gate-{point}").touch()

    def waits_at(self, point: str) -> str | None:
        """What dbt is at, if it waits at a point: an event and a unique id."""
        here = self.folder / f"here-{point}"
        return here.read_text(encoding="utf-8") if here.exists() else None

    def open(self, point: str) -> None:
        """Let dbt go on."""
        (self.folder / f"gate-{point}").unlink(missing_ok=True)

    def forget(self, point: str) -> None:
        """Nobody waits there any more."""
        (self.folder / f"here-{point}").unlink(missing_ok=True)
