"""When points that only wait are over."""

from __future__ import annotations

import pytest

from orrery.execute.marker import due_markers
from unit.manifest.resources import Resource, resource
from unit.plan.projects import plan


def model(name: str, *parents: str, materialized: str = "table") -> Resource:
    uids = [f"model.shop.{parent}" for parent in parents]
    return resource("model", name, uids, config={"materialized": materialized})


def check(name: str, parent: str) -> Resource:
    return resource("test", name, [f"model.shop.{parent}"])


# a -> e1 -> e2 -> b, where e1 and e2 are ephemeral.
PLAN = plan(
    model("a"),
    model("e1", "a", materialized="ephemeral"),
    model("e2", "e1", materialized="ephemeral"),
    model("b", "e2"),
)


@pytest.mark.parametrize(
    ("states", "due"),
    [
        ({}, []),
        ({"core.a": "success"}, ["core.e1", "core.e2"]),
        ({"core.a": "skipped"}, ["core.e1", "core.e2"]),
        ({"core.a": "failed"}, []),
        ({"core.a": "success", "core.e1": "success"}, ["core.e2"]),
        ({"core.a": "success", "core.e1": "upstream_failed"}, []),
    ],
)
def test_a_point_is_over_when_all_before_it_is_done(states: dict[str, str], due: list[str]) -> None:
    assert due_markers(PLAN.tasks, states) == due


@pytest.mark.parametrize("state", ["success", "failed", "upstream_failed", "running", None])
def test_a_point_before_the_tests_is_over_whatever_became_of_the_models(state: str | None) -> None:
    made = plan(model("a"), check("t", "a"), tests="end")
    over = ["tests.all_nodes_ended"] if state not in ("running", None) else []
    assert due_markers(made.tasks, {"core.a": state}) == over
