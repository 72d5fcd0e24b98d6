"""What searches have found, and what was wrong in the first version: each must come out right."""

from __future__ import annotations

import pytest

from differential.choices import Case, Choices, Pipeline
from differential.hands import Hand, Handled
from differential.lab import Lab
from differential.projects import Check, Hook, Node, Project, Source

_CHAIN = (
    Node("m0"),
    *(Node(f"m{number}", parents=(f"m{number - 1}",)) for number in range(1, 4)),
)

_CASES = {
    "a microbatch model fails with its second batch, and dbt skips what reads it": Case(
        Project(
            (
                Node("m0", "microbatch", fault="batch", checks=(Check("t1"),)),
                Node("m1", parents=("m0",)),
            )
        )
    ),
    "a microbatch model whose batches cannot be compiled says why": Case(
        Project((Node("m0", "microbatch", fault="compile"),))
    ),
    "what reads a broken ephemeral model fails with its error": Case(
        Project(
            (
                Node("m0", "ephemeral", fault="compile", checks=(Check("t1"),)),
                Node("m1", "ephemeral", parents=("m0",)),
                Node("m2", parents=("m1",)),
                Node("m3", parents=("m2",)),
            ),
            hooks=(Hook("end"),),
        )
    ),
    "what a run's variable makes a model read decides whether it runs": Case(
        Project((Node("m0"), Node("m1", fault="broken"), Node("m2", parents=("m0",), swap="m1"))),
        runs=(Choices(fixed=True), Choices(swap=True)),
    ),
    "a seed that makes a source comes before its readers": Case(
        Project((Node("s0", "seed"), Node("m1", parents=("app.src0",))), (Source("src0", made_by="s0"),)),
        runs=(Choices(), Choices()),
    ),
    "with fail_fast, hooks run after the last node": Case(
        Project((Node("m0"),), hooks=(Hook("end"),), fail_fast=True)
    ),
    "functions are built before what calls them": Case(
        Project((Node("f0", "function"), Node("m1", parents=("f0",)), Node("f2", "function", fault="sql")))
    ),
    "a hook at the end that fails, fails the run": Case(Project((Node("m0"),), hooks=(Hook("end", "sql"),))),
    "no node runs after a hook at the start has failed, if the project says so": Case(
        Project(
            (Node("m0", checks=(Check("t1"),)),), (), (Hook("start", "sql"), Hook("end")), strict_hooks=True
        ),
        Pipeline(tests="end"),
    ),
    "a hook at the start that cannot be compiled ends dbt before the first node": Case(
        Project((Node("m0"),), hooks=(Hook("start", "compile"), Hook("end"))), Pipeline(tests="end")
    ),
    "a failed model fails the run when the tests come last, also without a build": Case(
        Project((Node("m0", checks=(Check("t1"),)), Node("m1", fault="sql"))),
        Pipeline(tests="end", execute="per_model"),
    ),
    "a seed's tests come before the check of the source that the seed makes": Case(
        Project(
            (
                Node("s0", "seed", checks=(Check("t1", "singular"), Check("t2", passes=False))),
                Node("m1", parents=("app.src0",)),
            ),
            (Source("src0", "s0", "fresh"),),
        )
    ),
    "a run of nothing but an ephemeral model is a success, also without a build": Case(
        Project((Node("m0", "ephemeral"), Node("m1"))), Pipeline(execute="per_model"), (Choices(("m0",)),)
    ),
    "a run of nothing but an ephemeral model runs the hooks": Case(
        Project((Node("m0", "ephemeral"), Node("m1")), hooks=(Hook("start"), Hook("end", "sql"))),
        runs=(Choices(("m0",)),),
    ),
    "a project of nothing but an ephemeral model runs the hooks, of which one fails": Case(
        Project((Node("m0", "ephemeral"),), hooks=(Hook("start", "sql"), Hook("end")))
    ),
    "what reads a source that cannot be read waits for it": Case(
        Project((Node("s0", "seed"), Node("m1", parents=("app.src0",))), (Source("src0", "s0", "fresh"),)),
        Pipeline(stale="warn"),
        (Choices(exclude=("s0",)),),
    ),
    "hooks run once, and see the results of all commands": Case(
        Project(
            (Node("s0", "seed"), Node("m1", parents=("app.src0",))),
            (Source("src0", made_by="s0", age="old"),),
            (Hook("start"), Hook("end")),
        ),
        Pipeline(tests="end"),
    ),
}
_HANDS = {
    "marked as failed while it runs, it holds back its descendants": (Hand("failed", "m1", at=3),),
    "marked as failed while it waits, it holds back its descendants": (Hand("failed", "m2", at=3),),
    "cleared with downstream while its child runs, all run again": (
        Hand("clear", "m0", at=3, downstream=True),
    ),
    "a build that is always killed ends": (Hand("always", at=3),),
    "a build that is always killed before its first node ends": (Hand("always", at=1),),
    "a build that is always killed when no node waits any more ends": (Hand("always", at=7),),
    "a build that is marked as failed ends, with a node at work": (Hand("failed", "build", at=7),),
}


@pytest.mark.parametrize("name", _CASES)
def test_found_by_runs(where: Lab, name: str) -> None:
    assert [str(each) for each in where.differences(_CASES[name])] == []


@pytest.mark.parametrize("name", _HANDS)
def test_found_by_hands(where: Lab, name: str) -> None:
    handled = Handled(Case(Project(_CHAIN)), _HANDS[name])
    assert [str(each) for each in where.after_hands(handled)] == []


_DOOMED = (Node("m0", fault="broken"), Node("m1", parents=("m0",)), Node("m2"), Node("m3", parents=("m2",)))
_FIXED = Hand("fix", at=0)


@pytest.mark.parametrize(
    "hands",
    [
        (_FIXED, Hand("break"), Hand("clear", "m0")),
        (_FIXED, Hand("break"), Hand("clear", "m0"), Hand("fix"), Hand("retry")),
        # The last node is at work, and the others have ended.
        (_FIXED, Hand("failed", "m0", at=7)),
        (_FIXED, Hand("clear", "m0"), Hand("always", at=9)),
        (_FIXED, Hand("clear", "m0"), Hand("failed", "build", at=9)),
    ],
    ids=["it fails", "it is mended", "it is marked", "its build is killed", "its build is stopped"],
)
def test_what_was_built_on_a_node_that_then_fails_is_no_success(where: Lab, hands: tuple[Hand, ...]) -> None:
    handled = Handled(Case(Project(_DOOMED), runs=(Choices(threads=1),)), hands)
    assert [str(each) for each in where.after_hands(handled)] == []


def test_a_build_that_is_killed_within_a_microbatch_model_loses_no_batch(where: Lab) -> None:
    """Its table is there with the first batch, and a model with a table runs the last ones only."""
    nodes = (Node("m0"), Node("m1", "microbatch", parents=("m0",)))
    handled = Handled(Case(Project(nodes)), (Hand("kill", at=5),))
    assert [str(each) for each in where.after_hands(handled)] == []
