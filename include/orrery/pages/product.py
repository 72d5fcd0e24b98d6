"""What there is to tell of a pipeline: its runs, its tests, its sources and what it has published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from orrery.config.pipeline import Pipeline
from orrery.config.resources import SOURCE, TEST_TYPES
from orrery.execute import history
from orrery.execute.node_runs import NodeRun
from orrery.pages.metadata import FailedTask, Run
from orrery.pages.words import kind, worst


@dataclass(frozen=True)
class TestResults:
    """The tests of one run; in `failed` those with the most failing rows come first."""

    run: Run
    passed: int
    warned: tuple[NodeRun, ...]
    failed: tuple[NodeRun, ...]

    @property
    def total(self) -> int:
        return self.passed + len(self.warned) + len(self.failed)


@dataclass(frozen=True)
class Product:
    """A pipeline as the pages show it.

    `config` is None when no build has found it good yet; `notice` says what is wrong with it now (see
    orrery.pages.catalog). `runs` are the last ones, the oldest first; `failed` are the
    tasks that failed in the last of them; `nodes` is what the ledger has of these runs. `files` are the
    names of what the latest run has published.
    """

    name: str
    config: Pipeline | None
    runs: tuple[Run, ...] = ()
    failed: tuple[FailedTask, ...] = ()
    nodes: Mapping[str, tuple[NodeRun, ...]] = field(default_factory=dict)
    files: frozenset[str] = frozenset()
    notice: tuple[str, str] | None = None

    @property
    def last(self) -> Run | None:
        return self.runs[-1] if self.runs else None

    @cached_property
    def usual_seconds(self) -> history.Usual | None:
        """How long the earlier runs took that succeeded and were made with the same choices as the last."""
        return history.Usual.of(
            [
                run.seconds
                for run in self.runs[:-1]
                if run.state == "success" and run.seconds is not None and run.choices == self.runs[-1].choices
            ]
        )

    @cached_property
    def tests(self) -> TestResults | None:
        """The tests of the last run that has any; None when no run has."""
        for run in reversed(self.runs):
            found = [node for node in self.nodes.get(run.run_id, ()) if node.resource_type in TEST_TYPES]
            ran = [node for node in found if kind(node.status) != "off"]
            if ran:
                by_kind: dict[str, list[NodeRun]] = defaultdict(list)
                for node in sorted(ran, key=lambda node: (-(node.failures or 0), node.name)):
                    by_kind[kind(node.status)].append(node)
                return TestResults(run, len(by_kind["good"]), tuple(by_kind["warn"]), tuple(by_kind["bad"]))
        return None

    @cached_property
    def sources(self) -> tuple[NodeRun, ...]:
        """The last check of each source, the stale ones first."""
        last: dict[str, NodeRun] = {}
        for run in self.runs:
            for node in self.nodes.get(run.run_id, ()):
                if node.resource_type == SOURCE:
                    last[node.unique_id] = node
        order = ("bad", "warn", "off", "good")
        return tuple(sorted(last.values(), key=lambda node: (order.index(kind(node.status)), node.name)))

    @property
    def health(self) -> str:
        """The worst of the last run, its tests and the sources, as in orrery.pages.words.kind.

        It warns of a pipeline that does not run as the project's files have it.
        """
        words = [node.status for node in self.sources] + (["warn"] if self.notice else [])
        if self.tests:
            words += [node.status for node in (*self.tests.failed, *self.tests.warned)]
        ended = [run for run in self.runs if run.ended]
        words += [run.state for run in (*ended[-1:], *self.runs[-1:])]
        return worst(words) if self.runs else "off"

    @cached_property
    def history(self) -> list[history.Run]:
        """The runs in which nodes began, the oldest first, with all their nodes."""
        return history.runs_of(node for run in self.runs for node in self.nodes.get(run.run_id, ()))


def by_run(nodes: Iterable[NodeRun]) -> dict[str, dict[str, tuple[NodeRun, ...]]]:
    """The nodes by pipeline and run id."""
    found: dict[str, dict[str, list[NodeRun]]] = defaultdict(lambda: defaultdict(list))
    for node in nodes:
        found[node.pipeline][node.run_id].append(node)
    return {name: {run: tuple(those) for run, those in runs.items()} for name, runs in found.items()}


def attention_first(products: Iterable[Product]) -> list[Product]:
    """Those that need somebody first, then by name."""
    order = ("bad", "warn", "busy", "good", "off")
    return sorted(products, key=lambda product: (order.index(product.health), product.name))
