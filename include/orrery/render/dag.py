"""Turns a plan into an Airflow DAG; Cosmos reads the manifest and draws the lineage."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from importlib import import_module
from typing import Any

from airflow.sdk import (
    DAG,
    Asset,
    AssetAll,
    AssetAny,
    AssetWatcher,
    BaseOperator,
    Param,
    TaskGroup,
    TriggerRule,
)
from airflow.sdk.definitions.mappedoperator import MappedOperator
from cosmos.config import ExecutionConfig, ProjectConfig, RenderConfig
from cosmos.constants import DbtResourceType, LoadMode, SourceRenderingBehavior, TestBehavior
from cosmos.converter import DbtToAirflowConverter

from orrery.config.pipeline import BUILD, FINISHED, INGEST, After, Pipeline
from orrery.config.project import Project
from orrery.execute.build import DbtBuildOperator
from orrery.execute.marker import MarkerOperator
from orrery.execute.node import BuiltNodeOperator, DbtNodeOperator, PerModelOperator
from orrery.execute.options import (
    EXCLUDE,
    FULL_REFRESH,
    MAX_THREADS,
    SELECT,
    SKIP_STAGES,
    THREADS,
    URI,
    VARS,
)
from orrery.execute.profile import profile_config
from orrery.manifest.store import ManifestStore
from orrery.plan.model import PipelinePlan, TaskKind, TaskPlan, Work

# The operators of nodes by `execute`.
NODE_OPERATORS: dict[str, type[DbtNodeOperator]] = {
    "build": BuiltNodeOperator,
    "per_model": PerModelOperator,
}
# The operators of work beside dbt by its kind; imported when a pipeline has such work, for some of them bring
# the library of a provider with them.
WORK_OPERATORS = {
    "files": "orrery.ingest.operator.IngestFilesOperator",
    "airbyte": "orrery.ingest.airbyte.AirbyteOperator",
    "transfer": "orrery.ingest.transfer.TransferOperator",
    "job": "orrery.ingest.kubernetes.JobOperator",
    "spark": "orrery.ingest.kubernetes.SparkOperator",
    "http": "orrery.ingest.exposure.HttpOperator",
    "pipeline": "orrery.ingest.exposure.PipelineOperator",
}
# Tasks of a build take no worker, but each running one counts against its DAG.
MAX_ACTIVE_TASKS = 1000
# A build that was killed goes on where it stopped.
BUILD_RETRIES = 2
BUILD_RETRY_DELAY = timedelta(seconds=5)
CONVERTED = ("seed", "model", "snapshot", "source")


def render(plan: PipelinePlan, project: Project, *, announced: bool) -> DAG:
    """The DAG of `plan`; `announced` adds the task whose asset starts the pipelines that come after."""
    config = plan.config
    dag = DAG(
        dag_id=plan.name,
        description=config.description.strip().partition("\n")[0] or None,
        doc_md=f"{config.description}\n\nDefined in `{plan.file}`.",
        schedule=_schedule(plan, project),
        start_date=datetime.combine(config.start_date, time(), UTC) if config.start_date else None,
        catchup=config.catchup,
        max_active_runs=config.max_active_runs,
        tags=set(config.tags),
        default_args=_default_args(config),
    )
    if config.execute == "build":
        dag.max_active_tasks = MAX_ACTIVE_TASKS
    builder = _Builder(plan, dag)
    builder.add_nodes(project)
    builder.add_checks()
    builder.connect()
    if config.execute == "build":
        builder.add_build()
    if announced:
        builder.announce()
    # Only now: every task that is made while its DAG has params gets a deep copy of them.
    dag.params.update(_params(plan))
    return dag


def _work_operator(work: Work) -> type[BaseOperator]:
    module, _, name = WORK_OPERATORS[work.kind].rpartition(".")
    operator: type[BaseOperator] = getattr(import_module(module), name)
    return operator


def _is_resumed(work: Work) -> bool:
    """Whether a task waits in the triggerer, and does no harm when it comes twice.

    Airflow fails such a task when it is resumed before the end of its first worker was noticed, which a
    busy scheduler does late.
    """
    waits = work.kind == "files" and work.block.if_missing == "wait"
    return waits or work.kind in ("airbyte", "job", "spark")


def asset_of(pipeline: str) -> Asset:
    """The asset that a pipeline updates when it has succeeded."""
    return Asset(name=f"orrery_{pipeline}", uri=f"orrery://pipeline/{pipeline}")


def _schedule(plan: PipelinePlan, project: Project) -> Any:
    config = plan.config
    if isinstance(config.schedule, After):
        condition = AssetAny if config.schedule.when == "any" else AssetAll
        return condition(*(asset_of(name) for name in config.schedule.after))
    if config.on_files:
        files = (task for task in plan.tasks.values() if task.work and task.work.kind == "files")
        return AssetAny(
            *(_landing_asset(task.work, project) for task in files if task.work and not task.step)
        )
    return config.schedule


def _landing_asset(work: Work, project: Project) -> Asset:
    """The asset that the arrival of files for a source updates."""
    # Few pipelines need it, and every parse would pay for it.
    from orrery.ingest.trigger import FilesArrivedTrigger

    name = f"orrery_landing_{work.of}"
    trigger = FilesArrivedTrigger.of(work.block, project)
    return Asset(
        name=name,
        uri=f"orrery://landing/{work.of}",
        watchers=[AssetWatcher(name=f"{name}_watcher", trigger=trigger)],
    )


def _default_args(config: Pipeline) -> dict[str, Any]:
    arguments: dict[str, Any] = {"retries": config.retries, "trigger_rule": TriggerRule.NONE_FAILED}
    if config.pool and config.execute == "per_model":
        arguments["pool"] = config.pool
    return arguments


def _params(plan: PipelinePlan) -> dict[str, Param]:
    return {
        SELECT: Param(
            None,
            type=["null", "string"],
            title="Select",
            description="Only these nodes of the pipeline, in dbt's selection syntax.",
        ),
        EXCLUDE: Param(
            None,
            type=["null", "string"],
            title="Exclude",
            description="All but these nodes of the pipeline, in dbt's selection syntax.",
        ),
        FULL_REFRESH: Param(
            plan.config.full_refresh,
            type="boolean",
            title="Full refresh",
            description="Rebuild incremental models and seeds from nothing (dbt --full-refresh).",
        ),
        VARS: Param(
            None,
            type=["null", "object"],
            title="Vars",
            description="dbt's --vars, as a JSON object.",
        ),
        SKIP_STAGES: Param(
            [stage for stage in plan.config.skip_stages if stage in plan.stages],
            type="array",
            items={"type": "string", "enum": list(plan.stages)},
            examples=list(plan.stages),
            title="Stages to leave out",
            description="Their tasks are skipped in this run; what comes after them runs.",
        ),
        THREADS: Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=MAX_THREADS,
            title="Threads",
            description="How many nodes dbt runs at once; by default what the profile says.",
        ),
        URI: Param(
            None,
            type=["null", "string"],
            title="URI",
            description="Only this object is brought in, such as s3://bucket/orders/1.csv.",
        ),
    }


class _Builder:
    """Adds the tasks of a plan to a DAG."""

    def __init__(self, plan: PipelinePlan, dag: DAG) -> None:
        self.plan = plan
        self.dag = dag
        self.tasks: dict[str, BaseOperator | MappedOperator] = {}
        self._groups: dict[str, TaskGroup] = {}
        for stage in plan.stages:
            self._groups[stage] = TaskGroup(group_id=stage, dag=dag)

    def add_nodes(self, project: Project) -> None:
        """The tasks of seeds, models, snapshots and sources, with the edges of the lineage."""

        # A plain function: Cosmos deep-copies its configuration, and a bound method would take a copy
        # of this builder and of the DAG with it.
        def convert(node: Any, **_: Any) -> BaseOperator | MappedOperator | None:
            # A source without freshness has no task.
            task_id = self.plan.by_node.get(node.unique_id)
            return self._add(self.plan.tasks[task_id]) if task_id else None

        DbtToAirflowConverter(
            dag=self.dag,
            project_config=ProjectConfig(
                dbt_project_path=project.dbt_dir,
                manifest_path=ManifestStore(project).path(self.plan.name),
                install_dbt_deps=False,
            ),
            profile_config=profile_config(project),
            execution_config=ExecutionConfig(),
            render_config=RenderConfig(
                load_method=LoadMode.DBT_MANIFEST,
                test_behavior=TestBehavior.NONE,
                source_rendering_behavior=SourceRenderingBehavior.ALL,
                emit_datasets=False,
                node_converters={DbtResourceType(name): convert for name in CONVERTED},
            ),
        )

    def add_checks(self) -> None:
        """The tasks that Cosmos cannot place: tests, unit tests and markers."""
        for task in self.plan.tasks.values():
            if task.task_id not in self.tasks:
                self._add(task)

    def connect(self) -> None:
        """The edges that are not in dbt's lineage: from tests to what they hold back, and the like."""
        for task_id, task in self.plan.tasks.items():
            operator = self.tasks[task_id]
            missing = task.upstream - operator.upstream_task_ids
            if missing:
                operator.set_upstream([self.tasks[other] for other in sorted(missing)])

    def add_build(self) -> None:
        """The task that runs dbt: after all data has come in, before everything else."""
        config = self.plan.config
        ingests = {tid: self.tasks[tid] for tid, task in self.plan.tasks.items() if task.stage == INGEST}
        first = [
            task
            for task_id, task in self.tasks.items()
            if task_id not in ingests and task.upstream_task_ids <= ingests.keys()
        ]
        # The pool is for what loads the warehouse, and that is this one task.
        pool = {"pool": config.pool} if config.pool else {}
        build = DbtBuildOperator(
            task_id=BUILD,
            dag=self.dag,
            plan=self.plan,
            retries=max(BUILD_RETRIES, config.retries),
            retry_delay=BUILD_RETRY_DELAY,
            doc_md="Runs dbt once for all nodes of the pipeline and ends their tasks.",
            # Data that has not come in holds back what reads it, and nothing else.
            trigger_rule=TriggerRule.ALL_DONE,
            **pool,
        )
        build.set_upstream(
            [task for task in ingests.values() if not task.downstream_task_ids & ingests.keys()]
        )
        build.set_downstream(first)

    def announce(self) -> None:
        """A last task that updates the pipeline's asset once everything has succeeded."""
        last = [task for task in self.tasks.values() if not task.downstream_task_ids]
        finished = MarkerOperator(task_id=FINISHED, dag=self.dag, outlets=[asset_of(self.plan.name)])
        finished.set_upstream(last)

    def _add(self, task: TaskPlan) -> BaseOperator | MappedOperator:
        arguments: dict[str, Any] = {
            "task_id": task.name,
            "task_group": self._groups[task.stage],
            "dag": self.dag,
            "doc_md": task.doc,
        }
        if task.owner:
            arguments["owner"] = task.owner
        if task.always:
            arguments["trigger_rule"] = TriggerRule.ALL_DONE
        elif task.kind is TaskKind.EXPOSURE:
            # Not after a run that has left out all its models, or in which they were stale.
            arguments["trigger_rule"] = TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS
        operator: BaseOperator | MappedOperator
        if task.kind is TaskKind.MARKER:
            operator = MarkerOperator(**arguments)
        elif task.work and task.work.kind == "files" and task.work.block.chunk_size:
            # Few pipelines need it.
            from orrery.render.chunks import chunk_operator

            operator = chunk_operator(task, self.tasks, arguments)
        elif task.work:
            if _is_resumed(task.work):
                arguments["retries"] = max(1, self.plan.config.retries)
                arguments["retry_delay"] = BUILD_RETRY_DELAY
            operator = _work_operator(task.work)(
                stage=task.stage, nodes=task.nodes, work=task.work, **arguments
            )
        else:
            operator = NODE_OPERATORS[self.plan.config.execute](
                kind=task.kind, stage=task.stage, nodes=task.nodes, select=task.select, **arguments
            )
        self.tasks[task.task_id] = operator
        return operator
