"""A task that runs dbt for itself: a real dbt on a real PostgreSQL, without Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from cosmos.exceptions import CosmosDbtRunError

from conftest import WriteProject
from integration.test_dbt_run import TODAY, events, leaf
from orrery.execute.channel import MEMORY
from orrery.execute.node import PerModelOperator
from orrery.execute.results import RESULT_KEY
from orrery.plan.model import TaskKind
from support.builds import Builder, maker
from support.tasks import context_of
from support.warehouse import query

pytestmark = pytest.mark.integration

SCHEMA = "alone"
LEAF = "model.tiny.leaf"
# Each run of a batch adds its day to `ran`. The third of the last days breaks until it is mended.
SQL = (
    '{% if execute and model.batch %}{% do run_query("insert into alone.ran values (\'"'
    " ~ model.batch.event_time_start.strftime('%Y-%m-%d') ~ \"'); commit\") %}{% endif %}"
    "select id, at, 10 / (case when {{ var('mended', false) }} then 1 else d end) as x"
    " from {{ ref('events') }}"
)


@pytest.fixture
def builder(postgres_uri: str, write_project: WriteProject) -> Iterator[Builder]:
    models = {"events": events(5, "n = 2"), "leaf": leaf(5, SQL)}
    made = maker(postgres_uri, write_project, SCHEMA)(models, pipeline="execute: per_model\n")
    query(postgres_uri, f"create schema {SCHEMA}; create table {SCHEMA}.ran (day date)")
    yield made
    made.clean()


def run(builder: Builder, task_id: str, store: Any = None, **params: Any) -> dict[str, Any]:
    """Run a task; returns its context."""
    task = builder.plan.tasks[task_id]
    operator = PerModelOperator(task_id=task.name, kind=task.kind, stage=task.stage, nodes=task.nodes)
    context: dict[str, Any] = context_of(task_id) | {"params": params, "task": operator}
    if store is not None:
        context["task_state_store"] = store
    context["raised"] = None
    try:
        operator.execute(context)  # type: ignore[arg-type]
    except CosmosDbtRunError as error:
        context["raised"] = error
    return context


def test_the_next_try_runs_the_batches_that_failed_and_says_why_they_did(builder: Builder) -> None:
    assert run(builder, "core.events")["raised"] is None
    first = run(builder, "core.leaf")
    assert first["raised"]
    told = first["ti"].xcoms[RESULT_KEY]["message"]
    assert told.startswith("PARTIAL SUCCESS (4/5)\nbatch ")
    assert "division by zero" in told
    store = first["task_state_store"]
    assert len(store.get(MEMORY)["batches"][LEAF]["failed"]) == 1
    builder.query("truncate ran")
    assert run(builder, "core.leaf", store, vars={"mended": True})["raised"] is None
    assert builder.query("select distinct day from ran") == builder.query(f"select {TODAY} - 2")
    assert builder.query("select count(*) from leaf") == [(5,)]
    assert store.get(MEMORY)["batches"] == {}
    # Another run of the pipeline knows nothing of it.
    builder.query("truncate ran")
    assert run(builder, "core.leaf", vars={"mended": True})["raised"] is None
    assert builder.query("select count(distinct day) from ran") == [(2,)]


def test_a_task_shows_dbt_no_secret_and_has_no_colours_in_its_messages(
    postgres_uri: str, write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", "postgres://me:Long-Enough-7@nowhere/db")
    monkeypatch.setenv("COPY_OF_IT", "host=nowhere password=Long-Enough-7")
    asked = (
        "select '{{ env_var('AIRFLOW_CONN_SHOP', 'hidden') }} {{ env_var('COPY_OF_IT', 'hidden') }}' as told"
    )
    unit_test = (
        "unit_tests: [{name: differs, model: asked, given: [], expect: {rows: [{told: something else}]}}]"
    )
    made = maker(postgres_uri, write_project, SCHEMA)(
        {"asked": asked}, pipeline="execute: per_model\n", **{"models/unit.yml": unit_test}
    )
    assert run(made, "core.asked")["raised"] is None
    assert made.query("select told from asked") == [("hidden hidden",)]
    (task_id,) = (tid for tid, task in made.plan.tasks.items() if task.kind is TaskKind.UNIT_TEST)
    tested = run(made, task_id)
    told = tested["ti"].xcoms[RESULT_KEY]["message"]
    assert tested["raised"]
    assert "differs" in told
    assert "\x1b" not in told
    made.clean()


def test_another_try_has_the_days_of_the_first(builder: Builder) -> None:
    """Also when dbt begins anew, because no batch has succeeded."""
    assert run(builder, "core.events")["raised"] is None
    store = run(builder, "core.leaf", vars={"mended": True})["task_state_store"]
    assert builder.query("select count(distinct day) from ran") == [(5,)]
    builder.query("drop table leaf; truncate ran")
    two_days_ago = datetime.fromisoformat(store.get(MEMORY)["began"]) - timedelta(days=2)
    store.set(MEMORY, {"began": two_days_ago.isoformat(), "batches": {}})
    assert run(builder, "core.leaf", store, vars={"mended": True})["raised"] is None
    assert builder.query("select max(day) from ran") == builder.query(f"select {TODAY} - 2")
