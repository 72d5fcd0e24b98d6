"""The description of a DAG: tasks, their groups and what they wait for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from orrery.config.alerts import Alerts
from orrery.config.pipeline import Pipeline
from orrery.config.stages import CHUNKS, SPLIT
from orrery.config.transfer import Transfer


class TaskKind(StrEnum):
    """What a task does; the values are dbt's words."""

    SEED = "seed"
    MODEL = "model"
    SNAPSHOT = "snapshot"
    FUNCTION = "function"
    FRESHNESS = "source freshness"
    TEST = "test"
    UNIT_TEST = "unit test"
    # All hooks of one moment of a run.
    HOOK = "hook"
    # Not dbt's: what brings data into a source.
    INGEST = "ingest"
    # Not dbt's either: what an exposure runs.
    EXPOSURE = "exposure"
    # Nor this: what is published of a run at its end.
    PUBLISH = "publish"
    # No work of its own: an ephemeral model, or a point that others wait for.
    MARKER = "marker"


class Step(StrEnum):
    """What comes before the ingestion of big files, by the end of the task's name."""

    # Waits for files, and finds out where they can be cut.
    SPLIT = SPLIT
    # One task instance for each chunk.
    CHUNKS = CHUNKS


@dataclass(frozen=True)
class Work:
    """What a task does beside dbt: how data comes into a source, or what an exposure runs.

    `kind` is the kind of the block (`files`, `job`, ...); `of` is `<source>.<table>` as dbt names it,
    `<source>` when it fills all its tables, or the name of an exposure. Of a single table, `schema` and
    `table` are its names in the warehouse and `columns` the declared ones with their types. `transfers`
    have brought the objects from elsewhere before.
    """

    kind: str
    block: Any
    of: str
    schema: str = ""
    table: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    transfers: tuple[Transfer, ...] = ()


@dataclass(frozen=True)
class TaskPlan:
    """One task: `task_id` is `<stage>.<name>`, `nodes` are the dbt unique ids that it runs.

    `upstream` are the ids of the tasks that must have ended; `always` means that their failure does not
    matter. `step` is set for what an ingestion does in tasks of their own before the one that loads.
    """

    task_id: str
    stage: str
    kind: TaskKind
    nodes: tuple[str, ...]
    upstream: frozenset[str]
    owner: str | None
    doc: str
    always: bool = False
    work: Work | None = None
    step: Step | None = None

    @property
    def name(self) -> str:
        """The id inside its stage."""
        return self.task_id.split(".", 1)[1]


@dataclass(frozen=True)
class PipelinePlan:
    """The DAG of one pipeline.

    `by_node` finds the task that builds a seed, model, snapshot or function, or that checks a source.
    `alerts` are the pipeline's over the project's defaults.
    """

    name: str
    config: Pipeline
    stages: tuple[str, ...]
    tasks: Mapping[str, TaskPlan]
    by_node: Mapping[str, str]
    file: str
    alerts: Alerts | None = None
