"""The tries of the task `build`: those that build, and a last one that ends what they have left.

A build that is killed can tell nobody what becomes of its nodes. When the last try that may build has ended
so, one more comes, which builds nothing: it ends them, and fails. Airflow also counts a try when it starts
the task anew after the death of a scheduler.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

# A build that was killed goes on where it stopped.
_RETRIES = 2
_CLOSING = 1
RETRY_DELAY = timedelta(seconds=5)


def retries_of(asked: int) -> int:
    """The `retries` of the task, for a pipeline that asks for so many."""
    return max(_RETRIES, asked) + _CLOSING


def is_closing(build: Any) -> bool:
    """Whether the current try of a build builds nothing any more."""
    return bool(build.max_tries and build.try_number > build.max_tries)


def is_last(build: Any) -> bool:
    """Whether no try that builds follows the current one."""
    return bool(build.try_number >= build.max_tries)


def number_of(build: Any) -> int:
    """How many tries have built, the current one included."""
    return int(build.try_number) - is_closing(build)
