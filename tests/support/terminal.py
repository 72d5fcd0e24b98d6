"""A terminal for commands that look better in one."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios

from support.live import Done, Live


def orrery_in_terminal(live: Live, *arguments: str, rows: int = 50, columns: int = 120) -> Done:
    """Run `./orrery <arguments>` in a terminal; the output holds its control sequences."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    environment = live.env | {"TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    shown = b""
    with live.start(*arguments, env=environment, stdin=theirs, stdout=theirs, stderr=theirs) as command:
        os.close(theirs)
        try:
            while block := _read(ours):
                shown += block
            command.wait()
        except BaseException:
            command.kill()
            raise
        finally:
            os.close(ours)
    return Done(command.returncode, shown.decode(errors="replace"))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody is at the other end any more
        return b""
