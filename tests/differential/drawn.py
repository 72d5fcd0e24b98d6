"""Draws projects, choices and pipelines by hypothesis; whatever is drawn can be built by dbt's parser.

A node is drawn without its name, and its parents as distances back: so a smaller project is found by
leaving out nodes. What cannot be (a snapshot of nothing, say) becomes the nearest thing that can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from differential.choices import Case, Choices, Pipeline
from differential.oracle import stage_of
from differential.projects import Check, Fault, Folder, Hook, Kind, Node, Project, Source

# The first of each is what a drawn value shrinks to; several times: more often.
_KINDS: list[Kind] = [
    *("table", "table", "table", "view", "view", "incremental", "ephemeral", "seed", "seed"),
    *("snapshot", "microbatch", "function"),
]
_FAULTS: list[Fault | None] = [None] * 12 + ["sql", "sql", "compile", "batch", "broken", "broken"]
# The greatest number of nodes where each is a dbt process of its own.
_FEW = 6
_PREFIX = {"seed": "s", "snapshot": "h", "function": "f"}


@dataclass(frozen=True)
class _Check:
    kind: Any
    passes: bool
    warns: bool
    also: int | None


@dataclass(frozen=True)
class _Node:
    kind: Kind
    back: tuple[int, ...]
    source: int | None
    fault: Fault | None
    checks: tuple[_Check, ...]
    folder: Folder
    swap: int | None
    flags: frozenset[str]


def _rarely(strategy: st.SearchStrategy[Any], none: int = 6) -> st.SearchStrategy[Any]:
    return st.one_of(*[st.none()] * none, strategy)


_checks = st.builds(
    _Check,
    kind=st.sampled_from(["generic", "generic", "singular", "unit"]),
    passes=st.sampled_from([True, True, True, False]),
    warns=st.sampled_from([False, False, True]),
    also=_rarely(st.integers(0, 5), 2),
)
_nodes = st.builds(
    _Node,
    kind=st.sampled_from(_KINDS),
    back=st.lists(st.integers(0, 6), max_size=3, unique=True).map(tuple),
    source=_rarely(st.integers(0, 2), 4),
    fault=st.sampled_from(_FAULTS),
    checks=st.lists(_checks, max_size=2).map(tuple),
    folder=st.sampled_from(["core", "core", "staging"]),
    swap=_rarely(st.integers(0, 4), 5),
    flags=st.frozensets(
        st.sampled_from(["alias", "schema", "group", "gated", "versions"]), max_size=2
    ).filter(lambda flags: len(flags) < 2 or "gated" not in flags),
)
_sources = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([None, None, None, "fresh", "old", "stale"]),
        st.lists(_checks.filter(lambda check: check.kind == "generic"), max_size=1).map(tuple),
    ),
    max_size=2,
)
_hooks = st.lists(
    st.builds(
        Hook,
        when=st.sampled_from(["end", "start"]),
        fault=st.sampled_from([None, None, None, None, "sql", "compile"]),
    ),
    max_size=2,
).map(tuple)


class _Resolver:
    """Makes the nodes of a project of what was drawn."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.sources: list[Source] = []
        self.tests = 0

    def add_sources(self, drawn: list[tuple[bool, Any, tuple[_Check, ...]]]) -> None:
        seeds = [node.name for node in self.nodes if node.kind == "seed" and not node.own_schema]
        for number, (made, age, checks) in enumerate(drawn):
            maker = seeds.pop(0) if made and seeds else None
            tests = [self._check(check, ()) for check in checks]
            if maker:
                # dbt cannot be told that a generic test of a source waits for the seed.
                tests = [replace(test, kind="singular") for test in tests]
            self.sources.append(Source(f"src{number}", maker, age, tuple(tests)))

    def add(self, number: int, drawn: _Node) -> None:
        """Add a node after those that are there."""
        kind = drawn.kind
        readable = self.nodes if kind not in ("seed", "function") else []
        parents = [self.nodes[-1 - back].name for back in drawn.back if back < len(readable)]
        if kind == "snapshot":
            parents = [name for name in parents if self._of(name).kind not in ("function", "ephemeral")][:1]
            kind = kind if parents else "table"
        node = Node(
            f"{_PREFIX.get(kind, 'm')}{number}",
            kind,
            tuple(parents),
            self._fault(kind, drawn.fault),
            folder=drawn.folder,
        )
        node = self._flagged(self._swapped(node, drawn), drawn.flags)
        if "versions" in drawn.flags and kind in ("table", "view") and not node.alias:
            node = replace(node, name=f"{node.name}_v1", version=1)
        self.nodes.append(replace(node, checks=self._node_checks(node, drawn)))

    def read_sources(self, drawn: list[_Node]) -> None:
        """Let models read sources: only now are the seeds known that make them."""
        for number, (node, wish) in enumerate(zip(self.nodes, drawn, strict=True)):
            if not node.is_model or not self.sources or wish.source is None:
                continue
            source = self.sources[wish.source % len(self.sources)]
            self.nodes[number] = replace(
                node,
                parents=(*node.parents, source.ref),
                checks=tuple(check for check in node.checks if check.kind != "unit"),
            )

    def _of(self, name: str) -> Node:
        return next(node for node in self.nodes if node.name == name)

    @staticmethod
    def _fault(kind: Kind, fault: Fault | None) -> Fault | None:
        possible: dict[str, tuple[Fault, ...]] = {
            "seed": ("sql",),
            "snapshot": ("sql",),
            "function": ("sql", "compile"),
            "microbatch": ("sql", "compile", "batch"),
            "view": ("sql", "compile"),
            "ephemeral": ("sql", "compile"),
        }
        return fault if fault in possible.get(kind, ("sql", "compile", "broken")) else None

    def _swapped(self, node: Node, drawn: _Node) -> Node:
        if drawn.swap is None or not node.is_model or not node.parents or drawn.swap >= len(self.nodes):
            return node
        other = self.nodes[-1 - drawn.swap]
        first = self._of(node.parents[0])
        fits = "function" not in (other.kind, first.kind) and other.name not in node.parents
        return replace(node, swap=other.name) if fits else node

    def _flagged(self, node: Node, flags: frozenset[str]) -> Node:
        # A model that reads a disabled one could not be parsed.
        gated = any(self._of(name).gated for name in node.read)
        gated = gated or ("gated" in flags and node.is_model)
        return replace(
            node,
            alias="alias" in flags and node.kind != "function",
            own_schema="schema" in flags and node.kind != "function",
            grouped="group" in flags,
            gated=gated,
        )

    def _node_checks(self, node: Node, drawn: _Node) -> tuple[Check, ...]:
        if node.kind == "function":
            return ()
        others = [each for each in self.nodes if each.kind != "function" and each.gated == node.gated]
        checks = []
        for wish in drawn.checks:
            if wish.kind == "unit" and not self._unit_testable(node):
                continue
            also = ()
            if wish.kind == "singular" and wish.also is not None and wish.also < len(others):
                also = (others[-1 - wish.also].name,)
            checks.append(self._check(wish, also))
        return tuple(checks)

    def _unit_testable(self, node: Node) -> bool:
        parents = [self._of(name) for name in node.parents]
        return bool(
            node.kind in ("table", "view", "incremental")
            and parents
            and not node.swap
            and not node.gated
            and node.version is None
            and node.fault != "broken"
            and all(p.kind not in ("function", "ephemeral", "microbatch") for p in parents)
        )

    def _check(self, wish: _Check, also: tuple[str, ...]) -> Check:
        self.tests += 1
        return Check(f"t{self.tests}", wish.kind, wish.passes, wish.warns and wish.kind != "unit", also)


@st.composite
def projects(draw: st.DrawFn, most: int = 12) -> Project:
    """Projects of up to so many nodes."""
    # Without the first draw, most projects would be small.
    least = draw(st.sampled_from([1, *range(2, most + 1, 2)]))
    drawn = draw(st.lists(_nodes, min_size=least, max_size=most))
    resolver = _Resolver()
    for number, node in enumerate(drawn):
        resolver.add(number, node)
    resolver.add_sources(draw(_sources))
    resolver.read_sources(drawn)
    return Project(
        tuple(resolver.nodes),
        tuple(resolver.sources),
        draw(_hooks),
        fail_fast=draw(st.sampled_from([False] * 9 + [True])),
        strict_hooks=draw(st.sampled_from([False, False, True])),
    )


@st.composite
def choices(draw: st.DrawFn, project: Project) -> Choices:
    """Choices of a run of a project; what they select is there."""
    less = draw(st.sampled_from([False, False, False, True])) and any(node.gated for node in project.nodes)
    usable = [node for node in project.nodes if not (less and node.gated) and node.kind != "function"]
    swap = any(node.swap for node in project.nodes) and draw(st.booleans())
    stages = sorted({stage_of(f"{_type(node)}.diff.{node.name}", project) for node in project.nodes})
    return Choices(
        select=draw(_selection(usable)),
        exclude=draw(_selection(usable)),
        skip_stages=draw(
            st.one_of(*[st.just(())] * 4, st.lists(st.sampled_from(stages), max_size=1).map(tuple))
        ),
        full_refresh=draw(st.sampled_from([False, False, False, True])),
        swap=swap,
        less=less,
        threads=draw(st.sampled_from([4, 4, 2, 1])),
        fixed=draw(st.booleans()),
    )


def _type(node: Node) -> str:
    return node.kind if not node.is_model else "model"


def _selection(nodes: list[Node]) -> st.SearchStrategy[tuple[str, ...]]:
    if not nodes:
        return st.just(())
    names = st.sampled_from([node.name.partition("_v")[0] for node in nodes])
    token = st.one_of(
        names,
        names.map("{}+".format),
        names.map("+{}".format),
        names.map("@{}".format),
        names.map("1+{}".format),
        st.sampled_from([f"resource_type:{_type(node)}" for node in nodes]),
    )
    some = st.lists(token, min_size=1, max_size=2, unique=True).map(tuple)
    return st.one_of(*[st.just(())] * 4, some)


@st.composite
def cases(draw: st.DrawFn, most: int = 12) -> Case:
    """Projects with a pipeline and one or two runs."""
    project = draw(projects(most))
    execute: Any = draw(st.sampled_from(["build"] * 6 + ["per_model"]))
    if execute == "per_model":
        # Each task is a command of its own, with all hooks, and knows nothing of what has failed before.
        few = draw(projects(min(most, _FEW)))
        project = replace(few, hooks=(), fail_fast=False)
    pipeline = Pipeline(
        tests=draw(st.sampled_from(["gate", "gate", "gate", "end", "off"])),
        stale=draw(st.sampled_from(["fail", "skip", "warn"])),
        execute=execute,
    )
    runs = draw(st.lists(choices(project), min_size=1, max_size=2).map(tuple))
    return Case(project, pipeline, runs)
