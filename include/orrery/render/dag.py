"""Turns a plan into an Airflow DAG; Cosmos reads the manifest and draws the lineage."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

from airflow.sdk import (
    DAG,
    BaseOperator,
    TaskGroup,
    TriggerRule,
)
from airflow.sdk.definitions.mappedoperator import MappedOperator
from cosmos.config import ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import DbtResourceType, LoadMode, SourceRenderingBehavior, TestBehavior
from cosmos.converter import DbtToAirflowConverter

from orrery.config.alerts import Alerts
from orrery.config.environment import environment
from orrery.config.pipeline import Pipeline
from orrery.config.project import Project
from orrery.config.resources import NODE_TYPES, SOURCE
from orrery.config.stages import ALERT, BUILD, FINISHED, INGEST, PUBLISH
from orrery.execute import build_tries
from orrery.execute.marker import MarkerOperator
from orrery.execute.run_graph import RunGraph
from orrery.plan.model import PipelinePlan, TaskKind, TaskPlan
from orrery.render.form import form_of
from orrery.render.nodes import build_operator, node_operator
from orrery.render.schedule import asset_of, schedule_of
from orrery.render.work import publish_operator, work_operator

# Tasks of a build take no worker, but each running one counts against its DAG.
MAX_ACTIVE_TASKS = 1000
_PROFILES = Path(__file__).with_name("profiles.yml")
# It warns of every seed that it cannot read, each time: a stored version of a pipeline has no files of seeds.
logging.getLogger("cosmos.fs").setLevel(logging.ERROR)


def render(plan: PipelinePlan, project: Project, version: Path, *, announced: bool) -> DAG:
    """The DAG of `plan`, which was made of a stored version of the pipeline.

    It depends on nothing else that somebody may be editing: not on the dbt project, nor on its profile.

    :param announced: adds the task whose asset starts the pipelines that come after
    """
    config = plan.config
    dag = DAG(
        dag_id=plan.name,
        description=config.description.strip().partition("\n")[0] or None,
        doc_md=f"{config.description}\n\nDefined in `{plan.file}`.",
        schedule=schedule_of(plan, project),
        start_date=datetime.combine(config.start_date, time(), UTC) if config.start_date else None,
        catchup=config.catchup,
        max_active_runs=config.max_active_runs,
        tags={*config.tags, *filter(None, [environment()])},
        default_args={"retries": config.retries, "trigger_rule": TriggerRule.NONE_FAILED},
        **_deadline(plan),
    )
    if config.one_build:
        dag.max_active_tasks = MAX_ACTIVE_TASKS
    builder = _Builder(plan, dag)
    builder.add_nodes(version)
    builder.add_checks()
    builder.connect()
    if config.one_build:
        builder.add_build()
    if announced:
        builder.announce()
    if plan.alerts:
        builder.add_alert(plan.alerts)
    # Only now: every task that is made while its DAG has params gets a deep copy of them.
    dag.params.update(form_of(plan))
    return dag


def _dbt_queue() -> dict[str, str]:
    """With Celery: the queue of the tasks that may run dbt, of the workers that have its project."""
    queue = os.environ.get("ORRERY_DBT_QUEUE")
    return {"queue": queue} if queue else {}


def _pool(config: Pipeline) -> dict[str, str]:
    """The pool of the tasks that load the warehouse by dbt."""
    return {"pool": config.pool} if config.pool else {}


def _deadline(plan: PipelinePlan) -> dict[str, Any]:
    """The argument of a DAG that says when its runs are late."""
    if plan.config.sla is None or plan.alerts is None or "late" not in plan.alerts.on:
        return {}
    # Few pipelines need it.
    from orrery.alert.late import deadline_of

    return {"deadline": deadline_of(plan.config.sla, plan.alerts, plan.config.owner)}


def _on_failure(plan: PipelinePlan) -> dict[str, Any]:
    """The argument of a task that tells people of its failure."""
    if plan.alerts is None or "failure" not in plan.alerts.on:
        return {}
    from orrery.alert.failure import FailureAlert

    return {"on_failure_callback": [FailureAlert(plan.alerts, plan.config.owner)]}


def _checks_before(plan: PipelinePlan) -> dict[str, list[str]]:
    """With `stale: skip` and no build: the checks of sources before each task, which skip it."""
    if plan.config.stale != "skip" or plan.config.one_build:
        return {}
    graph, found = RunGraph.planned(plan.tasks), dict[str, list[str]]()
    for task_id, task in plan.tasks.items():
        if task.kind is TaskKind.FRESHNESS:
            for other in graph.descendants([task_id]):
                found.setdefault(other, []).append(task_id)
    return found


class _Builder:
    """Adds the tasks of a plan to a DAG."""

    def __init__(self, plan: PipelinePlan, dag: DAG) -> None:
        self.plan = plan
        self.dag = dag
        self.tasks: dict[str, BaseOperator | MappedOperator] = {}
        self._groups: dict[str, TaskGroup] = {}
        # Not among the default arguments of the DAG: Airflow would store those, with their addresses.
        self._on_failure = _on_failure(plan)
        self._checks = _checks_before(plan)
        self._published = {tid for tid, task in plan.tasks.items() if task.stage == PUBLISH}
        for stage in plan.stages:
            self._groups[stage] = TaskGroup(group_id=stage, dag=dag)

    def add_nodes(self, version: Path) -> None:
        """The tasks of nodes and sources, with the edges of the lineage."""

        # A plain function: Cosmos deep-copies its configuration, and a bound method would take a copy
        # of this builder and of the DAG with it.
        def convert(node: Any, **_: Any) -> BaseOperator | MappedOperator | None:
            # A source without freshness has no task.
            task_id = self.plan.by_node.get(node.unique_id)
            return self._add(self.plan.tasks[task_id]) if task_id else None

        DbtToAirflowConverter(
            dag=self.dag,
            project_config=ProjectConfig(manifest_path=version, project_name=self.plan.name),
            # Cosmos wants to see a profile and a folder, which its own operators would use.
            profile_config=ProfileConfig("orrery", "orrery", profiles_yml_filepath=_PROFILES),
            execution_config=ExecutionConfig(dbt_project_path=version.parent),
            render_config=RenderConfig(
                load_method=LoadMode.DBT_MANIFEST,
                test_behavior=TestBehavior.NONE,
                source_rendering_behavior=SourceRenderingBehavior.ALL,
                emit_datasets=False,
                node_converters={DbtResourceType(name): convert for name in (*NODE_TYPES, SOURCE)},
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
            if (task_id not in ingests and task.upstream_task_ids <= ingests.keys())
            # What a failure holds back ends at once; then the build may still be at work.
            or (task_id in self._published and not task.upstream_task_ids & self._published)
        ]
        build = build_operator(config)(
            task_id=BUILD,
            dag=self.dag,
            plan=self.plan,
            retries=build_tries.retries_of(config.retries),
            retry_delay=build_tries.RETRY_DELAY,
            doc_md="Runs dbt once for all nodes of the pipeline and ends their tasks.",
            # Data that has not come in holds back what reads it, and nothing else.
            trigger_rule=TriggerRule.ALL_DONE,
            **_pool(config),
            **_dbt_queue(),
            **self._on_failure,
        )
        build.set_upstream(
            [task for task in ingests.values() if not task.downstream_task_ids & ingests.keys()]
        )
        build.set_downstream(first)

    def announce(self) -> None:
        """A last task that updates the pipeline's asset once everything has succeeded."""
        last = [
            task
            for task_id, task in self.tasks.items()
            if task_id not in self._published and task.downstream_task_ids <= self._published
        ]
        finished = MarkerOperator(task_id=FINISHED, dag=self.dag, outlets=[asset_of(self.plan.name)])
        finished.set_upstream(last)

    def add_alert(self, alerts: Alerts) -> None:
        """A last task that tells people how a run has ended; what is published does not wait for it."""
        from orrery.alert.operator import AlertOperator

        last = [
            task
            for task in self.dag.tasks
            if task.task_id not in self._published
            and (task.task_id == BUILD or task.downstream_task_ids <= self._published)
        ]
        alert = AlertOperator(
            task_id=ALERT,
            dag=self.dag,
            pipeline=self.plan.name,
            alerts=alerts,
            owner=self.plan.config.owner,
            retries=0,
            trigger_rule=TriggerRule.ALL_DONE,
            doc_md="Tells people how the run has ended.",
        )
        alert.set_upstream(last)

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
        if task.kind not in (TaskKind.MARKER, TaskKind.PUBLISH):
            arguments |= self._on_failure
        operator: BaseOperator | MappedOperator
        if task.kind is TaskKind.MARKER:
            operator = MarkerOperator(stage=task.stage, nodes=task.nodes, **arguments)
        elif task.kind is TaskKind.PUBLISH and self.plan.config.publish:
            arguments |= _dbt_queue()
            operator = publish_operator(task, self.plan.config.publish, self.plan, arguments)
        elif task.work:
            arguments["retries"] = self.plan.config.retries
            operator = work_operator(task, task.work, self.tasks, arguments)
        else:
            arguments |= _dbt_queue()
            if not self.plan.config.one_build:
                # A build takes one slot for all its nodes.
                arguments |= _pool(self.plan.config)
            operator = node_operator(task, self.plan.config, self._checks.get(task.task_id, ()), arguments)
        self.tasks[task.task_id] = operator
        return operator
