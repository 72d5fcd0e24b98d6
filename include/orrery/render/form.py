"""The choices of a run, as the trigger form in Airflow shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param

from orrery.config.stages import HOOKS
from orrery.execute.options import (
    EXCLUDE,
    FULL_REFRESH,
    MAX_THREADS,
    PIPELINE_VARS,
    SELECT,
    SKIP_STAGES,
    THREADS,
    URI,
    VARS,
)
from orrery.plan.model import PipelinePlan


def _about_vars(own: Mapping[str, Any]) -> str:
    text = "dbt's --vars, as a JSON object"
    return f"{text}; they go over those of the pipeline's file: {json.dumps(own)}" if own else f"{text}."


def _own_vars(plan: PipelinePlan) -> dict[str, Any]:
    return {PIPELINE_VARS: dict(plan.config.vars)}


def form_of(plan: PipelinePlan) -> dict[str, Param]:
    """The params of a DAG."""
    # Hooks are of dbt's commands, and no run can leave them out.
    stages = [stage for stage in plan.stages if stage != HOOKS]
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
            description=_about_vars(plan.config.vars),
            **_own_vars(plan),
        ),
        SKIP_STAGES: Param(
            [stage for stage in plan.config.skip_stages if stage in stages],
            type="array",
            items={"type": "string", "enum": stages},
            examples=stages,
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
