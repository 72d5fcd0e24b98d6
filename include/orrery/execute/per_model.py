"""`execute: per_model`: every task is one dbt process of its own, run by Cosmos."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from cosmos import settings
from cosmos.constants import InvocationMode
from cosmos.operators.local import (
    DbtBuildLocalOperator,
    DbtLocalBaseOperator,
    DbtRunLocalOperator,
    DbtSeedLocalOperator,
    DbtSnapshotLocalOperator,
    DbtSourceLocalOperator,
    DbtTestLocalOperator,
)

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.stages import publishes
from orrery.execute.batches import BatchErrors, BatchProgress
from orrery.execute.collector import NodeRecord, read_records
from orrery.execute.elementary import end_hooks, is_to_blame, run_environment, warn
from orrery.execute.invocation import Invocation
from orrery.execute.ledger import Ledger
from orrery.execute.memory import Memory
from orrery.execute.options import RunOptions
from orrery.execute.profile import profile_config, use_connection
from orrery.execute.results import UNKNOWN, NodeResult, failing, severity
from orrery.execute.run_folder import folder_of, keep_results
from orrery.manifest import packages, quick_dbt
from orrery.manifest.dbt import Dbt
from orrery.manifest.dbt_environment import hide_from_dbt
from orrery.manifest.exactly import exactly
from orrery.manifest.known_secrets import conceal
from orrery.manifest.plugins import only_installed
from orrery.plan.model import TaskKind

if TYPE_CHECKING:
    from airflow.sdk import Context

_OPERATORS: dict[TaskKind, type[DbtLocalBaseOperator]] = {
    TaskKind.SEED: DbtSeedLocalOperator,
    TaskKind.MODEL: DbtRunLocalOperator,
    TaskKind.SNAPSHOT: DbtSnapshotLocalOperator,
    # dbt has no other command for them.
    TaskKind.FUNCTION: DbtBuildLocalOperator,
    TaskKind.FRESHNESS: DbtSourceLocalOperator,
    TaskKind.TEST: DbtTestLocalOperator,
    TaskKind.UNIT_TEST: DbtTestLocalOperator,
}


class NothingRanError(OrreryError):
    """dbt ended well without running the node of the task, which it knows."""


class UnknownNodeError(OrreryError):
    """dbt knows no node of the task in this run."""


class PerModelRun:
    """One dbt command for the nodes of one task, of which the ledger keeps what they did.

    After `execute`, `results` holds what dbt reported and `compiled_sql` the SQL that it ran; both
    are there after a failure too, as far as dbt came.

    :param memory: what earlier tries of a model have left for this one
    :param trial: the DAG run is none that counts, so that the ledger does not keep it
    """

    def __init__(
        self,
        kind: TaskKind,
        nodes: tuple[str, ...],
        options: RunOptions,
        ti: Any,
        *,
        memory: Memory | None,
        trial: bool = False,
    ) -> None:
        self.results: list[NodeResult] = []
        self.compiled_sql = ""
        self._ti, self._choices = ti, options.choices
        self._trial, self._memory = trial, memory
        self._errors = BatchErrors()
        self._folder: Path | None = None
        arguments: dict[str, Any] = {}
        if options.variables:
            arguments["vars"] = dict(options.variables)
        if options.threads:
            arguments["threads"] = options.threads
        if options.full_refresh and kind in (TaskKind.SEED, TaskKind.MODEL):
            arguments["full_refresh"] = True
        quick_dbt.hurry()
        only_installed()
        project = self._project = Project.find()
        use_connection(project, folder_of(project, ti.dag_id, ti.run_id))
        hide_from_dbt(project)
        self._dbt = Dbt(project)
        self._nodes = nodes
        self._unknown = False
        # Commands of other tasks may run in this process's folders at the same time.
        self._state = TemporaryDirectory(prefix="orrery-selected-")
        chosen = exactly(nodes, Path(self._state.name))
        self._operator = _OPERATORS[kind](
            task_id="dbt",
            project_dir=str(project.dbt_dir),
            profile_config=profile_config(project),
            select=" ".join(chosen["select"]),
            dbt_cmd_flags=["--state", chosen["state"], "--indirect-selection", chosen["indirect_selection"]],
            invocation_mode=InvocationMode.DBT_RUNNER,
            install_deps=False,
            # The results are read from what dbt writes, whatever the project's flags say.
            dbt_cmd_global_flags=["--write-json", "--no-use-colors"],
            emit_datasets=False,
            # Cosmos takes the newer of the build's partial parse and the one in its own cache.
            cache_dir=Path(settings.cache_dir) / "orrery",
            callback=self._collect,
            dbt_runner_callbacks=[self._dbt.hold_adapter, self._errors],
            **arguments,
        )

    def execute(self, context: Context) -> None:
        """Run dbt; raises what Cosmos raises, with dbt's message, when a node fails."""
        task_ids = context["dag"].task_ids
        if publishes("artifacts", task_ids):
            self._folder = folder_of(self._project, self._ti.dag_id, self._ti.run_id)
        elementary = publishes("elementary", task_ids) and packages.has_elementary(self._project)
        try:
            self._run(context, elementary=elementary)
        except Exception as error:
            failed = any(severity(result.status) > severity("warn") for result in self.results)
            ids = [result.unique_id for result in self.results]
            if not elementary or failed or (ids and not is_to_blame(end_hooks(self._project), ids)):
                raise
            warn(error)
            if not self.results:
                # It may have been a hook at the start.
                self._run(context, elementary=False)
        finally:
            self._state.cleanup()
        if self._unknown:
            raise UnknownNodeError(UNKNOWN)
        if not self.results:
            raise NothingRanError(f"dbt ran nothing for {', '.join(self._nodes)}, which it knows.")

    def _run(self, context: Context, *, elementary: bool) -> None:
        results = run_environment(self._ti, results=elementary)
        with self._invocation(), packages.environment(packages.variables(self._project) | results):
            self._operator.build_and_run_cmd(context=context, cmd_flags=self._operator.add_cmd_flags())

    def _invocation(self) -> AbstractContextManager[None]:
        """While dbt runs: batches that have failed run again, of the days of the first try."""
        if self._memory is None:
            return nullcontext()
        known = self._memory.known
        batches = BatchProgress(known["batches"], self._memory.remember)
        return Invocation({}, datetime.fromisoformat(known["began"]), batches).command("run")

    def on_kill(self) -> None:
        """Stop what dbt does, as far as Cosmos can."""
        self._operator.on_kill()

    def _collect(self, project_dir: str, **_: Any) -> None:
        target = Path(project_dir) / "target"
        records = read_records(target)
        self._unknown = not records and not knows(target, self._nodes)
        for record in records:
            if record.result and failing(record.result.status):
                told = self._errors.explain(record.result.unique_id, record.result.message or "")
                record.result = replace(record.result, message=told or None)
        self.results = [record.result for record in records if record.result]
        self.compiled_sql = conceal(self._operator.compiled_sql)
        if self._folder is not None:
            keep_results(target, self._folder)
        # A later command in the same folder must not find these files again.
        shutil.rmtree(target, ignore_errors=True)
        if not self._trial:
            # dbt has run in this process, so that its adapter is here.
            ledger = Ledger(self._ti.dag_id, self._ti.run_id, self._dbt, choices=self._choices)
            ledger.take((node for node in records if _is_node(node)), self._ti.try_number)
            ledger.write()
        # Cosmos has taken it away already; nothing shall keep its semaphores until the process ends.
        self._dbt.hold_adapter()


def knows(target: Path, unique_ids: Iterable[str]) -> bool:
    """Whether one of the nodes is in the manifest that dbt's last command in a target folder has written."""
    manifest: dict[str, Any] = {}
    with suppress(FileNotFoundError):
        manifest = json.loads((target / "manifest.json").read_bytes())
    kinds = [manifest.get(key, {}) for key in ("nodes", "sources", "functions", "unit_tests")]
    return any(uid in kind for uid in unique_ids for kind in kinds)


def _is_node(record: NodeRecord) -> bool:
    """Whether it is no hook, such as on-run-start, of which dbt has results, too."""
    return record.result is not None and not record.result.unique_id.startswith("operation.")
