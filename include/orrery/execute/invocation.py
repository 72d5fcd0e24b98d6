"""Several commands of `dbt build` that are one invocation to everybody who looks.

A build of Orrery may take several commands, because sources are checked between them. dbt has no way to say
that commands belong together, so this module, and no other, extends the tasks of dbt's commands `build`,
`test` and, where a model runs alone, `run` (dbt.task.build.BuildTask and the like, dbt-core 1.11;
tests/unit/test_upstream.py fails when they differ).
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from orrery.execute.batches import Batches, BatchProgress

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest


# One of dbt's tasks.
_Task: Any = object
# The modules of tasks that extend each other.
_TASKS = ("run", "build", "seed", "snapshot", "test", "freshness")


@dataclass
class Invocation:
    """What the commands of one build share.

    :param parents: the makers of sources, for which those that read the sources wait, by unique ids of these
    :param began: when the first try began (UTC, naive as in dbt); batches are counted from there
    :param batches: those of microbatch models
    """

    parents: Mapping[str, Sequence[str]]
    began: datetime
    batches: BatchProgress
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
            self.batches.close()

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
    return type("Part", (_Part, original), {"invocation": invocation, "has_nodes": nodes})


class _Part(_Task):  # type: ignore[misc]
    """What dbt's tasks do otherwise as a part of an invocation."""

    invocation: Invocation
    has_nodes: bool

    def __init__(self, args: Any, config: Any, manifest: Any) -> None:
        super().__init__(args, config, manifest)
        self.invocation.fail_fast = bool(args.FAIL_FAST)
        _set_identity(self.invocation)
        # What `dbt retry` sets: failed batches run again, of the time of the first try.
        self.original_invocation_started_at = self.invocation.began
        self.batch_map = _failed_batches(self.invocation.batches.unfinished)

    def run(self) -> Any:
        from dbt_common.events.contextvars import task_contextvars

        begun = [uid for uid, known in self.batch_map.items() if known.successful]
        with _without_full_refresh(self.manifest, begun):
            if self.has_nodes:
                return super().run()
            # dbt runs no hooks where it finds no nodes.
            with task_contextvars(project_root=self.config.project_root):
                self._runtime_initialize()
                return self.execute_with_hooks(frozenset())

    def compile_manifest(self) -> None:
        with self.invocation.in_order(self.manifest):
            super().compile_manifest()

    def before_run(self, adapter: Any, selected_uids: Any) -> Any:
        status = super().before_run(adapter, selected_uids)
        if status != "success" and self.args.SKIP_NODES_IF_ON_RUN_START_FAILS:
            self.invocation.skips_nodes = True
        return status

    def populate_microbatch_batches(self, selected_uids: Collection[str]) -> None:
        super().populate_microbatch_batches(selected_uids)
        # The manifest outlives the command, and with it what an earlier one has left on its models.
        for uid in set(selected_uids) - self.batch_map.keys():
            if hasattr(self.manifest.nodes.get(uid), "previous_batch_results"):
                self.manifest.nodes[uid].previous_batch_results = None

    def _submit_batch(self, **arguments: Any) -> Any:
        batches, uid = self.invocation.batches, arguments["node"].unique_id
        if arguments["batch_idx"] == 0:
            batches.begin(uid, arguments["batches"].values())
        results = _Noted(uid, arguments["batch_results"], batches)
        return super()._submit_batch(**{**arguments, "batch_results": results})

    def execute_nodes(self) -> Any:
        # With fail_fast, dbt would wait for the end of a first node for ever.
        return super().execute_nodes() if self.has_nodes else self.node_results

    def after_run(self, adapter: Any, results: Any) -> None:
        # Hooks that come after several commands see what all of them did. Of nodes that it skips because of
        # a hook, dbt tells them nothing.
        invocation = self.invocation
        before = [] if self.has_nodes or invocation.skips_nodes else invocation.results
        super().after_run(adapter, [*before, *results])


@contextmanager
def _without_full_refresh(manifest: Manifest, unique_ids: Iterable[str]) -> Iterator[None]:
    """Let models keep the batches that they have: a full refresh began with them, and would begin anew."""
    models: list[Any] = [manifest.nodes[uid] for uid in unique_ids if uid in manifest.nodes]
    configs = [model.config for model in models if model.resource_type == "model"]
    before = [config.full_refresh for config in configs]
    for config in configs:
        config.full_refresh = False
    try:
        yield
    finally:
        for config, value in zip(configs, before, strict=True):
            config.full_refresh = value


@dataclass
class _Noted:
    """In place of dbt's list of the results of a model's batches."""

    uid: str
    results: list[Any]
    batches: BatchProgress

    def append(self, result: Any) -> None:
        """Take dbt's result of a batch."""
        self.batches.end(self.uid, result.batch_results.successful if result.batch_results else ())
        self.results.append(result)


def _set_identity(invocation: Invocation) -> None:
    """Give dbt's command the id and the start of the invocation, which dbt makes anew for each."""
    from dbt import tracking
    from dbt_common import invocation as module

    module._INVOCATION_ID = invocation.invocation_id
    if tracking.active_user is not None:
        tracking.active_user.invocation_id = invocation.invocation_id


def _failed_batches(batches: Batches) -> dict[str, Any]:
    """What `dbt retry` would know of them."""
    from dbt.artifacts.schemas.batch_results import BatchResults

    def times(pairs: list[list[str]]) -> list[tuple[datetime, datetime]]:
        return [(datetime.fromisoformat(start), datetime.fromisoformat(end)) for start, end in pairs]

    return {
        uid: BatchResults(times(known["successful"]), times(known["failed"]))
        for uid, known in batches.items()
    }


def now() -> datetime:
    """The time as dbt has it: UTC, naive."""
    return datetime.now(UTC).replace(tzinfo=None)
