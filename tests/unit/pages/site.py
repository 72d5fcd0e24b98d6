"""The pages over a project of their own, with Airflow's tables in memory and rows in place of a ledger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.api_fastapi.common.db.common import _get_session
from airflow.api_fastapi.core_api.security import get_user
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, event, insert
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from conftest import WriteProject
from orrery.execute.node_runs import NodeRun
from orrery.manifest.slim import slim_manifest
from orrery.pages import app as pages
from orrery.pages import metadata, products
from orrery.pages.catalog import Catalog
from support import manifests
from unit.manifest.resources import full_manifest

# Those of Airflow's tables that the pages read.
TABLES = ("dag", "dag_bundle", "dag_run", "task_instance", "team", "dag_bundle_team")
NOW = datetime.now(UTC).replace(microsecond=0)
# The slim manifest of a pipeline without nodes.
NOTHING: dict[str, Any] = slim_manifest(full_manifest(), set(), {})
HOSTILE = "<script>alert('x')</script><b>\"&"


class Guard(SimpleAuthManager):
    """Airflow's own, but some DAGs are kept from everybody, others with their runs only."""

    def __init__(self) -> None:
        self.hidden: set[str] = set()
        self.without_runs: set[str] = set()

    def is_authorized_dag(self, *, access_entity: Any = None, details: Any = None, **asked: Any) -> bool:
        name = details.id if details else None
        if name in self.hidden or (name in self.without_runs and access_entity is not None):
            return False
        return super().is_authorized_dag(access_entity=access_entity, details=details, **asked)


class Site:
    """The application, mounted as Airflow does it, and what it reads."""

    def __init__(self, write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project = write_project(
            {
                "dbt/pipelines/shop.yml": (
                    f"select: 'tag:shop'\nowner: ann\ntags: [shop]\npublish: {{}}\nschedule: '@daily'\n"
                    f"description: {json.dumps(HOSTILE)}\n"
                ),
                "dbt/pipelines/stock.yml": "select: tag:stock\n",
                "dbt/pipelines/broken.yml": "selekt: tag:stock\n",
            }
        )
        manifests.keep(
            self.project,
            dict.fromkeys(("shop", "stock"), NOTHING),
            {"broken": "unknown key 'selekt'\n  Did you mean 'select'?"},
        )
        engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
        import_all_models()
        Base.metadata.create_all(engine, [Base.metadata.tables[name] for name in TABLES])
        self.queries: list[str] = []
        event.listen(engine, "before_cursor_execute", lambda *told: self.queries.append(told[2]))
        self.session = Session(engine)
        self.session.execute(insert(DagBundleModel.__table__).values(name="dags", active=True))
        for name in ("shop", "stock", "broken", "somebody_elses"):
            self.session.add(DagModel(dag_id=name, bundle_name="dags", is_stale=False))
        self.session.commit()
        self.guard, self.rows = Guard(), list[NodeRun]()
        monkeypatch.setattr(metadata, "get_auth_manager", lambda: self.guard)
        monkeypatch.setattr(products, "read_nodes", self._read_nodes)
        monkeypatch.setattr(pages, "_catalog", lambda: Catalog(self.project))
        self.wanted: list[tuple[str, str]] = []

    def _read_nodes(self, project: Any, runs: Any, types: Any = None) -> list[NodeRun]:
        self.wanted = list(runs)
        return [
            row
            for row in self.rows
            if (row.pipeline, row.run_id) in self.wanted and (types is None or row.resource_type in types)
        ]

    def client(self, *, root_path: str = "", logged_in: bool = True) -> TestClient:
        """A browser."""
        outer = FastAPI(root_path=root_path)
        outer.mount("/orrery", pages.app)
        pages.app.dependency_overrides = {_get_session: lambda: self.session}
        if logged_in:
            pages.app.dependency_overrides[get_user] = lambda: SimpleAuthManagerUser(
                username="ann", role="viewer"
            )
        return TestClient(outer)

    def run(
        self,
        name: str,
        run_id: str,
        state: str = "success",
        *,
        hours_ago: float = 0,
        seconds: int = 60,
        conf: object = None,
    ) -> None:
        """A DAG run."""
        began = NOW - timedelta(hours=hours_ago)
        ended = began + timedelta(seconds=seconds) if state in ("success", "failed") else None
        self.session.execute(
            insert(DagRun.__table__).values(
                dag_id=name,
                run_id=run_id,
                state=state,
                run_type="manual",
                run_after=began,
                logical_date=began,
                start_date=began,
                end_date=ended,
                span_status="x",
                log_template_id=None,
                conf=conf,
            )
        )
        self.session.commit()

    def fail(self, name: str, run_id: str, task_id: str) -> None:
        """A task that failed."""
        self.session.execute(
            insert(TaskInstance.__table__).values(
                dag_id=name,
                run_id=run_id,
                task_id=task_id,
                state="failed",
                map_index=-1,
                pool="p",
                pool_slots=1,
            )
        )
        self.session.commit()

    def node(
        self, run_id: str, uid: str, status: str = "success", pipeline: str = "shop", **more: Any
    ) -> NodeRun:
        """A row of the ledger."""
        kind = uid.split(".", maxsplit=1)[0]
        told = {"seconds": 1.0, "started_at": NOW, "ended_at": NOW, **more}
        self.rows.append(NodeRun(pipeline, run_id, uid, kind, status, **told))
        return self.rows[-1]


@pytest.fixture
def site(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A project of two pipelines and a broken one, beside a DAG of somebody else."""
    made = Site(write_project, monkeypatch)
    yield made
    pages.app.dependency_overrides = {}
    made.session.close()
