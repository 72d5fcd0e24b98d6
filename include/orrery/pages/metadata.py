"""What Airflow knows: who asks, what they may read, and the last runs. All that is Airflow's own is here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.common.db.common import SessionDep
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from sqlalchemy import func, select, tuple_
from sqlalchemy.orm import Session

from orrery.config.errors import OrreryError
from orrery.execute.options import RunOptions

__all__ = ["FailedTask", "GetUserDep", "Run", "SessionDep", "failed_tasks", "readable", "recent_runs"]

# What the pages show: the DAG, its runs, and how their tasks did.
_ENTITIES = (DagAccessEntity.RUN, DagAccessEntity.TASK_INSTANCE)
# Of all last runs together.
_MOST_FAILED = 500


@dataclass(frozen=True)
class Run:
    """A DAG run. `state` is Airflow's word; `seconds` counts on while it runs, None before it starts.

    `choices` is RunOptions.choices; None for a run that was refused because of them.
    """

    run_id: str
    state: str
    run_after: datetime
    started_at: datetime | None
    ended_at: datetime | None
    choices: str | None = ""

    @property
    def seconds(self) -> float | None:
        if self.started_at is None:
            return None
        return max(((self.ended_at or datetime.now(UTC)) - self.started_at).total_seconds(), 0.0)

    @property
    def ended(self) -> bool:
        return self.state in ("success", "failed")


@dataclass(frozen=True)
class FailedTask:
    """A task instance that failed; `map_index` is -1 unless the task is mapped."""

    task_id: str
    map_index: int


def readable(user: BaseUser, names: Collection[str], session: Session) -> set[str]:
    """Those of the DAGs that Airflow has and that the user may see with their runs."""
    manager = get_auth_manager()
    found = manager.get_authorized_dag_ids(user=user, session=session) & set(names)
    teams = DagModel.get_dag_id_to_team_name_mapping(sorted(found), session=session)
    return {
        name
        for name in found
        if all(
            manager.is_authorized_dag(
                method="GET",
                access_entity=entity,
                details=DagDetails(id=name, team_name=teams.get(name)),
                user=user,
            )
            for entity in _ENTITIES
        )
    }


def recent_runs(session: Session, names: Collection[str], most: int) -> Mapping[str, list[Run]]:
    """The last runs of each DAG, at most so many, the oldest first; one query."""
    rank = func.row_number().over(partition_by=DagRun.dag_id, order_by=DagRun.run_after.desc())
    ranked = select(DagRun.id, rank.label("rank")).where(DagRun.dag_id.in_(names)).subquery()
    columns = (DagRun.state, DagRun.run_after, DagRun.start_date, DagRun.end_date, DagRun.conf)
    query = (
        select(DagRun.dag_id, DagRun.run_id, *columns)
        .join(ranked, ranked.c.id == DagRun.id)
        .where(ranked.c.rank <= most)
        .order_by(DagRun.run_after)
    )
    found: dict[str, list[Run]] = defaultdict(list)
    rows: Iterable[Any] = session.execute(query)
    for dag_id, run_id, state, run_after, started_at, ended_at, conf in rows:
        found[dag_id].append(Run(run_id, str(state), run_after, started_at, ended_at, _choices(conf)))
    return found


def _choices(conf: Any) -> str | None:
    try:
        return RunOptions.from_params(conf or {}).choices
    # Airflow takes any JSON.
    except (OrreryError, AttributeError, TypeError, ValueError):
        return None


def failed_tasks(session: Session, runs: Mapping[str, str]) -> Mapping[str, list[FailedTask]]:
    """The tasks that failed, of one run of each DAG (run id by DAG id); one query."""
    query = (
        select(TaskInstance.dag_id, TaskInstance.task_id, TaskInstance.map_index)
        .where(tuple_(TaskInstance.dag_id, TaskInstance.run_id).in_(list(runs.items())))
        .where(TaskInstance.state == "failed")
        .order_by(TaskInstance.end_date)
        .limit(_MOST_FAILED)
    )
    found: dict[str, list[FailedTask]] = defaultdict(list)
    if runs:
        for dag_id, task_id, map_index in session.execute(query):
            found[dag_id].append(FailedTask(task_id, map_index))
    return found
