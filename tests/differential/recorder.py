"""Takes down what dbt does in this process, by its own events and results; knows nothing of Orrery.

The journal is a file of JSON lines. `command`: dbt begins with a command. `start`, `end`: with a node, and
is done with it (of a microbatch model also with a batch). `result`: the final word on a node, when the
command is over. `done`: the command is over.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# The environment variable with the journal's path.
JOURNAL = "DIFFERENTIAL_JOURNAL"
_COMMANDS = ("build", "run", "seed", "snapshot", "test", "source")

_lock = threading.Lock()


def note(**entry: Any) -> int:
    """Add a line to the journal; returns how many `start` and `end` it then has."""
    path = Path(os.environ[JOURNAL])
    with _lock:
        line = json.dumps({"at": time.time(), **entry}, default=str) + "\n"
        with path.open("a", encoding="utf-8") as journal:
            journal.write(line)
        text = path.read_text(encoding="utf-8")
    return text.count('"event": "start"') + text.count('"event": "end"')


Pause = Callable[[str, str, int], None]


def install(pause: Pause = lambda name, uid, number: None) -> None:
    """Record every command of every dbtRunner from now on.

    :param pause: called in dbt's thread after each `start` and `end` has been written, with the number of
        it in the journal
    """
    from dbt.cli.main import dbtRunner

    original = dbtRunner.invoke

    def invoke(self: Any, args: list[str], **kwargs: Any) -> Any:
        if not os.environ.get(JOURNAL) or not args or args[0] not in _COMMANDS:
            return original(self, args, **kwargs)
        note(event="command", command=" ".join(args[:2] if args[0] == "source" else args[:1]))
        callbacks = self.callbacks
        self.callbacks = [*callbacks, lambda event: _take(event, pause)]
        try:
            result = original(self, args, **kwargs)
        finally:
            self.callbacks = callbacks
        for each in getattr(result.result, "results", None) or ():
            note(event="result", uid=each.node.unique_id, status=str(each.status), message=each.message)
        failure = f"{type(result.exception).__name__}: {result.exception}" if result.exception else None
        note(event="done", success=result.success, exception=failure)
        return result

    dbtRunner.invoke = invoke  # type: ignore[method-assign]


def _take(event: Any, pause: Pause) -> None:
    name = {"NodeStart": "start", "NodeFinished": "end"}.get(event.info.name)
    if name is None:
        return
    uid = event.data.node_info.unique_id
    more = {"status": event.data.run_result.status} if name == "end" else {}
    pause(name, uid, note(event=name, uid=uid, **more))
