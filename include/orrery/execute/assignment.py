"""What dbt is to do for a run of a pipeline, wherever it does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orrery.config.stages import publishes
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
    `max_field_length` is how many characters of SQL it shows.
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

    @classmethod
    def of(cls, plan: PipelinePlan, options: RunOptions, ti: Any) -> Assignment:
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
        )

    @property
    def built(self) -> dict[str, TaskPlan]:
        """The tasks in which dbt has a part."""
        return {task_id: task for task_id, task in self.tasks.items() if task.kind not in _NOT_BUILT}


def max_field_length() -> int:
    """How many characters Airflow shows of a rendered template."""
    # Where dbt runs in a pod, nothing but this would import Airflow, which costs seconds.
    from airflow.sdk.configuration import conf

    return int(conf.getint("core", "max_templated_field_length"))
