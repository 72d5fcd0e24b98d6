"""What a pod tells of its work: messages among the lines of its log.

A pod's log is the one way back that every cluster has, while the pod runs and without another container.
A message is JSON in lines that begin with a mark and a number; all other lines are for people.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TextIO

from orrery.execute.batches import Batches
from orrery.execute.channel import NodeState, Update
from orrery.execute.collector import Line
from orrery.execute.run_graph import RunGraph

# Container runtimes cut lines at 16 KiB.
_LONGEST = 8_000
# A line is a part of a message (+) or its end (:).
_MARKED = re.compile(r"orrery([+:])(\d+):(.*)", re.DOTALL)


class Speaker:
    """The side of the pod: tells what becomes of tasks, and their logs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._number = 0

    def add(self, update: Update) -> None:
        """Tell the news of a task."""
        self._say("update", update.as_dict())

    def write(self, task_id: str, try_number: int, lines: Iterable[Line]) -> None:
        """Tell dbt's lines about a task."""
        self._say("log", [task_id, try_number, [[line.time, line.level, line.text] for line in lines]])

    def refuse(self, reason: str) -> None:
        """Tell why nothing has been run."""
        self._say("refusal", reason)

    def order(self, graph: RunGraph) -> None:
        """Tell in which order dbt runs the tasks."""
        self._say("graph", graph.as_text())

    def remember(self, batches: Batches) -> None:
        """Tell which batches of microbatch models have failed, or are not done yet."""
        self._say("batches", batches)

    def end(self, warnings: Mapping[str, str]) -> None:
        """Tell that all is told, and what dbt warned of, by task."""
        self._say("end", dict(warnings))

    def _say(self, kind: str, content: Any) -> None:
        text = json.dumps([kind, content])
        parts = [text[at : at + _LONGEST] for at in range(0, len(text), _LONGEST)]
        with self._lock:
            for part in parts:
                self._number += 1
                mark = ":" if part is parts[-1] else "+"
                self._out.write(f"orrery{mark}{self._number}:{part}\n")
            self._out.flush()


class Listener:
    """The side of the worker: takes the lines of a pod's log, of which some may come twice.

    `updates` holds the last news of each task, and `warnings` what dbt warned of, by task. `graph` is the
    order in which dbt runs the tasks, and `batches` are those of microbatch models that have failed or are
    not done yet, if they have been told. `refusal` says why nothing has been run, and `ended` whether all
    has been told.

    :param told: called with each line for people
    :param news: called with the news of tasks
    :param logged: called with the log of a task: its id, the number of its try, dbt's lines
    :param remember: called with the batches of microbatch models that have failed, or are not done yet
    """

    def __init__(
        self,
        told: Callable[[str], None],
        news: Callable[[Update], None] = lambda _: None,
        logged: Callable[[str, int, list[Line]], None] = lambda *_: None,
        remember: Callable[[Batches], None] = lambda _: None,
    ) -> None:
        self.updates: dict[str, Update] = {}
        self.warnings: dict[str, str] = {}
        self.graph: RunGraph | None = None
        self.batches: Batches | None = None
        self.refusal: str | None = None
        self.ended = False
        self._told, self._news, self._logged, self._remember = told, news, logged, remember
        self._number = 0
        self._parts: list[str] = []

    def hear(self, line: str, *, again: bool = False) -> None:
        """Take one line, without its end.

        :param again: whether it has the time of one that has come already, or an earlier one
        """
        marked = _MARKED.fullmatch(line)
        if marked is None:
            # Several lines may have the same time; of messages the numbers say which came.
            if not again:
                self._told(line)
            return
        mark, number, part = marked.groups()
        if int(number) <= self._number:
            return
        # After a gap, what there is of a message has no end or no beginning.
        kept = self._parts if int(number) == self._number + 1 else []
        self._number = int(number)
        self._parts = [*kept, part]
        if mark == ":":
            text, self._parts = "".join(self._parts), []
            try:
                kind, content = _read(text)
            except (ValueError, TypeError):
                # The pod was killed while it wrote, its log has been cut, or something else wrote the line.
                self._told(f"A message of the pod is broken: {text[:200]}")
            else:
                self._take(kind, content)

    def _take(self, kind: str, content: Any) -> None:
        if kind == "update":
            if content.state is not NodeState.RUNNING:
                self.updates[content.task_id] = content
            self._news(content)
        elif kind == "log":
            self._logged(*content)
        elif kind == "refusal":
            self.refusal = content
        elif kind == "graph":
            self.graph = content
        elif kind == "batches":
            self.batches = content
            self._remember(content)
        elif kind == "end":
            self.warnings, self.ended = content, True


def _read(text: str) -> tuple[str, Any]:
    """The kind of a message and what it tells; raises ValueError and TypeError when it is none."""
    kind, content = json.loads(text)
    if kind == "update":
        return kind, Update.of(content)
    if kind == "log":
        task_id, try_number, lines = content
        return kind, (str(task_id), int(try_number), [Line(*map(str, line)) for line in lines])
    if kind == "graph":
        return kind, RunGraph.of_text(content)
    return str(kind), dict(content) if kind in ("batches", "end") else str(content)


def for_people(text: str) -> str:
    """Lines of a pod's log without its messages."""
    return "\n".join(line for line in text.splitlines() if not _MARKED.fullmatch(line))
