"""The one error that the embedded stack raises, and the helpers that fill it with evidence."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orrery.config.errors import OrreryError


class StackError(OrreryError):
    """The embedded stack cannot do what was asked. The message says what, where, and what to do."""


def tail(path: Path, lines: int = 20) -> str:
    """Return the last `lines` lines of a log file, or a note that there are none. Never raises OSError."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 64 * 1024))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        return f"({path} cannot be read: {error.strerror})"
    kept = [line for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(kept) or "(the log is empty)"


def with_log(what: str, log: Path, advice: str, lines: int = 20) -> StackError:
    """Build a StackError that shows the end of `log`, where it lies, and what to do."""
    shown = "\n".join(f"  | {line}" for line in tail(log, lines).splitlines())
    text = tail(log, 200)
    if "No space left on device" in text:
        advice = f"the disk is full: free space on the file system of {log.parent}, then run it again"
    return StackError(f"{what}\n{shown}\n  log: {log}\n  fix: {advice}")


@contextmanager
def explained(what: str, where: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StackError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        path = error.filename or where
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = f"the disk is full: free space on the file system of {where}, or set ORRERY_STATE_DIR"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            fix = f"make {where} writable for you, or set ORRERY_STATE_DIR to a directory that is"
        else:
            fix = f"look at {path}, then run it again"
        reason = error.strerror or str(error)
        raise StackError(f"{what}: {reason}\n  at: {path}\n  fix: {fix}") from error
