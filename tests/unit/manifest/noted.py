"""What dbt has parsed again in its last parse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orrery.manifest import var_parsing
from orrery.manifest.watched_vars import OUTSIDE


class Noted(var_parsing._Vars):
    """The vars of the last parse."""

    last: Noted

    def stop(self) -> None:
        super().stop()
        Noted.last = self


@contextmanager
def noting() -> Iterator[None]:
    """While tests want to know."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(var_parsing, "_Vars", Noted)
        yield


def for_vars() -> set[str] | None:
    """The files that were parsed again because of vars; None when dbt did as it does by itself."""
    files = Noted.last.files
    return None if files is None else {_name(file_id) for file_id in files}


def parsed() -> set[str]:
    """All files that were parsed, of the kinds that can be parsed alone."""
    return {_name(file_id) for file_id in Noted.last.read if file_id != OUTSIDE}


def in_vain() -> bool:
    """Whether to parse some files was not enough."""
    return Noted.last.doubtful


def _name(file_id: str) -> str:
    return file_id.removeprefix("tiny://")
