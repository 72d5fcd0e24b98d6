"""BigQuery as the warehouse: the real dbt-bigquery on an emulator gives what PostgreSQL gives."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
from psycopg2.extensions import parse_dsn

from services.airbyte import AirbyteServer
from services.bigquery import PROJECT, BigQueryServer
from support import trial
from support.dbt import DbtSession
from support.trial import ROOT
from support.waiting import wait_for
from support.warehouse import query

pytestmark = pytest.mark.integration

SYNCED = ROOT / "tests" / "services" / "data" / "sales_marketing"
BOOKINGS, SALES = "tag:booking_analytics", "tag:sales_marketing"
SCHEMA = "ci_bigquery"
# Both have reasons that the data give.
WARNINGS = {"assert_completed_bookings_are_paid", "relationships_fct_ad_spend"}
# When something was loaded or seen, and keys that are made from it.
MOMENTS = {"extracted_at", "booking_version_id"}


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
    """Both products in a warehouse: what became of their nodes in two builds, and where they are."""

    warehouse: Warehouse
    nodes: dict[str, tuple[str, str, str]]
    first: dict[str, str]
    second: dict[str, str]

    def tables(self) -> dict[str, str]:
        """Schema and name of all tables that the builds made."""
        return {
            uid: f"{schema}.{name}"
            for uid, (schema, name, kind) in self.nodes.items()
            if uid in self.first and kind not in ("view", "ephemeral")
        }


def build(root: Path, warehouse: Any, environment: dict[str, str]) -> Built:
    """Build both products, change a booking, and build again."""
    with DbtSession(root, environment) as dbt:
        warehouse.sync(SYNCED)
        first = dbt.run("seed", select=[BOOKINGS])
        first |= dbt.run("source", "freshness", select=[f"source:*,{BOOKINGS}", f"source:*,{SALES}"])
        first |= dbt.run("build", select=[BOOKINGS, SALES], exclude_resource_types=["seed"])
        dbt.run("run-operation", "change_a_booking")
        second = dbt.run("build", select=[BOOKINGS, SALES], exclude_resource_types=["seed"])
        return Built(warehouse, dbt.nodes, first, second)


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
def built(
    tmp_path_factory: pytest.TempPathFactory, bigquery: BigQueryServer, postgres: Postgres
) -> tuple[Built, Built]:
    """Both products, on PostgreSQL and on BigQuery."""
    roots = [tmp_path_factory.mktemp(name) for name in ("postgres", "bigquery")]
    for root in roots:
        trial.copy(root)
        (root / "dbt" / "macros" / "change_a_booking.sql").write_text(CHANGE)
    with ThreadPoolExecutor() as threads:
        on_postgres = threads.submit(build, roots[0], postgres, postgres.environment())
        on_bigquery = threads.submit(build, roots[1], bigquery, bigquery.environment(SCHEMA))
        return on_postgres.result(), on_bigquery.result()


def test_everything_is_built_and_tested(built: tuple[Built, Built]) -> None:
    """The same nodes run in both, and warn for the same reasons."""
    on_postgres, on_bigquery = built
    for results in (on_bigquery.first, on_bigquery.second):
        bad = {uid: status for uid, status in results.items() if status not in ("success", "pass")}
        assert set(bad.values()) == {"warn"}
        assert {any(name in uid for name in WARNINGS) for uid in bad} == {True}
        kinds = {uid.partition(".")[0] for uid in results}
        assert kinds >= {"model", "snapshot", "test", "unit_test"}
    assert {uid for uid in on_bigquery.first if uid.startswith("source.")}
    assert on_bigquery.first == on_postgres.first
    assert on_bigquery.second == on_postgres.second


def test_row_counts_are_equal(built: tuple[Built, Built]) -> None:
    """Of all seeds, snapshots and tables of both products."""
    on_postgres, on_bigquery = ({uid: count(each, table) for uid, table in each.tables().items()} for each in built)
    assert on_bigquery == on_postgres
    assert on_bigquery["model.orrery_demo.fct_bookings"] == 2_500
    assert on_bigquery["model.orrery_demo.fct_acquisition_costs"] == 38
    # One booking was changed between the builds.
    assert on_bigquery["snapshot.orrery_demo.snap_bookings"] == 2_501


def count(built: Built, table: str) -> int:
    return int(built.warehouse.query(f"select count(*) from {table}")[0][0])


def test_marts_are_equal(built: tuple[Built, Built]) -> None:
    """Row by row, in both products."""
    marts = [uid for uid in built[0].tables() if uid.split(".")[-1].startswith(("dim_", "fct_"))]
    assert len(marts) == 13
    for uid in marts:
        on_postgres, on_bigquery = (contents(each, each.tables()[uid]) for each in built)
        assert on_bigquery == on_postgres, uid


def contents(built: Built, table: str) -> list[tuple[str, ...]]:
    """The rows of a table as text, in an order that does not depend on the warehouse."""
    schema, _, name = table.partition(".")
    columns = built.warehouse.query(
        f"select column_name from {schema}.INFORMATION_SCHEMA.COLUMNS where table_name = '{name}'"
        if isinstance(built.warehouse, BigQueryServer)
        else "select column_name from information_schema.columns"
        f" where (table_schema, table_name) = ('{schema}', '{name}')"
    )
    names = sorted({column for (column,) in columns} - MOMENTS)
    rows = built.warehouse.query(f"select {', '.join(names)} from {table}")
    return sorted(tuple(plain(value) for value in row) for row in rows)


def plain(value: Any) -> str:
    """A value as text; times are in UTC in both, numbers have two digits behind the point or none."""
    if isinstance(value, datetime):
        return (value.replace(tzinfo=value.tzinfo or UTC)).astimezone(UTC).isoformat()
    return str(value)


def test_incremental_models_are_partitioned(built: tuple[Built, Built], bigquery: BigQueryServer) -> None:
    layout = {
        name: (table.time_partitioning.type_, table.time_partitioning.field, table.clustering_fields)
        for name in ("fct_bookings", "fct_ad_spend")
        for table in [bigquery.client.get_table(f"{PROJECT}.{SCHEMA}_core.{name}")]
    }
    assert layout == {
        "fct_bookings": ("MONTH", "booked_date", ["property_id", "customer_id"]),
        "fct_ad_spend": ("MONTH", "spend_date", ["campaign_id"]),
    }


def test_jobs_are_labelled(built: tuple[Built, Built], bigquery: BigQueryServer) -> None:
    """What is paid for can be told apart by node."""
    jobs = [job.labels for job in bigquery.client.list_jobs(max_results=5_000, all_users=True)]
    of_bookings = [labels for labels in jobs if labels.get("node") == "fct_bookings"]
    assert {(each["app"], each["target"], each["kind"]) for each in of_bookings} == {
        ("orrery", "bigquery", "model")
    }
