"""Rows of a failed test, read by a real dbt from a real PostgreSQL."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg2.extensions import parse_dsn

from conftest import BASE, WriteProject
from orrery.alert import samples
from orrery.alert.message import Samples
from orrery.alert.samples import Permit, read_samples
from orrery.execute.options import RunOptions
from orrery.manifest.build import build_manifests
from support.warehouse import query

pytestmark = pytest.mark.integration

SQL = "select id, email, number from orders_of_samples where number is null"
OPTIONS = RunOptions()


@pytest.fixture
def orders(postgres_uri: str, write_project: WriteProject) -> Iterator[str]:
    """A table with three rows that fail, and a project that leads to it."""
    address = parse_dsn(postgres_uri)
    profile = (
        "tiny:\n  target: dev\n  outputs:\n    dev:\n      type: postgres\n      password: ''\n"
        f"      host: {address['host']}\n      port: {address.get('port', 5432)}\n"
        f"      user: {address['user']}\n      dbname: {address['dbname']}\n      schema: public\n"
    )
    project = write_project({**BASE, "dbt/profiles.yml": profile, "dbt/models/a.sql": "select 1 as id"})
    assert build_manifests(project, lambda line: None).errors == {}
    query(
        postgres_uri,
        "create table orders_of_samples as select id, 'a@b.c' as email, null::int as number, 'x' as secret "
        "from generate_series(1, 3) as id",
    )
    yield postgres_uri
    query(postgres_uri, "drop table orders_of_samples")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for dbt to start on a machine with other things to do."""
    monkeypatch.setattr(samples, "SECONDS", 60.0)


@pytest.mark.usefixtures("orders", "patient")
def test_rows_without_what_may_not_be_seen(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Others on this machine may have such folders at this moment.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    caplog.set_level(logging.DEBUG)
    # A comment at its end, as SQL may have one.
    found = read_samples(f"{SQL} order by id -- all", Permit(2, frozenset({"id", "number"})), OPTIONS)
    assert found == Samples(("id", "number"), (("1", "null"), ("2", "null")))
    assert "a@b.c" not in caplog.text
    assert [path for path in tmp_path.glob("orrery-samples-*") if any(path.iterdir())] == []


@pytest.mark.usefixtures("patient")
def test_a_slow_query_is_given_up(
    orders: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "_QUERY_SECONDS", 0.3)
    caplog.set_level(logging.INFO, logger=samples.__name__)
    assert read_samples("select pg_sleep(30)::text as id", Permit(2), OPTIONS) is None
    assert "There are no samples of the failed rows: DbtDatabaseError" in caplog.text
    running = "select 1 from pg_stat_activity where query like '%_sleep(30)%' and state = 'active'"
    assert query(orders, f"{running} and pid != pg_backend_pid()") == []


@pytest.mark.usefixtures("orders")
def test_nobody_waits_for_rows(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(samples, "SECONDS", 0.2)
    monkeypatch.setattr(samples, "_rows", lambda sql, most, options: over.wait(60))
    caplog.set_level(logging.INFO, logger=samples.__name__)
    began = time.monotonic()
    assert read_samples(SQL, Permit(2), OPTIONS) is None
    assert time.monotonic() - began < 20
    assert "There are no samples of the failed rows: they did not come within 0.2 s" in caplog.text
    over.set()
