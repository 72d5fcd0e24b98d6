"""What dbt has done of a run, on the disk of the machine that runs it.

News reach Airflow in batches; a build that is killed in between has not published its last ones. Its next try
reads them here, when it runs where it sees the folder of the run, and what has ended does not run again.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.grounds import DONE
from orrery.execute.run_graph import RunGraph
from orrery.execute.tally import Outlet

log = logging.getLogger(__name__)

_NAME = "journal.jsonl"
# What dbt itself has said; whatever follows from it is found out anew.
_KEPT = (NodeState.SUCCESS, NodeState.FAILED)


@dataclass(frozen=True)
class Entry:
    """The end of a task, and the number of the try that has ended."""

    number: int
    update: Update


class Journal:
    """Writes the news down before they are passed on; they may come from several threads.

    `tries` are the numbers of the tries of tasks that the build has.

    :param folder: the folder of the run
    """

    def __init__(self, folder: Path, outlet: Outlet) -> None:
        self.tries: dict[str, int] = {}
        self._path = folder / _NAME
        self._outlet = outlet
        self._lock = threading.Lock()
        self._file: TextIO | None = None
        self._broken = False

    def add(self, update: Update) -> None:
        """Write the news of one task down, and pass it on."""
        if update.state in _KEPT and update.task_id in self.tries:
            self._write({"number": self.tries[update.task_id], "update": update.as_dict()})
        self._outlet.add(update)

    def read(self) -> dict[str, Entry]:
        """What an earlier try of the build has left, by task; the last entry of a task counts."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            return {}
        found: dict[str, Entry] = {}
        for line in lines:
            try:
                values = json.loads(line)
                entry = Entry(int(values["number"]), Update.of(values["update"]))
            except (ValueError, TypeError, KeyError):
                # The build was killed while it wrote.
                continue
            found[entry.update.task_id] = entry
        return found

    def clear(self) -> None:
        """Forget everything: it is published, or it does not count any more."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                self._complain(error)

    def _write(self, values: dict[str, object]) -> None:
        with self._lock:
            try:
                if self._file is None:
                    self._path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = self._path.open("a", encoding="utf-8")
                # The system keeps it when this process is killed; a machine that dies takes the folder along.
                self._file.write(json.dumps(values) + "\n")
                self._file.flush()
            except OSError as error:
                self._complain(error)

    def _complain(self, error: OSError) -> None:
        if not self._broken:
            log.warning("If this build is killed, what it has just done may run again: %s", error)
        self._broken = True


def still_true(
    entries: Mapping[str, Entry],
    held: Mapping[str, Try],
    graph: RunGraph,
    states: Mapping[str, str | None],
) -> list[Update]:
    """Those entries that still count, in the order of the graph.

    The task must be held in the same try, and all that it descends from must be done: what was cleared in
    between is not.

    :param states: the states of all tasks of the run
    """
    found: list[Update] = []
    settled: set[str] = set()
    for task_id in graph.ordered():
        if not graph.parents[task_id] <= settled:
            continue
        entry = entries.get(task_id)
        counts = entry is not None and task_id in held and held[task_id].number == entry.number
        if entry is not None and counts:
            found.append(entry.update)
        if states.get(task_id) in DONE or (entry and counts and entry.update.state is NodeState.SUCCESS):
            settled.add(task_id)
    return found
