"""A dbt project as a plain value: its nodes, sources, tests and hooks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["seed", "view", "table", "incremental", "microbatch", "ephemeral", "snapshot", "function"]
# sql: the database refuses the node's statement. compile: its Jinja raises. batch: the second
# batch of a microbatch model fails. broken: fails until the test fixes it.
Fault = Literal["sql", "compile", "batch", "broken"]
Folder = Literal["staging", "core"]


@dataclass(frozen=True)
class Check:
    """A test of dbt's: generic or singular on one node or source, a unit test of a model.

    :param also: what else a singular test reads
    """

    name: str
    kind: Literal["generic", "singular", "unit"] = "generic"
    passes: bool = True
    warns: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Node:
    """A node that dbt builds. `parents` are names of earlier nodes, and `app.<name>` for sources.

    :param swap: read in place of the first parent in a run with the variable `swap`
    :param gated: disabled in a run with the variable `less`; its descendants are gated, too
    :param version: a version of the model `name` without its suffix
    """

    name: str
    kind: Kind = "table"
    parents: tuple[str, ...] = ()
    fault: Fault | None = None
    checks: tuple[Check, ...] = ()
    folder: Folder = "core"
    swap: str | None = None
    gated: bool = False
    alias: bool = False
    own_schema: bool = False
    grouped: bool = False
    version: int | None = None

    @property
    def read(self) -> tuple[str, ...]:
        """All that the node may read, in any run."""
        return self.parents + ((self.swap,) if self.swap else ())

    def reads_in(self, *, swap: bool) -> tuple[str, ...]:
        """What the node reads in a run with or without the variable `swap`."""
        return (self.swap, *self.parents[1:]) if swap and self.swap else self.parents

    @property
    def is_model(self) -> bool:
        """Whether it is a model in dbt's words."""
        return self.kind not in ("seed", "snapshot", "function")


@dataclass(frozen=True)
class Source:
    """A table of the source `app`.

    :param made_by: the seed that makes the table; by default it is there before dbt runs
    :param age: what a freshness check finds; None without one
    """

    name: str
    made_by: str | None = None
    age: Literal["fresh", "old", "stale", "unknown"] | None = None
    checks: tuple[Check, ...] = ()

    @property
    def ref(self) -> str:
        """How nodes name it among their parents."""
        return f"app.{self.name}"


@dataclass(frozen=True)
class Hook:
    """An on-run-start or on-run-end hook. A good one takes down what it saw."""

    when: Literal["start", "end"]
    fault: Literal["sql", "compile"] | None = None


@dataclass(frozen=True)
class Project:
    """A dbt project; every node comes after what it reads."""

    nodes: tuple[Node, ...]
    sources: tuple[Source, ...] = ()
    hooks: tuple[Hook, ...] = ()
    fail_fast: bool = False
    # Whether no node runs when a hook at the start has failed.
    strict_hooks: bool = False

    @property
    def by_name(self) -> dict[str, Node]:
        """The nodes by their names."""
        return {node.name: node for node in self.nodes}

    def checked(self) -> Iterator[tuple[str, Check]]:
        """Every test, with the node or source (`app.<name>`) that it belongs to."""
        for node in self.nodes:
            for check in node.checks:
                yield node.name, check
        for source in self.sources:
            for check in source.checks:
                yield source.ref, check

    def makers(self) -> dict[str, str]:
        """The seed that makes a source's table, by the source's name among parents."""
        return {source.ref: source.made_by for source in self.sources if source.made_by}

    def descendants(self, names: set[str], *, swap: bool | None = None) -> set[str]:
        """What reads one of `names`, at any distance; a source follows its maker.

        :param swap: in a run with or without the variable `swap`; None: in any run
        """
        makers = self.makers()
        found: set[str] = set()
        for node in self.nodes:
            own = node.read if swap is None else node.reads_in(swap=swap)
            read = {makers.get(name, name) for name in own} | set(own)
            if read & (names | found):
                found.add(node.name)
        return found
