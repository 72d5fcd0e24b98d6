"""Failures that Airflow does not see, because something comes after them and succeeds."""

from __future__ import annotations

import pytest

from orrery.execute.channel import NodeState
from orrery.execute.hidden import hidden_failure
from unit.manifest.resources import resource
from unit.plan.projects import plan

A = resource("model", "a")
B = resource("model", "b", ["model.shop.a"])
TEST = resource("test", "not_null_b", ["model.shop.b"])


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ({}, None),
        ({"core.a": "success", "core.b": "success", "tests.b": "success"}, None),
        # The test is the last task, and shows it.
        ({"core.a": "failed", "core.b": "upstream_failed", "tests.b": "upstream_failed"}, None),
        # With other variables the model did not read the failed one.
        ({"core.a": "failed", "core.b": "success", "tests.b": "success"}, "core.a failed."),
        ({"core.a": "success", "core.b": "failed", "tests.b": "skipped"}, "core.b failed."),
    ],
)
def test_a_failure_that_no_last_task_shows(states: dict[str, str | None], told: str | None) -> None:
    assert hidden_failure(plan(A, B, TEST).tasks, states, {}) == told


def test_a_failure_that_a_worker_is_about_to_show_counts() -> None:
    tasks = plan(A, B, TEST).tasks
    states = {"core.a": "queued", "core.b": "success", "tests.b": "success"}
    assert hidden_failure(tasks, states, {"core.a": NodeState.FAILED}) == "core.a failed."
    # Somebody has marked it.
    assert hidden_failure(tasks, states | {"core.a": "success"}, {"core.a": NodeState.FAILED}) is None
