"""Drawn projects, run by Orrery and by plain dbt, and drawn hands on their runs.

A few of them, the same ones each time; `./orrery test --soak MINUTES` goes on from here.
"""

from __future__ import annotations

from typing import Any

import pytest

from differential.lab import Lab
from differential.soak import search, searches

_SEED = 1


@pytest.mark.parametrize(("name", "most"), [("cases", 6), ("hands", 4)])
def test_airflow_shows_what_dbt_did(where: Lab, name: str, most: int) -> None:
    attempt, drawn = searches(where, 10)[name]
    example: Any = search(attempt, drawn, _SEED, most=most, shrink=False)
    assert example is None, f"\n{example}"
    assert where.counts.cases
