"""The pipeline file: one file in dbt/pipelines/ is one Airflow DAG."""

from __future__ import annotations

import re
from datetime import date
from typing import Annotated, Any, Literal

from croniter import croniter
from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag, field_validator, model_validator

from orrery.config.alerts import Alerts, Sla
from orrery.config.block import Block, Names, mistake
from orrery.config.dbt_pods import DbtPods
from orrery.config.environment import named
from orrery.config.errors import suggest
from orrery.config.publish import Publish
from orrery.config.selection import Selections
from orrery.config.stages import RESERVED, in_order

PRESETS = ("@once", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_]*")


class After(Block):
    """Start when other pipelines have succeeded."""

    after: Names = Field(description="Run after these pipelines have succeeded.", min_length=1)
    when: Literal["all", "any"] = Field(
        "all", description="all: once each of them has succeeded since; any: whenever one of them has."
    )


def _off(value: Any) -> Any:
    # YAML 1.1 reads a bare off as false.
    return "off" if value is False else value


class OnFiles(Block):
    """Start when files arrive."""

    on: Literal["files"] = Field(description="Run when files have arrived for a source of the pipeline.")


def _plain(value: Any) -> Any:
    """A value as JSON has it: a date becomes text, as dbt's vars on a command line are."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.isoformat() if isinstance(value, date) else value


Vars = Annotated[dict[str, JsonValue], BeforeValidator(_plain, json_schema_input_type=dict[str, Any])]
TestsMode = Annotated[Literal["gate", "end", "off"], BeforeValidator(_off)]
FreshnessMode = Annotated[Literal["check", "require", "off"], BeforeValidator(_off)]


def _check_schedule(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "none":
        return None
    if value.startswith("@"):
        if value not in PRESETS:
            raise mistake(f"{value!r} is no schedule preset", suggest(value, PRESETS, "preset"))
        return value
    if len(value.split()) != 5 or not croniter.is_valid(value):
        raise mistake(
            f"{value!r} is no cron expression",
            'Write five fields (minute hour day month weekday) such as "0 6 * * *", or a preset '
            "such as @daily.",
        )
    return value


def _kind_of_schedule(value: Any) -> str:
    if isinstance(value, OnFiles) or (isinstance(value, dict) and "on" in value):
        return "files"
    return "pipelines" if isinstance(value, dict | After) else "time"


# The discriminator keeps errors to the kind of schedule that was meant.
Schedule = Annotated[
    Annotated[
        Annotated[After, Tag("pipelines")]
        | Annotated[OnFiles, Tag("files")]
        | Annotated[str | None, Tag("time")],
        Discriminator(_kind_of_schedule),
    ],
    BeforeValidator(_check_schedule, json_schema_input_type=str | After | OnFiles | None),
]


class Pipeline(Block):
    """One pipeline: what it runs, when, and how it behaves in Airflow."""

    description: str = Field("", description="Shown on the DAG's page in Airflow; Markdown.")
    owner: str | None = Field(
        None, description="The dbt group that owns the pipeline; nodes with a group of their own keep it."
    )
    schedule: Schedule = Field(
        None,
        description='A cron expression, a preset such as "@hourly", {after: [pipeline, ...]}, {on: files}, '
        "or none.",
    )
    select: Selections | None = Field(None, description="dbt node selection: the nodes of the pipeline.")
    exclude: Selections = Field((), description="dbt node selection: nodes to leave out.")
    selector: str | None = Field(
        None, description="The name of a selector in selectors.yml, instead of select."
    )
    vars: Vars = Field(
        default_factory=dict,
        description="dbt's vars for all that the pipeline does, beginning with the selection of its nodes; a "
        "run's own vars replace those of the same name.",
    )
    stages: dict[str, Selections] = Field(
        default_factory=dict,
        description="Stages of your own for models, seeds, snapshots and functions: name to dbt node "
        "selection.",
    )
    full_refresh: bool = Field(
        False,
        description="Whether runs rebuild incremental models from nothing unless the trigger form says "
        "otherwise; sources are filled as their ingest_full_refresh says, if they have one.",
    )
    skip_stages: Names = Field(
        (), description="Stages that a run leaves out unless its trigger form says otherwise."
    )
    tests: TestsMode = Field(
        "gate",
        description="gate: a failed test holds back the children of its model; end: all tests run after "
        "the last model; off: no tests.",
    )
    execute: Literal["build", "per_model", "kubernetes"] = Field(
        "build",
        description="build: one dbt process for the whole pipeline ends the tasks of its nodes; per_model: "
        "each task is one dbt process of its own, run by Cosmos; kubernetes: either of them in pods.",
    )
    kubernetes: DbtPods | None = Field(None, description="The pods of execute: kubernetes.")
    freshness: FreshnessMode = Field(
        "check",
        description="check: sources with a freshness threshold are checked before they are read; require: "
        "the same, and a source whose age dbt cannot tell is an error; off: no source is checked.",
    )
    stale: Literal["fail", "skip", "warn"] = Field(
        "fail",
        description="What a source does that is older than its error_after. fail: it fails; skip: it is "
        "skipped with all that reads it; warn: it is a warning.",
    )
    publish: Publish | None = Field(
        None, description="What is published after each run, failed ones too: docs and artifacts."
    )
    alerts: Alerts | None = Field(
        None, description="Who is told of failures, warnings, late runs and recoveries."
    )
    sla: Sla | None = Field(
        None,
        description='When a run has to have ended: a time of day such as "07:00" (UTC), a duration such as '
        "2h, or {by: ..., timezone: ...}.",
    )
    retries: int = Field(0, ge=0, le=100, description="How often Airflow tries a failed task again.")
    pool: str | None = Field(
        None,
        min_length=1,
        description="The Airflow pool of the tasks that run dbt's nodes; a build takes one slot for all.",
    )
    max_active_runs: int = Field(1, ge=1, description="How many runs of the pipeline may be active at once.")
    start_date: date | None = Field(None, description="The first day for scheduled runs.")
    catchup: bool = Field(False, description="Run what was missed since start_date.")
    tags: Names = Field((), description="Tags of the DAG in Airflow.")

    @field_validator("stages")
    @classmethod
    def _check_stage_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in RESERVED or not _STAGE_NAME.fullmatch(name):
                raise mistake(
                    f"{name!r} cannot be the name of a stage of nodes",
                    "Use lower-case letters, digits and _, and none of: " + ", ".join(RESERVED) + ".",
                    key=name,
                )
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Pipeline:
        if (self.select is None) == (self.selector is None):
            problem = "neither select nor selector is given" if self.select is None else "both are given"
            raise mistake(
                f"a pipeline needs either select or selector; {problem}",
                'Write for example: select: "tag:my_product"',
                key="selector",
            )
        if self.kubernetes is not None and self.execute != "kubernetes":
            raise mistake(
                f"the nodes do not run in pods: execute is {self.execute}",
                "Add execute: kubernetes, or remove kubernetes.",
                key="kubernetes",
            )
        if self.catchup and self.start_date is None:
            raise mistake(
                "catchup needs a start_date", "Add start_date: 2026-01-01, or remove catchup.", key="catchup"
            )
        return self

    @property
    def stage_names(self) -> tuple[str, ...]:
        """Every stage that this pipeline may have, in the order of display."""
        return in_order(self.stages)

    @property
    def pods(self) -> DbtPods | None:
        """The pods in which nodes run; None when they run on Airflow's workers."""
        return (self.kubernetes or DbtPods()) if self.execute == "kubernetes" else None

    @property
    def one_build(self) -> bool:
        """Whether one task runs all nodes and ends their tasks."""
        return self.execute == "build" or (self.pods is not None and self.pods.pods == "build")

    @property
    def after(self) -> tuple[str, ...]:
        """The pipelines whose success starts this one."""
        return tuple(map(named, self.schedule.after)) if isinstance(self.schedule, After) else ()

    @property
    def on_files(self) -> bool:
        """Whether the arrival of files starts the pipeline."""
        return isinstance(self.schedule, OnFiles)
