"""`execute: per_model`: every task is one dbt process of its own, run by Cosmos."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosmos import settings
from cosmos.constants import InvocationMode
from cosmos.operators.local import (
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
from orrery.execute.collector import NodeRecord, read_records
from orrery.execute.elementary import end_hooks, is_to_blame, run_environment, warn
from orrery.execute.ledger import Ledger
from orrery.execute.options import RunOptions
from orrery.execute.profile import profile_config, use_connection
from orrery.execute.results import NodeResult, severity
from orrery.execute.run_folder import folder_of, keep_results
from orrery.manifest import packages
from orrery.manifest.dbt import Dbt
from orrery.plan.model import TaskKind

if TYPE_CHECKING:
    from airflow.sdk import Context
_OPERATORS: dict[TaskKind, type[DbtLocalBaseOperator]] = {
    TaskKind.SEED: DbtSeedLocalOperator,
    TaskKind.MODEL: DbtRunLocalOperator,
    TaskKind.SNAPSHOT: DbtSnapshotLocalOperator,
    TaskKind.FRESHNESS: DbtSourceLocalOperator,
    TaskKind.TEST: DbtTestLocalOperator,
    TaskKind.UNIT_TEST: DbtTestLocalOperator,
}


class NothingRanError(OrreryError):
    """dbt ended well without running the node of the task."""


class PerModelRun:
    """One dbt command for the nodes of one task, of which the ledger keeps what they did.

    After `execute`, `results` holds what dbt reported and `compiled_sql` the SQL that it ran; both
    are there after a failure too, as far as dbt came.
    """

    def __init__(self, kind: TaskKind, select: tuple[str, ...], options: RunOptions, ti: Any) -> None:
        self.results: list[NodeResult] = []
        self.compiled_sql = ""
        self._ti = ti
        self._folder: Path | None = None
        arguments: dict[str, Any] = {}
        if options.variables:
            arguments["vars"] = dict(options.variables)
        if options.threads:
            arguments["threads"] = options.threads
        if options.full_refresh and kind in (TaskKind.SEED, TaskKind.MODEL):
            arguments["full_refresh"] = True
        project = self._project = Project.find()
        use_connection(project, folder_of(project, ti.dag_id, ti.run_id))
        self._dbt = Dbt(project)
        self._select = select
        self._operator = _OPERATORS[kind](
            task_id="dbt",
            project_dir=str(project.dbt_dir),
            profile_config=profile_config(project),
            select=" ".join(select),
            invocation_mode=InvocationMode.DBT_RUNNER,
            install_deps=False,
            emit_datasets=False,
            # Cosmos takes the newer of the build's partial parse and the one in its own cache.
            cache_dir=Path(settings.cache_dir) / "orrery",
            callback=self._collect,
            dbt_runner_callbacks=[self._dbt.hold_adapter],
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
        if not self.results:
            raise NothingRanError(
                f"dbt ran nothing for {' '.join(self._select)}: the project is not the one that the DAG "
                "was made from.\n  Run ./orrery build"
            )

    def _run(self, context: Context, *, elementary: bool) -> None:
        results = run_environment(self._ti, results=elementary)
        with packages.environment(packages.variables(self._project) | results):
            self._operator.build_and_run_cmd(context=context, cmd_flags=self._operator.add_cmd_flags())

    def on_kill(self) -> None:
        """Stop what dbt does, as far as Cosmos can."""
        self._operator.on_kill()

    def _collect(self, project_dir: str, **_: Any) -> None:
        target = Path(project_dir) / "target"
        records = read_records(target)
        self.results = [record.result for record in records if record.result]
        self.compiled_sql = self._operator.compiled_sql
        if self._folder is not None:
            keep_results(target, self._folder)
        # A later command in the same folder must not find these files again.
        shutil.rmtree(target, ignore_errors=True)
        # dbt has run in this process, so that its adapter is here.
        ledger = Ledger(self._ti.dag_id, self._ti.run_id, self._dbt)
        ledger.take((node for node in records if _is_node(node)), self._ti.try_number)
        ledger.write()
        # Cosmos has taken it away already; nothing shall keep its semaphores until the process ends.
        self._dbt.hold_adapter()


def _is_node(record: NodeRecord) -> bool:
    """Whether it is no hook, such as on-run-start, of which dbt has results, too."""
    return record.result is not None and not record.result.unique_id.startswith("operation.")
