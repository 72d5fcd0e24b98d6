"""Environments: several in one Airflow, and the schemas of the continuous integration."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from conftest import write_files
from orrery.local import health
from support.live import Live, own_stack
from support.waiting import wait_for

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
# Long enough for a busy machine.
SECONDS = 300
MACROS = ("drop_ci_schemas.sql", "drop_ci_schemas.yml")
FILES = {
    "dbt/dbt_project.yml": (
        "name: shop\nversion: '1.0'\nprofile: orrery\nmodels:\n  +materialized: table\n"
        "packages-install-path: \"{{ env_var('ORRERY_DBT_PACKAGES', 'dbt_packages') }}\"\n"
    ),
    "dbt/models/orders.sql": "select 1 as id\n",
    "dbt/models/totals.sql": "{{ config(schema='core') }} select sum(id) as total from {{ ref('orders') }}\n",
    "dbt/pipelines/shop.yml": "select: orders\nschedule: none\n",
    "dbt/pipelines/totals.yml": "select: totals\nschedule: {after: [shop]}\n",
}
PROD = """\
ORRERY_ENVIRONMENT=prod
# Where its tables are, and who may write them: Airflow's connection is right, the password is not.
ORRERY_TARGET=prod
ORRERY_WAREHOUSE_CONNECTION=warehouse_prod
DBT_ENV_SECRET_WAREHOUSE_PASSWORD=wrong
"""


def make(root: Path) -> None:
    """A project, and the same once more below it, as prod."""
    for place in (root, root / "prod"):
        write_files(place, FILES)
        shutil.copytree(ROOT / "dags", place / "dags", ignore=shutil.ignore_patterns("__pycache__"))
        (place / "include").symlink_to(ROOT / "include")
        shutil.copy(ROOT / "dbt" / "profiles.yml", place / "dbt")
        for macro in MACROS:
            (place / "dbt" / "macros").mkdir(exist_ok=True)
            shutil.copy(ROOT / "dbt" / "macros" / macro, place / "dbt" / "macros")
    write_files(root, {"prod/orrery.env": PROD})


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """A stack with two DAG bundles."""
    with own_stack(make) as live:
        bundles = {"dags-folder": live.root / "dags", "prod": live.root / "prod" / "dags"}
        kind = "airflow.dag_processing.bundles.local.LocalDagBundle"
        live.env["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"] = json.dumps(
            [{"name": name, "classpath": kind, "kwargs": {"path": str(at)}} for name, at in bundles.items()]
        )
        prod = {**live.env, "ORRERY_PROJECT_DIR": str(live.root / "prod")}
        with live.start("build", env=prod) as build:
            told, _ = build.communicate(timeout=SECONDS)
        assert build.returncode == 0, told
        assert "shop_prod" in told
        yield live


def well(live: Live) -> bool:
    """Whether all of the stack runs, as `./orrery up` sees it."""
    running = {status.state for status in live.stack.status()} == {"running"}
    return running and not health.unhealthy(live.info.api_port, since=0)


def tags(live: Live) -> dict[str, list[str]]:
    """The tags of each DAG."""
    dags = live.airflow.get("/dags")["dags"]
    return {dag["dag_id"]: [tag["name"] for tag in dag["tags"]] for dag in dags}


def test_two_environments_share_one_airflow(live: Live) -> None:
    """Each has DAGs, a tag, tables, pipelines that come after, and a way to the warehouse of its own."""
    assert live.orrery("run", "shop").code == 0
    wait_for("the DAGs of prod", lambda: "totals_prod" in tags(live))
    assert tags(live) == {"shop": [], "totals": [], "shop_prod": ["prod"], "totals_prod": ["prod"]}
    assert live.query("select to_regclass('prod.orders')") == [(None,)]

    there = urlsplit(live.warehouse["transformer"])
    live.airflow.post(
        "/connections",
        {
            "connection_id": "warehouse_prod",
            "conn_type": "postgres",
            "host": there.hostname,
            "port": there.port,
            "login": there.username,
            "password": there.password,
            "schema": there.path.strip("/"),
        },
    )
    run_id = str(live.airflow.trigger("shop_prod").json()["dag_run_id"])
    assert live.airflow.wait_ended("shop_prod", run_id) == "success", live.airflow.states("shop_prod", run_id)
    for pipeline, table in (("totals", "dev_core.totals"), ("totals_prod", "prod_core.totals")):
        runs = wait_for(
            f"a run of {pipeline}",
            lambda pipeline=pipeline: [
                run
                for run in live.airflow.get(f"/dags/{pipeline}/dagRuns")["dag_runs"]
                if run["state"] == "success"
            ],
        )
        assert [run["run_type"] for run in runs] == ["asset_triggered"]
        assert live.query(f"select total from {table}") == [(1,)]


def test_schemas_of_a_ci_run_are_made_and_dropped(live: Live) -> None:
    """Those of that run alone, and never others."""
    ci = {**live.env, "ORRERY_TARGET": "ci"}
    for number in ("7", "77"):
        with live.start("dbt", "build", env=ci | {"ORRERY_CI_ID": number}) as build:
            assert build.wait(SECONDS) == 0, build.stdout and build.stdout.read()
    # A stack that is not well is mended, and nothing is said of its settings.
    wait_for("the stack is well", lambda: well(live))
    with live.start("up", env=ci) as up:
        told, _ = up.communicate(timeout=SECONDS)
    assert "Orrery or its settings have changed: ./orrery down" in told
    assert "it was built for the target dev, here it is ci." in told
    assert "have changed" not in live.orrery("up").output
    of_ci = "select nspname from pg_namespace where nspname like 'ci\\_%' order by 1"
    assert live.query(of_ci) == [("ci_7",), ("ci_77",), ("ci_77_core",), ("ci_7_core",)]

    drop = ("dbt", "run-operation", "drop_ci_schemas")
    with live.start(*drop, env=ci | {"ORRERY_CI_ID": "7"}) as dropped:
        assert dropped.wait(SECONDS) == 0
    assert live.query(of_ci) == [("ci_77",), ("ci_77_core",)]

    refused = live.orrery(*drop)
    assert refused.code != 0
    assert "writes to dev" in refused.output
    assert live.query("select id from dev.orders") == [(1,)]
