"""What a running stack shows: its processes and its files, some of which are gone before they are asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")


def facts(
    processes: Iterable[psutil.Process], ask: Callable[[psutil.Process], T]
) -> Iterator[tuple[psutil.Process, T]]:
    """Each process with what `ask` finds out about it, but those that end meanwhile, as children do often."""
    for process in processes:
        # A zombie is one, too.
        with suppress(psutil.NoSuchProcess):
            yield process, ask(process)


def files_below(*folders: Path, but: Iterable[Path] = ()) -> Iterator[Path]:
    """The regular files below folders, links not followed; `but` leaves folders out.

    Unlike `Path.rglob` it does not mind folders that vanish.
    """
    left_out = set(but)
    for folder in folders:
        for place, below, names in os.walk(folder):
            here = Path(place)
            below[:] = [name for name in below if here / name not in left_out]
            paths = (here / name for name in names)
            yield from (path for path in paths if path.is_file() and not path.is_symlink())


def content(path: Path) -> bytes:
    """What is in a file; nothing when it is gone, as temporary files and rotated logs are."""
    with suppress(FileNotFoundError):
        return path.read_bytes()
    return b""
