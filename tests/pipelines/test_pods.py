"""`execute: kubernetes` for real: the commands of the pods run, on a stand-in cluster, as processes here."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest

from conftest import NO_HUB
from services.kubernetes import KubernetesServer
from support import trial
from support.airflow import Json
from support.live import Live
from support.waiting import wait_for

pytestmark = pytest.mark.integration

IMAGE = "example/orrery:1"
BUILD, BY_MODEL = "trial_pods", "trial_pods_per_model"
PLACE, TESTS, DIVIDED, AFTER = "core.pod_place", "tests.pod_place", "core.pod_divided", "core.pod_after"
NODES = {PLACE, TESTS, DIVIDED, AFTER}
SECONDS = 300


@pytest.fixture(scope="module")
def cluster(live: Live) -> Iterator[KubernetesServer]:
    """A cluster that Airflow knows, in which pods have what the project's image has."""
    assert live.orrery("up").code == 0
    wait_for("the pipelines", lambda: live.airflow.get("/dags")["dags"])
    live.query("create schema if not exists dev; drop table if exists dev.trial_pod_switch")
    live.query("create table dev.trial_pod_switch as select 1 as divisor")
    [(host, port, password)] = [warehouse_of(live)]
    image = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": live.env["PYTHONPATH"],
        "ORRERY_PROJECT_DIR": str(live.root),
        "AIRFLOW_HOME": str(live.root / "pods"),
        **NO_HUB,
    }
    variables = {
        "ORRERY_WAREHOUSE_HOST": host,
        "ORRERY_WAREHOUSE_PORT": port,
        "PGOPTIONS": "-c orrery.place=pod",
    }
    secrets = {"warehouse": {"DBT_ENV_SECRET_WAREHOUSE_PASSWORD": password}}
    with KubernetesServer(
        live.root, {IMAGE: []}, environment=image, config_maps={"pipeline-env": variables}, secrets=secrets
    ) as server:
        for body in server.connections().values():
            live.airflow.post("/connections", body)
        yield server
        for name in server.connections():
            live.airflow.delete(f"/connections/{name}")
        assert server.unknown == []
        assert server.running == []


@pytest.fixture(autouse=True)
def _empty(cluster: KubernetesServer, live: Live) -> None:
    cluster.posted.clear()
    live.query("update dev.trial_pod_switch set divisor = 1")


def warehouse_of(live: Live) -> tuple[str, str, str]:
    """Host, port and password of the warehouse, for dbt's role."""
    with live.connect() as link:
        found = link.info.dsn_parameters
        return found["host"], found["port"], link.info.password


@contextmanager
def lock(live: Live) -> Iterator[None]:
    """Hold up the model pod_divided."""
    with live.connect() as link, link.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(%s)", (trial.LOCK,))
        yield


def start(live: Live, dag_id: str, conf: Json | None = None) -> str:
    """Start a run; returns its id."""
    return str(live.airflow.trigger(dag_id, conf).raise_for_status().json()["dag_run_id"])


def clear(live: Live, dag_id: str, run_id: str, *tasks: str) -> None:
    """Clear tasks, and nothing that comes after them."""
    body = {"dag_run_id": run_id, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
    live.airflow.post(f"/dags/{dag_id}/clearTaskInstances", body | {"task_ids": list(tasks)})


def of_task(live: Live, dag_id: str, run_id: str, task_id: str, rest: str) -> Any:
    path = f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}/taskInstances/{task_id}/{rest}"
    return live.airflow.get(path)


def result_of(live: Live, dag_id: str, run_id: str, task_id: str) -> Json:
    """What a task tells in its XCom."""
    found: Json = live.airflow.xcom(dag_id, run_id, task_id)
    return found


def log_of(live: Live, dag_id: str, run_id: str, task_id: str, number: int = 1) -> str:
    """The log of a try of a task, with the details of errors."""
    found = of_task(live, dag_id, run_id, task_id, f"logs/{number}?full_content=true")
    return json.dumps(found["content"], ensure_ascii=False)


def tasks_of(cluster: KubernetesServer) -> list[str]:
    """The tasks for which pods were made."""
    return sorted(pod["metadata"]["labels"]["orrery/task"] for pod in cluster.posted)


def places(live: Live) -> list[tuple[Any, ...]]:
    return live.query("select place from dev.pod_place")


@pytest.mark.parametrize(
    ("pipeline", "task", "tasks"),
    [
        ("trial_pods_bookings", "core.fct_bookings", 50),
        # Workers load its files.
        ("trial_pods_forex", "gold.dim_forex_customers", 30),
    ],
)
def test_a_product_is_built_in_one_pod(
    live: Live, cluster: KubernetesServer, pipeline: str, task: str, tasks: int
) -> None:
    # From nothing: other pipelines share the tables.
    done = live.orrery("run", pipeline, "--full-refresh")
    assert done.code == 0, done.output
    states = live.airflow.states(pipeline, done.run_id)
    assert set(states.values()) <= {"success", "skipped"}
    assert not [name for name, state in states.items() if state == "skipped" and "chunks" not in name]
    assert len(states) > tasks
    assert tasks_of(cluster) == ["build"]
    result = result_of(live, pipeline, done.run_id, task)
    [(rows,)] = live.query(f"select count(*) from dev_{task}")
    assert (result["status"], result["rows_affected"]) == ("success", rows)
    assert rows > 0
    # The pod has written the ledger, with its own way to the warehouse.
    query = f"select count(*) from orrery.node_runs where pipeline = '{pipeline}' and run_id = "
    [(kept,)] = live.query(query + f"'{done.run_id}'")
    assert kept > tasks
    assert "OK created" in log_of(live, pipeline, done.run_id, task)
    [pod] = cluster.posted
    assert pod["spec"]["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True


def test_tasks_end_while_the_pod_runs_and_a_failure_tells_what_dbt_says(
    live: Live, cluster: KubernetesServer
) -> None:
    live.query("update dev.trial_pod_switch set divisor = 0")
    with lock(live):
        run_id = start(live, BUILD)

        def midway() -> bool:
            states = live.airflow.states(BUILD, run_id)
            return {PLACE, TESTS} <= {t for t, state in states.items() if state == "success"} and (
                states[DIVIDED],
                states[AFTER],
                states["build"],
            ) == ("running", "deferred", "running")

        wait_for("the second model runs", midway, SECONDS)
        assert len(cluster.running) == 1
    assert live.airflow.wait_ended(BUILD, run_id, SECONDS) == "failed"
    states = live.airflow.states(BUILD, run_id)
    assert (states[DIVIDED], states[AFTER], states["build"]) == ("failed", "upstream_failed", "success")
    assert "division by zero" in result_of(live, BUILD, run_id, DIVIDED)["message"]
    log = log_of(live, BUILD, run_id, DIVIDED)
    assert "division by zero" in log
    assert "select 1 / (select divisor" in log
    assert result_of(live, BUILD, run_id, TESTS)["status"] == "warn"
    assert places(live) == [("pod",)]
    assert "orrery:" not in log_of(live, BUILD, run_id, "build")
    # Cleared, it is built in one pod, with what waited for it, and with nothing else.
    built = live.query("select invocation from dev.pod_place")
    live.query("update dev.trial_pod_switch set divisor = 1")
    clear(live, BUILD, run_id, DIVIDED, AFTER)
    assert live.airflow.wait_ended(BUILD, run_id, SECONDS) == "success"
    assert tasks_of(cluster) == ["build", "build"]
    assert live.query("select invocation from dev.pod_place") == built


def test_a_build_that_is_killed_ends_its_pod_and_goes_on(live: Live, cluster: KubernetesServer) -> None:
    with lock(live):
        run_id = start(live, BUILD)
        wait_for(
            "the second model runs",
            lambda: live.airflow.states(BUILD, run_id).get(DIVIDED) == "running",
            SECONDS,
        )
        [first] = cluster.running
        built = live.query("select invocation from dev.pod_place")
        task = live.airflow.tasks(BUILD, run_id)["build"]
        os.kill(task["pid"], signal.SIGKILL)
        wait_for("another pod runs", lambda: cluster.running not in ([], [first]), SECONDS)
        assert first in cluster.deleted
    assert live.airflow.wait_ended(BUILD, run_id, SECONDS) == "success"
    assert live.query("select invocation from dev.pod_place") == built


def test_each_task_has_a_pod_of_its_own(live: Live, cluster: KubernetesServer) -> None:
    live.query("update dev.trial_pod_switch set divisor = 0")
    # Meanwhile, a build with a mistake in its choices ends before anything runs.
    mistaken = start(live, BUILD, {"select": "tag:nothing_has_it"})
    run_id = start(live, BY_MODEL)
    assert live.airflow.wait_ended(BY_MODEL, run_id, SECONDS) == "failed"
    states = live.airflow.states(BY_MODEL, run_id)
    assert states == {PLACE: "success", DIVIDED: "failed", AFTER: "upstream_failed"}
    assert tasks_of(cluster) == ["build", DIVIDED, PLACE]
    assert live.airflow.wait_ended(BUILD, mistaken, SECONDS) == "failed"
    told = result_of(live, BUILD, mistaken, "build")
    assert told["status"] == "error"
    assert "matches no node of the dbt project" in told["message"]
    assert places(live) == [("pod",)]
    assert result_of(live, BY_MODEL, run_id, PLACE)["rows_affected"] == 1
    assert "division by zero" in result_of(live, BY_MODEL, run_id, DIVIDED)["message"]
    log = log_of(live, BY_MODEL, run_id, DIVIDED)
    assert "division by zero" in log
    assert "orrery:" not in log
    # One that is cleared is one pod.
    live.query("update dev.trial_pod_switch set divisor = 1")
    clear(live, BY_MODEL, run_id, DIVIDED)
    assert live.airflow.wait_ended(BY_MODEL, run_id, SECONDS) == "failed"
    assert live.airflow.states(BY_MODEL, run_id)[DIVIDED] == "success"
    assert tasks_of(cluster) == ["build", DIVIDED, DIVIDED, PLACE]
