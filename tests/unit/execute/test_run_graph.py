"""The order of a run's tasks."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from orrery.execute.hidden import hidden_failure
from orrery.execute.run_graph import RunGraph
from unit.manifest.resources import Resource, resource
from unit.plan.projects import plan


def model(name: str, *parents: str, **more: object) -> Resource:
    return resource("model", name, [f"model.shop.{parent}" for parent in parents], **more)


@st.composite
def graphs(draw: st.DrawFn) -> RunGraph:
    """Some tasks, each of which may wait for those before it."""
    names = [f"core.{number}" for number in range(draw(st.integers(1, 8)))]
    return RunGraph(
        {name: draw(st.sets(st.sampled_from(names[:at]))) if at else () for at, name in enumerate(names)}
    )


@settings(derandomize=True, database=None, max_examples=200, deadline=None)
@given(graphs())
def test_it_survives_as_text_and_knows_who_comes_before_whom(graph: RunGraph) -> None:
    assert RunGraph.of_text(graph.as_text()).parents == graph.parents
    order = graph.ordered()
    assert sorted(order) == sorted(graph.parents)
    for task, parents in graph.parents.items():
        assert all(order.index(parent) < order.index(task) for parent in parents)
        above = graph.ancestors([task])
        assert above == set(parents).union(*(graph.ancestors([parent]) for parent in parents))
        assert {other for other in graph.parents if task in graph.ancestors([other])} == graph.descendants(
            [task]
        )


def test_points_that_only_wait_are_looked_through() -> None:
    made = plan(model("a"), model("b", "a", config={"materialized": "ephemeral"}), model("c", "b"))
    assert RunGraph.planned(made.tasks).parents == {"core.a": frozenset(), "core.c": {"core.a"}}


def test_a_point_that_waits_whatever_happens_holds_nothing_back() -> None:
    test = resource("test", "not_null_a", ["model.shop.a"])
    made = plan(model("a"), model("b"), test, tests="end")
    graph = RunGraph.planned(made.tasks)
    # It comes after `b`, too, but not because it descends from it.
    assert graph.parents["tests.a"] == {"core.a"}


def test_what_runs_for_an_exposure_comes_after_its_nodes() -> None:
    report = resource("exposure", "report", ["model.shop.b"])
    entry = {**report, "owner": {"name": "Ann"}, "kind": "pipeline", "block": {"pipeline": "nightly"}}
    made = plan(model("a"), model("b", "a"), runs=[entry])
    graph = RunGraph.planned(made.tasks)
    assert graph.descendants(["core.a"]) == {"core.b", "exposures.report"}
    # It has run before `a` has failed: it does not show that.
    states = {"core.a": "failed", "core.b": "success", "exposures.report": "success"}
    assert hidden_failure(made.tasks, states, {}) == "core.a failed."
    assert hidden_failure(made.tasks, {**states, "core.b": "failed", "exposures.report": None}, {}) is None
