"""Builds without Airflow: the real DbtRun on a real PostgreSQL, and what it tells."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg2.extensions import parse_dsn

from conftest import BASE, WriteProject
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.execute.assignment import Assignment
from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.collector import Line
from orrery.execute.dbt_run import DbtRun
from orrery.execute.options import RunOptions
from orrery.execute.tally import Tally
from orrery.manifest.build import build_manifests
from orrery.manifest.store import ManifestStore
from orrery.plan.model import PipelinePlan
from orrery.plan.planner import plan_pipeline
from support.warehouse import query

PIPELINE = "trial"
TABLES = "models: {+materialized: table}\n"


@dataclass
class Build:
    """What a build has told: the news of tasks in their order, and dbt's lines by task."""

    updates: list[Update] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)

    def add(self, update: Update) -> None:
        self.updates.append(update)

    def write(self, task_id: str, try_number: int, lines: Iterable[Line]) -> None:
        self.logs[task_id] = [line.text for line in lines]

    @property
    def states(self) -> dict[str, str]:
        """The last news of each task."""
        return {update.task_id: str(update.state) for update in self.updates}

    @property
    def order(self) -> list[str]:
        """The tasks in the order in which dbt began with them."""
        return [update.task_id for update in self.updates if update.state is NodeState.RUNNING]

    def of(self, task_id: str) -> Update:
        """The last news of a task."""
        return next(update for update in reversed(self.updates) if update.task_id == task_id)

    def message(self, task_id: str) -> str:
        """What a task says of its end."""
        update = self.of(task_id)
        result = (update.failure or {}).get("result") or update.result or {}
        return str(result["message"])


class Builder:
    """A project with one pipeline of all its nodes, in a schema of its own."""

    def __init__(self, uri: str, schema: str, project: Project) -> None:
        self.uri, self.schema, self.project = uri, schema, project
        self.batches: Any = {}
        # Each state of `batches` that a build has told.
        self.remembered: list[Any] = []
        build_manifests(project, lambda line: None)
        self.plan: PipelinePlan = plan_pipeline(
            load_pipelines(project).get(PIPELINE), ManifestStore(project).read(PIPELINE)
        )

    def assignment(self, **choices: Any) -> Assignment:
        """The assignment of a run with these choices."""
        config = self.plan.config
        return Assignment(
            dag_id=PIPELINE,
            run_id="run",
            log_url="",
            tasks=self.plan.tasks,
            options=RunOptions.from_params(choices),
            tests=config.tests,
            stale=config.stale,
            elementary=False,
            keep_results=False,
            max_field_length=4096,
            batches=self.batches,
        )

    def build(
        self,
        tasks: Collection[str] = (),
        number: int = 1,
        *,
        again: Collection[str] = (),
        hidden: str | None = None,
        **choices: Any,
    ) -> Build:
        """Build tasks, all by default, in the try of this number; `again` are those to be tried again."""
        heard = Build()
        run = DbtRun(self.assignment(**choices), Tally(heard, self._remember), heard)
        built = self.assignment().built
        tries = {task_id: Try(number, last=task_id not in again) for task_id in tasks or built}
        try:
            run.begin()
            run.run(tries)
            run.end(hidden)
        finally:
            run.close()
        return heard

    def _remember(self, batches: Any) -> None:
        self.batches = batches
        self.remembered.append(batches)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a statement in the schema."""
        return query(self.uri, f'set search_path to "{self.schema}"; {sql}')

    def clean(self) -> None:
        """Drop the schema."""
        query(self.uri, f'drop schema if exists "{self.schema}" cascade')


Make = Callable[..., Builder]


def maker(uri: str, write_project: WriteProject, schema: str) -> Make:
    """A function that makes a builder of a project, from models by name and other files by path."""

    def make(models: Mapping[str, str], *, project: str = "", pipeline: str = "", **files: str) -> Builder:
        address = parse_dsn(uri)
        profile = (
            "tiny:\n  target: dev\n  outputs:\n    dev:\n      type: postgres\n      password: ''\n"
            f"      host: {address['host']}\n      port: {address.get('port', 5432)}\n      threads: 4\n"
            f"      user: {address['user']}\n      dbname: {address['dbname']}\n      schema: {schema}\n"
        )
        written = write_project(
            {
                "dbt/dbt_project.yml": f"{BASE['dbt/dbt_project.yml']}{TABLES}{project}",
                "dbt/profiles.yml": profile,
                f"dbt/pipelines/{PIPELINE}.yml": f"select: fqn:*\nschedule: none\n{pipeline}",
                **{f"dbt/models/{name}.sql": sql for name, sql in models.items()},
                **{f"dbt/{path}": text for path, text in files.items()},
            }
        )
        made = Builder(uri, schema, written)
        made.clean()
        return made

    return make
