"""What people, and accidents, do to a run: as plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from hypothesis import strategies as st

from differential.choices import Case, Choices, Pipeline
from differential.drawn import projects
from differential.projects import Node, Project

# retry: `./orrery retry --failed`. fix: what is broken is fixed in the warehouse; break: it breaks again.
# kill: the process of the build vanishes; always: and again whenever it comes to the same point. lost:
# Airflow's scheduler gives the build up before it has begun, as it does with a task that stays in the queue.
Act = Literal["clear", "success", "failed", "retry", "fix", "break", "kill", "always", "lost"]
BUILD, RUN = "build", "run"


@dataclass(frozen=True)
class Hand:
    """One act.

    :param act: what is done
    :param task: the name of a node, `<name>:tests` for its tests, `build`, or `run` for the run as a whole
    :param at: how many nodes dbt has begun or ended in this run by then; None: when the run has ended
    """

    act: Act
    task: str = BUILD
    at: int | None = None
    downstream: bool = False
    upstream: bool = False

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return dict(vars(self))


def targets(project: Project) -> list[str]:
    """What hands may be laid on."""
    nodes = [node.name for node in project.nodes if node.kind != "ephemeral"]
    tested = {owner for owner, check in project.checked() if not check.also and check.kind != "unit"}
    return [*nodes, *(f"{name}:tests" for name in nodes if name in tested), BUILD, RUN]


@st.composite
def hands(draw: st.DrawFn, project: Project) -> tuple[Hand, ...]:
    """Up to three acts, in the order of their moments."""
    moments = st.one_of(st.integers(0, 2 * len(project.nodes)), st.none())

    def hand(act: Act) -> st.SearchStrategy[Hand]:
        if act in ("retry", "fix", "break"):
            return st.builds(Hand, act=st.just(act), at=moments)
        if act == "lost":
            return st.just(Hand(act, at=0))
        if act in ("kill", "always"):
            return st.builds(Hand, act=st.just(act), at=st.integers(1, 2 * len(project.nodes)))
        return st.builds(
            Hand,
            act=st.just(act),
            task=st.sampled_from(targets(project)),
            at=moments,
            downstream=st.booleans() if act == "clear" else st.just(False),
            upstream=st.sampled_from([False, False, True]) if act == "clear" else st.just(False),
        )

    acts: list[Act] = [
        "clear",
        "clear",
        "clear",
        "success",
        "failed",
        "failed",
        "retry",
        "fix",
        "break",
        "kill",
        "always",
        "lost",
    ]
    drawn = draw(st.lists(st.sampled_from(acts).flatmap(hand), min_size=1, max_size=3))
    late = 4 * len(project.nodes) + 4
    return tuple(sorted(drawn, key=lambda each: late if each.at is None else each.at))


@dataclass(frozen=True)
class Handled:
    """A case with one run, and the hands that are laid on it."""

    case: Case
    hands: tuple[Hand, ...]


@st.composite
def handled(draw: st.DrawFn, most: int = 6) -> Handled:
    """Projects whose failures can be fixed, and hands."""
    project = draw(projects(most))
    nodes = tuple(_repeatable(node) for node in project.nodes)
    project = Project(nodes, project.sources)
    pipeline = Pipeline(tests=draw(st.sampled_from(["gate", "gate", "end", "off"])))
    run = Choices(threads=draw(st.sampled_from([1, 2, 4])))
    return Handled(Case(project, pipeline, (run,)), draw(hands(project)))


def _repeatable(node: Node) -> Node:
    """A node that makes the same rows however often it runs, and whose failure can be fixed."""
    kind = "table" if node.kind in ("incremental", "snapshot") else node.kind
    fault = "broken" if node.fault and kind == "table" else None
    name = f"m{node.name[1:]}" if node.kind == "snapshot" else node.name
    renamed = tuple(f"m{p[1:]}" if p.startswith("h") else p for p in node.parents)
    checks = tuple(
        replace(check, also=tuple(f"m{p[1:]}" if p.startswith("h") else p for p in check.also))
        for check in node.checks
    )
    return replace(
        node, name=name, kind=kind, fault=fault, parents=renamed, checks=checks, swap=None, gated=False
    )
