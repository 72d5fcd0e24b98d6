"""What makes dbt's commands quicker, and changes nothing that they do."""

from __future__ import annotations

import sys
from types import FrameType


def hurry() -> None:
    """Let dbt find out quickly which module defines a behavior flag.

    dbt looks that up for each of thirty flags in every command, by reading the sources of all modules on the
    call stack: half a second, half of what a small command costs. The names are on the stack itself.
    """
    from dbt_common.behavior_flags import BehaviorFlagRendered

    BehaviorFlagRendered._default_source = staticmethod(_caller)  # type: ignore[method-assign]


def _caller() -> str:
    """The name of the module that makes a behavior flag; like dbt's own function, which this replaces."""
    from dbt_common import behavior_flags

    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = frame.f_globals.get("__name__")
        if name != behavior_flags.__name__:
            return str(name)
        frame = frame.f_back
    return "Unknown"
