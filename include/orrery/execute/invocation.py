"""Several commands of `dbt build` that are one invocation to everybody who looks.

A build of Orrery may take several commands, because sources are checked between them. dbt has no way to say
that commands belong together, so this module, and no other, extends the tasks of dbt's commands `build`,
`test` and, where a model runs alone, `run` (dbt.task.build.BuildTask and the like, dbt-core 1.11;
tests/unit/test_upstream.py fails when they differ).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from orrery.execute.batches import Batches, unfinished

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest


# The modules of tasks that extend each other.
_TASKS = ("run", "build", "seed", "snapshot", "test", "freshness")


@dataclass
class Invocation:
    """What the commands of one build share.

    :param parents: the makers of sources, for which those that read the sources wait, by unique ids of these
    :param began: when the first try began (UTC, naive as in dbt); batches are counted from there
    :param batches: those of earlier builds of the run, of models of which some have failed
    """

    parents: Mapping[str, Sequence[str]]
    began: datetime
    batches: Batches
    invocation_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    # All results so far, as dbt has them.
    results: list[Any] = field(default_factory=list)
    # Whether dbt stops at the first failure.
    fail_fast: bool = False
    # Whether a hook at the start has failed, and the project wants no node to run then.
    skips_nodes: bool = False

    @contextmanager
    def command(self, command: str = "build", *, nodes: bool = True) -> Iterator[None]:
        """Make the next `dbt build`, `dbt test` or `dbt run` a part of this invocation.

        :param nodes: False for a command that runs nothing but hooks
        """
        for other in _TASKS:
            # Whoever is imported while another class stands there would extend that one.
            import_module(f"dbt.task.{other}")
        module, name = import_module(f"dbt.task.{command}"), f"{command.capitalize()}Task"
        original = getattr(module, name)
        setattr(module, name, _extended(original, self, nodes=nodes))
        try:
            yield
        finally:
            setattr(module, name, original)

    def take(self, results: Collection[Any]) -> None:
        """Take dbt's results of a command."""
        self.results += results
        self.batches = unfinished({**self.batches, **batches_of(results)})

    @contextmanager
    def in_order(self, manifest: Manifest) -> Iterator[None]:
        """Let nodes depend on what makes their sources, as long as dbt derives its graph."""
        everything = cast(
            "tuple[Mapping[str, Any], ...]", (manifest.nodes, manifest.unit_tests, manifest.functions)
        )
        before = {}
        for uid, makers in self.parents.items():
            for resources in everything:
                if uid in resources:
                    depends_on = resources[uid].depends_on
                    before[uid] = (depends_on, depends_on.nodes)
                    depends_on.nodes = [*depends_on.nodes, *makers]
        try:
            yield
        finally:
            for depends_on, nodes in before.values():
                depends_on.nodes = nodes


def _extended(original: type[Any], invocation: Invocation, *, nodes: bool) -> type[Any]:
    """dbt's task, as a part of an invocation."""

    class Part(original):  # type: ignore[misc]
        def __init__(self, args: Any, config: Any, manifest: Any) -> None:
            super().__init__(args, config, manifest)
            invocation.fail_fast = bool(args.FAIL_FAST)
            _set_identity(invocation)
            # What `dbt retry` sets: failed batches run again, of the time of the first try.
            self.original_invocation_started_at = invocation.began
            self.batch_map = _failed_batches(invocation.batches)

        def before_run(self, adapter: Any, selected_uids: Any) -> Any:
            status = super().before_run(adapter, selected_uids)
            invocation.skips_nodes |= status != "success" and self.args.SKIP_NODES_IF_ON_RUN_START_FAILS
            return status

        def compile_manifest(self) -> None:
            with invocation.in_order(self.manifest):
                super().compile_manifest()

        def populate_microbatch_batches(self, selected_uids: Collection[str]) -> None:
            super().populate_microbatch_batches(selected_uids)
            # The manifest outlives the command, and with it what an earlier one has left on its models.
            for uid in set(selected_uids) - self.batch_map.keys():
                if hasattr(self.manifest.nodes.get(uid), "previous_batch_results"):
                    self.manifest.nodes[uid].previous_batch_results = None

        def run(self) -> Any:
            if nodes:
                return super().run()
            from dbt_common.events.contextvars import task_contextvars

            # dbt runs no hooks where it finds no nodes.
            with task_contextvars(project_root=self.config.project_root):
                self._runtime_initialize()
                return self.execute_with_hooks(frozenset())

        def execute_nodes(self) -> Any:
            # With fail_fast, dbt would wait for the end of a first node for ever.
            return super().execute_nodes() if nodes else self.node_results

        def after_run(self, adapter: Any, results: Any) -> None:
            # Hooks that come after several commands see what all of them did. Of nodes that it skips because
            # of a hook, dbt tells them nothing.
            before = [] if nodes or invocation.skips_nodes else invocation.results
            super().after_run(adapter, [*before, *results])

    return Part


def _set_identity(invocation: Invocation) -> None:
    """Give dbt's command the id and the start of the invocation, which dbt makes anew for each."""
    from dbt import tracking
    from dbt_common import invocation as module

    module._INVOCATION_ID = invocation.invocation_id
    if tracking.active_user is not None:
        tracking.active_user.invocation_id = invocation.invocation_id


def _failed_batches(batches: Batches) -> dict[str, Any]:
    from dbt.artifacts.schemas.batch_results import BatchResults

    def times(pairs: list[tuple[str, str]]) -> list[tuple[datetime, datetime]]:
        return [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in pairs]

    return {
        uid: BatchResults(times(known["successful"]), times(known["failed"]))
        for uid, known in unfinished(batches).items()
    }


def batches_of(results: Collection[Any]) -> Batches:
    """The batches of the microbatch models among dbt's results."""
    return {
        result.node.unique_id: {
            name: [(start.isoformat(), end.isoformat()) for start, end in getattr(result.batch_results, name)]
            for name in ("successful", "failed")
        }
        for result in results
        if getattr(result, "batch_results", None)
    }


def now() -> datetime:
    """The time as dbt has it: UTC, naive."""
    return datetime.now(UTC).replace(tzinfo=None)
