"""What supervisord's log tells about each component: how often and how it died."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_STARTED = re.compile(r"supervisord started with pid \d+")
_EXITED = re.compile(
    r"^(?P<at>\S+ \S+?),\d+ \w+ exited: (?P<name>\S+) \((?P<how>.*?)(?:; (?:not )?expected)?\)$"
)


@dataclass(frozen=True)
class Deaths:
    """The unwanted ends of one component since the stack was started: `count`, and the last in words."""

    count: int = 0
    last: str | None = None


def parse(lines: Iterable[str]) -> dict[str, Deaths]:
    """Read log lines, oldest first. A new supervisord starts a new count; ordered stops do not count."""
    found: dict[str, Deaths] = {}
    for line in lines:
        if _STARTED.search(line):
            found = {}
            continue
        exited = _EXITED.match(line.rstrip())
        if exited:
            before = found.get(exited["name"], Deaths())
            found[exited["name"]] = Deaths(before.count + 1, f"{exited['how']} at {exited['at']}")
    return found


def read(log: Path) -> dict[str, Deaths]:
    """Parse the log with its rotated predecessor. A missing file counts as empty."""
    lines: list[str] = []
    for path in (log.with_name(log.name + ".1"), log):
        try:
            lines += path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
    return parse(lines)
