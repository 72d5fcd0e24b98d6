"""Drawn projects on a real Airflow with all its parts, beside plain dbt."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from differential.drawn import cases
from differential.lab import Lab
from differential.soak import search
from differential.stack_world import StackWorld
from support import trial
from support.live import own_stack

pytestmark = pytest.mark.integration

# With one or two runs each.
_PROJECTS = 3


@pytest.fixture(scope="module")
def where() -> Iterator[Lab]:
    """A lab with a stack of its own."""
    with own_stack(trial.copy) as live, tempfile.TemporaryDirectory(prefix="differential-") as folder:
        assert live.orrery("up").code == 0
        made = Lab(live.warehouse["transformer"], Path(folder), stack=StackWorld(live))
        yield made
        made.close()


def test_airflow_shows_what_dbt_did(where: Lab) -> None:
    example = search(where.differences, cases(12), 2, most=_PROJECTS, shrink=False)
    assert example is None, f"\n{example}"
    assert where.counts.runs >= _PROJECTS
