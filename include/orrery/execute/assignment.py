"""What dbt is to do for a run of a pipeline, wherever it does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from orrery.config.pipeline import Pipeline
from orrery.config.stages import publishes
from orrery.execute.batches import Batches
from orrery.execute.options import RunOptions
from orrery.plan.model import PipelinePlan, TaskKind, TaskPlan

# What dbt has no part in.
_NOT_BUILT = (TaskKind.MARKER, TaskKind.INGEST, TaskKind.EXPOSURE, TaskKind.PUBLISH)


@dataclass(frozen=True)
class Assignment:
    """A run of a pipeline for dbt.

    `tasks` are all those of the pipeline, by their ids, since they say what comes after what. `stale` and
    `tests` are the pipeline's. `elementary` says whether the pipeline wants its report, `keep_results`
    whether dbt's results are to be published, `log_url` is where Airflow shows the task,
    `max_field_length` is how many characters of SQL it shows. `selection` is the pipeline's, where the vars
    of the run may add nodes to it (orrery.execute.unplanned). `began` is when the first build of the run
    began (ISO 8601, UTC without an offset), `batches` are those of microbatch models that have failed since.
    """

    dag_id: str
    run_id: str
    log_url: str
    tasks: Mapping[str, TaskPlan]
    options: RunOptions
    tests: str
    stale: str
    elementary: bool
    keep_results: bool
    max_field_length: int
    selection: Mapping[str, Any] | None = None
    began: str | None = None
    batches: Batches = field(default_factory=dict)

    @classmethod
    def of(
        cls, plan: PipelinePlan, options: RunOptions, ti: Any, *, began: str, batches: Batches
    ) -> Assignment:
        """The assignment of the run that a task instance belongs to."""
        config = plan.config
        return cls(
            dag_id=plan.name,
            run_id=ti.run_id,
            log_url=ti.log_url,
            tasks=plan.tasks,
            options=options,
            tests=config.tests,
            stale=config.stale,
            elementary=publishes("elementary", plan.tasks),
            keep_results=publishes("artifacts", plan.tasks),
            max_field_length=max_field_length(),
            began=began,
            batches=batches,
            selection=_open_selection(config, options),
        )

    @property
    def built(self) -> dict[str, TaskPlan]:
        """The tasks in which dbt has a part."""
        return {task_id: task for task_id, task in self.tasks.items() if task.kind not in _NOT_BUILT}


def _open_selection(config: Pipeline, options: RunOptions) -> dict[str, Any] | None:
    """What the pipeline selects, if the run has other vars than the DAG was made with."""
    if dict(options.variables or {}) == config.vars:
        return None
    return {"select": config.select or (), "exclude": config.exclude, "selector": config.selector}


def max_field_length() -> int:
    """How many characters Airflow shows of a rendered template."""
    # Where dbt runs in a pod, nothing but this would import Airflow, which costs seconds.
    from airflow.sdk.configuration import conf

    return int(conf.getint("core", "max_templated_field_length"))
