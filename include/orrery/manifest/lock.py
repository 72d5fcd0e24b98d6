"""One build at a time: whoever comes second waits."""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def exclusively(path: Path, waits: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of a file, which is made; the system lets go of it when the process dies.

    :param waits: called before waiting for another process
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        # A file system without locks has no second machine that builds, as far as we can tell.
        with suppress(OSError):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(file, fcntl.LOCK_EX)
        yield
