"""Who comes after whom among the tasks of a plan."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from orrery.plan.descent import Descent
from orrery.plan.model import PipelinePlan, TaskKind
from unit.manifest.resources import Resource, resource
from unit.plan.projects import edges, plan, random_resources

DONE = ("success", "skipped")


def model(name: str, *parents: str, materialized: str = "table") -> Resource:
    uids = [f"model.shop.{parent}" for parent in parents]
    return resource("model", name, uids, config={"materialized": materialized})


def check(name: str, *parents: str) -> Resource:
    return resource("test", name, [f"model.shop.{parent}" for parent in parents])


DIAMOND = [model("a"), model("b", "a"), model("c", "a"), model("d", "b", "c"), model("alone")]


def waits_for_none(of: PipelinePlan, task_id: str, states: Mapping[str, str | None]) -> bool:
    return Descent(of.tasks).waits_for_none(of.tasks[task_id], states, DONE)


def test_ancestors_and_descendants() -> None:
    descent = Descent(plan(*DIAMOND).tasks)
    assert descent.ancestors("core.d") == {"core.a", "core.b", "core.c"}
    assert descent.ancestors("core.b") == {"core.a"}
    assert descent.ancestors("core.a") == descent.ancestors("core.alone") == set()
    assert descent.descendants(["core.a"]) == {"core.b", "core.c", "core.d"}
    assert descent.descendants(["core.b", "core.c"]) == {"core.d"}
    # One of several may descend from another.
    assert descent.descendants(["core.a", "core.b"]) == {"core.b", "core.c", "core.d"}
    assert descent.descendants([]) == descent.descendants(["core.d", "core.alone"]) == set()


def test_a_test_holds_back_the_children_of_its_model() -> None:
    descent = Descent(plan(model("a"), check("t", "a"), model("b", "a"), model("c", "b")).tasks)
    assert descent.descendants(["tests.a"]) == {"core.b", "core.c"}
    assert descent.ancestors("core.c") == {"core.b", "tests.a", "core.a"}


def test_descendants_end_at_a_task_that_runs_always() -> None:
    made = plan(model("a"), model("b", "a"), check("t", "a"), check("u", "b"), tests="end")
    assert made.tasks["tests.all_nodes_ended"].always
    descent = Descent(made.tasks)
    # The tests wait for all nodes, but a failed one holds back only those of itself.
    assert descent.ancestors("tests.a") == {"core.a", "core.b", "tests.all_nodes_ended"}
    assert descent.descendants(["core.b"]) == {"tests.b"}
    assert descent.descendants(["core.a"]) == {"core.b", "tests.a", "tests.b"}
    # What comes after it is held back by its own failure all the same.
    assert descent.descendants(["tests.all_nodes_ended"]) == {"tests.a", "tests.b"}


@pytest.mark.parametrize("tests", ["gate", "end", "off"])
@pytest.mark.parametrize("seed", range(20))
def test_random_plans(seed: int, tests: str) -> None:
    made = plan(*random_resources(seed), tests=tests)
    descent, upstream = Descent(made.tasks), edges(made)
    before: dict[str, set[str]] = {}
    for task_id in descent.ordered():
        # Everything that it waits for has come already.
        assert upstream[task_id] <= before.keys()
        before[task_id] = upstream[task_id].union(*(before[other] for other in upstream[task_id]))
    assert before.keys() == upstream.keys()
    for task_id, expected in before.items():
        assert descent.ancestors(task_id) == expected
    if not any(task.always for task in made.tasks.values()):
        for task_id in made.tasks:
            expected = {other for other, ancestors in before.items() if task_id in ancestors}
            assert descent.descendants([task_id]) == expected


@pytest.mark.parametrize(
    ("b", "c", "free"),
    [
        ("success", "success", True),
        ("success", "skipped", True),
        ("success", None, False),
        ("success", "failed", False),
        ("upstream_failed", "success", False),
        ("running", "success", False),
        (None, None, False),
    ],
)
def test_waits_for_none(b: str | None, c: str | None, free: bool) -> None:
    made = plan(*DIAMOND)
    assert waits_for_none(made, "core.d", {"core.b": b, "core.c": c}) is free
    # Its own state, and those of others, do not matter.
    others = {"core.d": "failed", "core.a": "failed", "core.alone": None}
    assert waits_for_none(made, "core.d", {"core.b": b, "core.c": c, **others}) is free


def test_who_has_no_parents_waits_for_none() -> None:
    assert waits_for_none(plan(*DIAMOND), "core.a", {})


def test_a_task_of_which_nothing_is_known_is_waited_for() -> None:
    assert not waits_for_none(plan(*DIAMOND), "core.d", {"core.b": "success"})


def test_ephemeral_models_are_looked_through() -> None:
    made = plan(
        model("a"),
        model("e", "a", materialized="ephemeral"),
        model("f", "e", materialized="ephemeral"),
        model("b", "f"),
    )
    assert {made.tasks[f"core.{name}"].kind for name in "ef"} == {TaskKind.MARKER}
    assert waits_for_none(made, "core.b", {"core.a": "success"})
    assert waits_for_none(made, "core.b", {"core.a": "success", "core.e": "success", "core.f": None})
    assert not waits_for_none(made, "core.b", {"core.a": "running"})
    # One that has ended has waited already.
    assert waits_for_none(made, "core.b", {"core.f": "success"})
    # A model that is built is not looked through, whatever comes before it.
    built = plan(model("a"), model("m", "a"), model("b", "m"))
    assert not waits_for_none(built, "core.b", {"core.a": "success"})


def test_the_points_at_the_beginning_and_at_the_end_are_looked_through() -> None:
    # The tests wait for models, and a model for its unit tests.
    tangled = plan(model("a"), check("t", "a"), resource("unit_test", "u", ["model.shop.a"]))
    assert tangled.tasks["tests.begin"].kind is TaskKind.MARKER
    assert "tests.begin" in tangled.tasks["tests.a"].upstream
    assert waits_for_none(tangled, "tests.a", {"core.a": "success", "tests.begin": None})
    assert waits_for_none(tangled, "tests.a__unit", {})
    end = plan(model("a"), model("b"), check("t", "a"), tests="end")
    assert waits_for_none(end, "tests.a", {"core.a": "success", "core.b": "success"})
    assert not waits_for_none(end, "tests.a", {"core.a": "success"})


def runnable(of: PipelinePlan, candidates: set[str], states: Mapping[str, str | None]) -> set[str]:
    return Descent(of.tasks).runnable(candidates, states, DONE)


def test_candidates_may_wait_for_each_other() -> None:
    made = plan(*DIAMOND)
    everything = set(made.tasks)
    assert runnable(made, everything, {}) == everything
    # What they are in themselves does not matter.
    assert runnable(made, everything, dict.fromkeys(everything, "deferred")) == everything


@pytest.mark.parametrize("state", ["running", "scheduled", "failed", "upstream_failed", None])
def test_candidates_do_not_wait_for_others(state: str | None) -> None:
    made = plan(*DIAMOND)
    candidates = {"core.c", "core.d", "core.alone"}
    states = {"core.a": "success", "core.b": state}
    assert runnable(made, candidates, states) == {"core.c", "core.alone"}
    assert runnable(made, candidates, {**states, "core.b": "skipped"}) == candidates
    # Neither does what waits for one that waits.
    assert runnable(made, {"core.b", "core.c", "core.d"}, {"core.a": state}) == set()


def test_points_that_only_wait_are_looked_through_for_candidates() -> None:
    made = plan(model("a"), model("b"), check("t", "a"), tests="end")
    assert runnable(made, {"core.a", "core.b", "tests.a"}, {}) == {"core.a", "core.b", "tests.a"}
    assert runnable(made, {"tests.a"}, {"core.a": "success", "core.b": "running"}) == set()
    # This point waits for the end of all, whatever end it is.
    assert runnable(made, {"tests.a"}, {"core.a": "success", "core.b": "failed"}) == {"tests.a"}
    assert runnable(made, {"tests.a"}, {"core.a": "failed", "core.b": "success"}) == set()
