"""The choices of a run, as the trigger form in Airflow shows them."""

from __future__ import annotations

from airflow.sdk import Param

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
from orrery.plan.model import PipelinePlan


def form_of(plan: PipelinePlan) -> dict[str, Param]:
    """The params of a DAG."""
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
