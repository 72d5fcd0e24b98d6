"""BigQuery as the warehouse: the real dbt-bigquery on an emulator gives what PostgreSQL gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

import psycopg2
import pytest
import yaml
from psycopg2.extensions import parse_dsn

from orrery.config.ingest import Files
from orrery.ingest.bigquery import BigQuery
from orrery.ingest.bigquery_load import BigQueryLoader
from orrery.ingest.landing import LandingZone
from orrery.ingest.load import Loader
from orrery.ingest.loader import FileLoader
from orrery.ingest.target import Target
from services.airbyte import AirbyteServer
from services.bigquery import PROJECT, BigQueryServer
from support import trial
from support.dbt import DbtSession, Node
from support.live import Live, own_stack
from support.trial import ROOT
from support.waiting import wait_for
from support.warehouse import query

pytestmark = pytest.mark.integration

DATA = ROOT / "tests" / "services" / "data"
SYNCED, COLLECTED = DATA / "sales_marketing", DATA / "events"
PRODUCTS = [
    f"tag:{name}"
    for name in (
        "booking_analytics",
        "sales_marketing",
        "forex",
        "affiliates",
        "events",
        "events_integration",
    )
]
# Where files come in.
SOURCES = ("forex/bronze/_forex", "affiliates/silver/_affiliates", "events/staging/_events")
SCHEMA = "ci_bigquery"
GOOD = ("success", "pass", "no-op")
# All have reasons that the data give.
WARNINGS = {
    "assert_completed_bookings_are_paid",
    "assert_conversions_have_a_deal",
    "assert_transactions_are_converted",
    "relationships_fct_ad_spend",
}
# When something was loaded or seen, and keys that are made from it.
MOMENTS = {"loaded_at", "extracted_at", "booking_version_id", "transaction_loaded_at", "rate_loaded_at"}
OFF = Decimal("0.001")
# Sums of what came in less sums of what went out may be off by more than that.
DIFFERENCES = {"dim_forex_customers": "net_amount_eur", "fct_daily_turnover": "net_amount_eur"}


class Warehouse(Protocol):
    """What the test asks of either."""

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL."""

    uri: str

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        return query(self.uri, sql)

    def environment(self) -> dict[str, str]:
        """What leads dbt here."""
        known = parse_dsn(self.uri)
        return {
            "ORRERY_TARGET": "ci",
            "ORRERY_CI_ID": SCHEMA.removeprefix("ci_"),
            "ORRERY_WAREHOUSE_HOST": known["host"],
            "ORRERY_WAREHOUSE_USER": known["user"],
            "ORRERY_WAREHOUSE_DATABASE": known["dbname"],
            "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": known.get("password", ""),
        }

    def sync(self, folder: Path) -> None:
        """Load the tables of sales_marketing."""
        with AirbyteServer({"it": folder}, dsn=self.uri) as airbyte:
            job = airbyte.start(airbyte.ids["it"])
            assert job
            wait_for("the sync ends", lambda: job.status not in ("pending", "running"))
            assert job.status == "succeeded", job.error


@pytest.fixture(scope="module")
def bigquery() -> Iterator[BigQueryServer]:
    """The emulator."""
    with BigQueryServer() as server:
        yield server


@pytest.fixture(scope="module")
def postgres(landing_uri: str) -> Iterator[Postgres]:
    """A PostgreSQL with an empty landing schema."""
    yield Postgres(landing_uri)
    for (schema,) in query(landing_uri, f"select nspname from pg_namespace where nspname ~ '^{SCHEMA}'"):
        query(landing_uri, f'drop schema "{schema}" cascade')


@dataclass
class Built:
    """All products in a warehouse: what became of their nodes in two builds, and where they are."""

    warehouse: Warehouse
    nodes: dict[str, Node]
    first: dict[str, str]
    second: dict[str, str]

    def tables(self) -> dict[str, str]:
        """Schema and name of all tables that the builds made."""
        made = {uid: node for uid, node in self.nodes.items() if uid in self.first}
        return {uid: node.table for uid, node in made.items() if node.kind not in ("view", "ephemeral")}


def build(root: Path, warehouse: Any, environment: dict[str, str]) -> Built:
    """Build all products, change a booking and some files, and build again."""
    *early, last = sorted(COLLECTED.glob("*.jsonl"))
    with DbtSession(root, environment) as dbt:
        warehouse.sync(SYNCED)
        landed = land(warehouse, root / "dbt", early)
        # Nobody has paid yet.
        assert [name for name, files in landed.items() if not files] == ["payouts"]
        first = dbt.run("seed", select=PRODUCTS[:1])
        first |= dbt.run("source", "freshness", select=[f"source:*,{tag}" for tag in PRODUCTS])
        first |= dbt.run("build", select=PRODUCTS, exclude_resource_types=["seed"])
        dbt.run("run-operation", "change_a_booking")
        for name in CORRECTED:
            file = root / "dbt" / "landing" / name
            file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
        assert sum(land(warehouse, root / "dbt", [last]).values()) == len(CORRECTED) + 1
        second = dbt.run("build", select=AGAIN, exclude_resource_types=["test", "unit_test"])
        return Built(warehouse, dbt.nodes, first, second)


def land(warehouse: Any, dbt: Path, collected: list[Path]) -> dict[str, int]:
    """Load what has come or changed, also the objects `collected`; returns the number of files by table."""
    loaded: dict[str, int] = {}
    lake = dbt / "landing" / "events"
    lake.mkdir(exist_ok=True)
    for file in collected:
        shutil.copy(file, lake)
    for name in SOURCES:
        (source,) = yaml.safe_load((dbt / f"models/{name}__sources.yml").read_bytes())["sources"]
        for table in source["tables"]:
            block = ingest_of(table) or ingest_of(source)
            zone, pattern = dbt / "landing", block["files"].replace("{table}", table["name"])
            if block.pop("landing_zone", None):
                zone = lake
            spec = Files(**{**block, "files": pattern})
            loaded[table["name"]] = load(warehouse, source, table, spec, LandingZone(f"file://{zone}"))
    return loaded


def ingest_of(resource: Any) -> Any:
    """The block of a source or table that loads files."""
    found = resource.get("config", {}).get("meta", {}).get("orrery", {}).get("ingest")
    return found[-1] if isinstance(found, list) else found


def load(warehouse: Any, source: Any, table: Any, spec: Files, zone: LandingZone) -> int:
    """Load a table; returns from how many files."""
    columns = {column["name"]: column["data_type"] for column in table["columns"]}
    name = table.get("identifier", table["name"])
    target = Target("landing", name, f"{source['name']}.{table['name']}", columns, spec.key)
    loader: FileLoader
    if isinstance(warehouse, Postgres):
        loader = Loader(lambda: psycopg2.connect(warehouse.uri), target, spec, zone, "test")
    else:
        loader = BigQueryLoader(BigQuery(warehouse.client, PROJECT), target, spec, zone, "test")
    loader.prepare()
    return len(list(loader.load(loader.pending(zone.find(spec.files)))))


# Without their last rows they come again.
CORRECTED = ("affiliates/clicks/clicks_2026-01-06.csv", "affiliates/conversions/conversions_2026-01-07.csv")
# What keeps rows from build to build, and the tables that show it.
AGAIN = [
    "fct_bookings",
    "fct_ad_spend",
    "snap_bookings",
    "dim_booking_history",
    "int_bookings__converted_to_eur",
    "stg_affiliates__clicks",
    "stg_affiliates__conversions+",
    "int_events__deduplicated+",
]
CHANGE = """\
{% macro change_a_booking() %}
    {% set changed %}
        update {{ target.schema }}_raw.raw_bookings
        set status = 'cancelled', updated_at = cast('2026-06-01 12:00:00' as timestamp)
        where id = 'B00001'
    {% endset %}
    {% do run_query(changed ~ (';commit' if target.type == 'postgres' else '')) %}
{% endmacro %}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the project that is built on BigQuery."""
    return tmp_path_factory.mktemp("bigquery")


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, project: Path, bigquery: BigQueryServer, postgres: Postgres
) -> tuple[Built, Built]:
    """All products, on PostgreSQL and on BigQuery."""
    other = tmp_path_factory.mktemp("postgres")
    for root in (project, other):
        trial.copy(root)
        (root / "dbt" / "macros" / "change_a_booking.sql").write_text(CHANGE)
    with ThreadPoolExecutor() as threads:
        on_postgres = threads.submit(build, other, postgres, postgres.environment())
        on_bigquery = threads.submit(build, project, bigquery, bigquery.environment(SCHEMA))
        return on_postgres.result(), on_bigquery.result()


def test_everything_is_built_and_tested(built: tuple[Built, Built]) -> None:
    """The same nodes run in both, and warn for the same reasons."""
    on_postgres, on_bigquery = built
    bad = {uid: status for uid, status in on_bigquery.first.items() if status not in GOOD}
    assert set(bad.values()) == {"warn"}
    assert [uid for uid in bad if not any(name in uid for name in WARNINGS)] == []
    kinds = {uid.partition(".")[0] for uid in on_bigquery.first}
    assert kinds >= {"seed", "source", "model", "snapshot", "test", "unit_test"}
    assert on_bigquery.first == on_postgres.first
    assert on_bigquery.second == on_postgres.second
    assert set(on_bigquery.second.values()) <= {*GOOD, "warn"}


def test_row_counts_are_equal(built: tuple[Built, Built]) -> None:
    """Of all seeds, snapshots and tables of all products."""
    on_postgres, on_bigquery = (
        {uid: count(each, table) for uid, table in each.tables().items()} for each in built
    )
    assert on_bigquery == on_postgres
    assert on_bigquery["model.orrery_demo.fct_bookings"] == 2_500
    assert on_bigquery["model.orrery_demo.fct_acquisition_costs"] == 38
    assert on_bigquery["model.orrery_demo.fct_transactions"] == 2_940
    # One booking was changed between the builds.
    assert on_bigquery["snapshot.orrery_demo.snap_bookings"] == 2_501


def count(built: Built, table: str) -> int:
    return int(built.warehouse.query(f"select count(*) from {table}")[0][0])


def test_marts_are_equal(built: tuple[Built, Built]) -> None:
    """Row by row, in all products.

    The emulator casts to numbers of three digits behind the point, where BigQuery has nine: rates of exchange
    are a little off, and so are the amounts in euro.
    """
    marts = [uid for uid in built[0].tables() if uid.split(".")[-1].startswith(("dim_", "fct_"))]
    assert len(marts) == 26
    for uid in marts:
        on_postgres, on_bigquery = (contents(each, uid) for each in built)
        assert on_postgres
        assert on_bigquery.keys() ^ on_postgres.keys() == set(), uid
        for row, amounts in on_postgres.items():
            pairs = list(zip(on_bigquery[row], amounts, strict=True))
            assert all(a == b or abs(a - b) <= OFF * max(abs(b), 100) for a, b in pairs), (uid, row, pairs)


def contents(built: Built, uid: str) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """The rows of a mart as text, and the amounts of each."""
    off = DIFFERENCES.get(uid.rpartition(".")[2])
    names = [name for name in built.nodes[uid].columns if name not in MOMENTS and name != off]
    amounts = [name for name in names if "amount" in name or name.endswith("_eur")]
    others = [name for name in names if name not in amounts]
    rows = built.warehouse.query(f"select {', '.join(others + amounts)} from {built.nodes[uid].table}")
    found = {tuple(plain(value) for value in row[: len(others)]): row[len(others) :] for row in rows}
    assert len(found) == len(rows)
    return found


def plain(value: Any) -> str:
    """A value as text: times in UTC, numbers without zeros at the end."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=value.tzinfo or UTC)).astimezone(UTC).isoformat()
    return format(value.normalize(), "f") if isinstance(value, Decimal) else str(value)


def test_incremental_models_are_partitioned(built: tuple[Built, Built], bigquery: BigQueryServer) -> None:
    queries = [job.query for job in bigquery.client.list_jobs(max_results=5_000) if job.job_type == "query"]
    for schema, name, field, clusters in (
        ("core", "fct_bookings", "booked_date", "property_id, customer_id"),
        ("core", "fct_ad_spend", "spend_date", "campaign_id"),
        ("gold", "fct_transactions", "booked_date", "customer_id, currency_code"),
    ):
        table = f"`{PROJECT}`.`{SCHEMA}_{schema}`.`{name}`"
        (made,) = (sql for sql in queries if f"create or replace table {table}\n" in sql)
        assert f"partition by date_trunc({field}, month)\n    cluster by {clusters}\n" in made


def test_jobs_are_labelled(built: tuple[Built, Built], bigquery: BigQueryServer, project: Path) -> None:
    """What is paid for can be told apart. Of jobs that succeed, the emulator forgets the labels."""
    (project / "dbt" / "models" / "wrong.sql").write_text("select * from nowhere.nothing")
    told = {"AIRFLOW_CTX_DAG_ID": "booking_analytics", "AIRFLOW_CTX_DAG_RUN_ID": "manual__2026-01-31T06:00"}
    with (
        DbtSession(project, bigquery.environment(SCHEMA) | told) as dbt,
        pytest.raises(AssertionError, match="nowhere"),
    ):
        dbt.run("run", select=["wrong"])
    (labels,) = (
        job.labels for job in bigquery.client.list_jobs(max_results=50) if job.labels.get("node") == "wrong"
    )
    assert labels.pop("dbt_invocation_id")
    assert labels == {
        "app": "orrery",
        "target": "bigquery",
        "kind": "model",
        "node": "wrong",
        "pipeline": "booking_analytics",
        "run": "manual__2026-01-31t06_00",
    }


def test_a_pipeline_runs_on_bigquery() -> None:
    """In a real Airflow, which needs nothing else of the warehouse than dbt does."""
    with BigQueryServer() as server, own_stack(trial.copy, server.environment()) as live:
        done = live.orrery("run", "booking_analytics", "--skip-stages", "publish", seconds=900)
        assert done.code == 0, done.output
        states = live.airflow.states("booking_analytics", done.run_id)
        assert {state for task, state in states.items() if not task.startswith("publish.")} == {"success"}
        assert server.query("select count(*) from dev_core.fct_bookings") == [(2_500,)]
        # Nothing was built in the PostgreSQL of the stack.
        assert live.query("select nspname from pg_namespace where nspname like 'dev%'") == []
        task = "taskInstances/core.fct_bookings/xcomEntries/dbt"
        value = live.airflow.get(f"/dags/booking_analytics/dagRuns/{quote(done.run_id, safe='')}/{task}")[
            "value"
        ]
        (node,) = (json.loads(value) if isinstance(value, str) else value)["nodes"]
        response = node["adapter_response"]
        assert (response["code"], response["rows_affected"]) == ("CREATE TABLE", 2_500)
        assert {"bytes_processed", "job_id"} <= response.keys()
        check_files(live, server)


def check_files(live: Live, server: BigQueryServer) -> None:
    """Files are loaded by dbt's settings alone."""
    done = live.orrery("run", "forex", seconds=600)
    assert done.code == 0, done.output
    states = live.airflow.states("forex", done.run_id)
    assert set(states.values()) == {"success"}, states
    assert not any("chunks" in task for task in states)
    assert server.query("select count(*) from dev_gold.fct_transactions") == [(2_940,)]
    assert server.query("select count(*) from landing._orrery_ledger") == [(8,)]
    left = {table.table_id for table in server.client.list_tables("landing")}
    assert not {name for name in left if name.startswith("_orrery_stage")}
