"""The choices of one run."""

from __future__ import annotations

import pytest

from orrery.execute.options import RunOptions


def test_from_the_params_of_a_run() -> None:
    options = RunOptions.from_params({"full_refresh": True, "skip_stages": ["seed", "tests"], "other": 1})
    assert options == RunOptions(full_refresh=True, skip_stages=frozenset({"seed", "tests"}))
    assert RunOptions.from_params({"full_refresh": False, "skip_stages": []}) == RunOptions(
        False, frozenset()
    )


@pytest.mark.parametrize("params", [{}, {"full_refresh": True}, {"skip_stages": []}])
def test_a_missing_choice_is_no_choice(params: dict[str, bool]) -> None:
    with pytest.raises(KeyError):
        RunOptions.from_params(params)
