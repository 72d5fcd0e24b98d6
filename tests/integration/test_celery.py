"""Three Celery workers on one machine: tasks go to their queues, and a worker that dies costs only time."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from conftest import write_files
from services.redis import RedisServer
from support.airflow import Json
from support.live import Live, own_stack
from support.waiting import wait_for
from support.workers import Workers

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = "orders"
LOAD, BUILD, PUBLISH = "ingest.landing__orders", "build", "publish.artifacts"
LOCK = 4711
# In the order of the lineage.
MODELS = ["early", "held", "late"]
# A worker that is lost is noticed soon, and none that only stands still for a moment is taken for lost; the
# defaults take minutes.
SOON = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
}
FILES = {
    "dbt/dbt_project.yml": (
        "name: celery\nversion: '1.0'\nprofile: orrery\nmodels:\n"
        "  +materialized: table\n  +post-hook: \"insert into dev.built values ('{{ this.name }}')\"\n"
        "packages-install-path: \"{{ env_var('ORRERY_DBT_PACKAGES', 'dbt_packages') }}\"\n"
    ),
    f"dbt/pipelines/{PIPELINE}.yml": "select: early held late\nschedule: none\npublish: {docs: false}\n",
    "dbt/models/core/sources.yml": """\
sources:
  - name: landing
    tables:
      - name: orders
        config:
          meta:
            orrery:
              ingest: {files: "orders/*.csv", key: [id], settle: 0s}
        columns:
          - name: id
            data_type: bigint
          - name: amount
            data_type: numeric
""",
    "dbt/models/core/early.sql": "select id, amount from {{ source('landing', 'orders') }}\n",
    # Waits for as long as a test holds the lock.
    "dbt/models/core/held.sql": (
        f"select id, amount from {{{{ ref('early') }}}}, pg_advisory_xact_lock_shared({LOCK}) as held\n"
    ),
    "dbt/models/core/late.sql": "select count(*) as orders, sum(amount) as amount from {{ ref('held') }}\n",
}


def make(root: Path) -> None:
    """Fill an empty folder with a small project."""
    shutil.copytree(ROOT / "dags", root / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "include").symlink_to(ROOT / "include")
    write_files(root, FILES)
    shutil.copy(ROOT / "dbt" / "profiles.yml", root / "dbt")


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """A stack whose tasks run on Celery."""
    with RedisServer() as redis:
        celery = {
            "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
            "AIRFLOW__CELERY__BROKER_URL": redis.url,
            "ORRERY_DBT_QUEUE": "dbt",
        }
        with own_stack(make, celery | SOON) as live:
            assert live.orrery("up").code == 0
            wait_for("the pipeline", lambda: live.airflow.get("/dags")["dags"])
            live.query("create schema if not exists dev; create table dev.built (model text)")
            yield live


@pytest.fixture(scope="module")
def workers(live: Live) -> Workers:
    """One worker for each queue."""
    workers = Workers(live)
    for worker in workers.start("default", "dbt"):
        worker.wait_ready()
    return workers


def land(live: Live, name: str, ids: range) -> None:
    """Land a file of orders, each of which amounts to 2."""
    folder = live.dbt / "landing" / "orders"
    folder.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{number},2\n" for number in ids)
    (folder / "part").write_text(f"id,amount\n{rows}")
    (folder / "part").rename(folder / name)


def landed(live: Live) -> list[tuple[Any, ...]]:
    """The rows of each file, and how often the ledger has it."""
    return live.query(
        "select _source_file, count(*), count(distinct id), (select count(*) from landing._orrery_ledger"
        " where file = _source_file) from landing.orders group by 1 order by 1",
        role="loader",
    )


def run(live: Live) -> str:
    """Start a run, in which nothing is built yet; returns its id."""
    live.query("delete from dev.built")
    answer = live.airflow.trigger(PIPELINE)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["dag_run_id"])


def ended_well(live: Live, run_id: str, orders: int, *, skipped: str = "") -> dict[str, Json]:
    """The tasks of a run that has succeeded, once it has; all data are right, and were built once."""
    assert live.airflow.wait_ended(PIPELINE, run_id) == "success", live.airflow.states(PIPELINE, run_id)
    tasks = live.airflow.tasks(PIPELINE, run_id)
    for task_id, task in tasks.items():
        assert task["state"] == ("skipped" if task_id == skipped else "success"), task
    assert live.query("select orders, amount from dev.late") == [(orders, 2 * orders)]
    assert Counter(live.query("select model from dev.built")) == Counter((model,) for model in MODELS)
    return tasks


@contextmanager
def held(live: Live, role: str, sql: str) -> Iterator[Callable[[], None]]:
    """A lock is held until the function is called or the block ends."""
    with closing(psycopg2.connect(live.warehouse[role])) as link:
        with link.cursor() as cursor:
            cursor.execute(sql)
        yield link.close


def waiting(live: Live, role: str, event: str) -> list[int]:
    """The server processes of a role that wait for such a lock."""
    rows = live.query(
        f"select pid from pg_stat_activity where usename = '{role}' and wait_event_type = 'Lock'"
        f" and wait_event = '{event}'",
        role=role,
    )
    return [pid for (pid,) in rows]


def kill_worker_of(live: Live, workers: Workers, run_id: str, task_id: str) -> None:
    """Kill the worker that runs a task, with all its processes."""
    task = live.airflow.tasks(PIPELINE, run_id)[task_id]
    assert (task["state"], task["try_number"]) == ("running", 1)
    workers.kill(workers.of(task["pid"]))


@pytest.fixture(scope="module")
def first(live: Live, workers: Workers) -> dict[str, Json]:
    """The tasks of a first run."""
    land(live, "a.csv", range(100))
    return ended_well(live, run(live), 100)


def test_tasks_go_to_their_queues(first: dict[str, Json], workers: Workers) -> None:
    assert {task_id: first[task_id]["queue"] for task_id in (LOAD, BUILD, PUBLISH)} == {
        LOAD: "default",
        BUILD: "dbt",
        PUBLISH: "dbt",
    }
    loads, dbt = workers.alive
    assert loads.taken() == [LOAD]
    assert set(dbt.taken()) == {BUILD, PUBLISH}


@pytest.mark.usefixtures("first")
def test_run_survives_its_workers(live: Live, workers: Workers) -> None:
    workers.start("default,dbt")  # the third
    land(live, "b.csv", range(100, 20_100))
    with held(live, "transformer", f"select pg_advisory_lock({LOCK})") as release_model:
        # A load can read the ledger, but not write to it when all rows of the file are in.
        with held(live, "loader", "lock table landing._orrery_ledger in share mode") as release_load:
            run_id = run(live)
            [query] = wait_for("the load has its rows", lambda: waiting(live, "loader", "relation"))
            kill_worker_of(live, workers, run_id, LOAD)
            workers.start("default,dbt")  # in its place
            wait_for("its transaction is gone", lambda: query not in waiting(live, "loader", "relation"))
            assert landed(live) == [("orders/a.csv", 100, 100, 1)]
            release_load()
            [query] = wait_for("the model waits", lambda: waiting(live, "transformer", "advisory"))
        assert landed(live) == [("orders/a.csv", 100, 100, 1), ("orders/b.csv", 20_000, 20_000, 1)]

        def before() -> Json | None:
            task = live.airflow.tasks(PIPELINE, run_id)["core.early"]
            return task if task["state"] == "success" else None

        early = wait_for("the model before it is published", before)
        kill_worker_of(live, workers, run_id, BUILD)
        wait_for("its query is gone", lambda: query not in waiting(live, "transformer", "advisory"))
        release_model()
        tasks = ended_well(live, run_id, 20_100)
    assert tasks[LOAD]["try_number"] == tasks[BUILD]["try_number"] == 2
    assert tasks["core.early"] == early


@pytest.mark.usefixtures("first")
def test_leaving_worker_ends_its_build(live: Live, workers: Workers, tmp_path: Path) -> None:
    [(orders,)] = live.query("select count(*) from landing.orders")
    # As on another machine: what it does with the manifests is in a folder of its own.
    shutil.copytree(live.dbt / "target", tmp_path / "target", ignore=shutil.ignore_patterns("runs"))
    with held(live, "transformer", f"select pg_advisory_lock({LOCK})") as release:
        run_id = run(live)
        wait_for("the model waits", lambda: waiting(live, "transformer", "advisory"))
        leaving = workers.of(live.airflow.tasks(PIPELINE, run_id)[BUILD]["pid"])
        for worker in {*workers.alive} - {leaving}:
            workers.kill(worker)
        [following] = workers.start("default,dbt", ORRERY_TARGET_PATH=str(tmp_path / "target"))
        leaving.leave()
        following.wait_ready()
        release()
        tasks = ended_well(live, run_id, orders, skipped=PUBLISH)
    assert tasks[BUILD]["try_number"] == 1
    assert following.taken() == [PUBLISH]
    path = f"/dags/{PIPELINE}/dagRuns/{run_id}/taskInstances/{PUBLISH}/logs/1"
    assert "it ran on another machine. Let all workers share" in str(live.airflow.get(path))
