"""The run ledger over a real dbt and a real PostgreSQL, without Airflow."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from conftest import BASE, WriteProject
from orrery.config.project import Project
from orrery.execute.collector import Collector, NodeRecord, TaskRecord
from orrery.execute.ledger import Ledger
from orrery.execute.node_runs import COLUMNS, KEPT_DAYS, NodeRun, recent, record
from orrery.execute.results import NodeResult, read_results
from orrery.manifest.dbt import Dbt, DbtError
from orrery.plan.model import TaskKind, TaskPlan
from support.waiting import wait_for
from support.warehouse import query

pytestmark = pytest.mark.integration

SEED, MODEL, TEST, CHILD = "seed.tiny.numbers", "model.tiny.odd", "test.tiny.none_odd", "model.tiny.child"
SOURCE = "source.tiny.app.numbers"
NODES = (SEED, MODEL, TEST, CHILD)
FILES = {
    "dbt/seeds/numbers.csv": "id\n1\n2\n3\n",
    "dbt/models/odd.sql": (
        "{{ config(materialized='table') }} select id from {{ ref('numbers') }} where id % 2 = 1"
    ),
    "dbt/models/child.sql": "select id from {{ ref('odd') }}",
    "dbt/models/app.yml": """\
sources:
  - name: app
    schema: "{{ target.schema }}"
    config: {loaded_at_field: "'2026-01-01'::timestamptz", freshness: {error_after: {count: 1, period: hour}}}
    tables: [{name: numbers}]
""",
    "dbt/tests/none_odd.sql": "select id from {{ ref('odd') }}",
}
# A role that may neither create a schema nor use that of the ledger.
LIMITED = """
drop schema if exists limited cascade;
do $$ begin
  if to_regrole('limited') is null then create role limited login; end if;
end $$;
create schema limited authorization limited;
"""
Uri = str
NOW = datetime.now(UTC)
OLD = NodeRun(
    *("tiny", "old", SEED, "seed", "success", 1.0), ended_at=NOW - timedelta(days=KEPT_DAYS + 1), target="dev"
)


@pytest.fixture
def uri(postgres_uri: str) -> Iterator[Uri]:
    """A PostgreSQL without a ledger."""
    query(postgres_uri, LIMITED)
    yield postgres_uri
    query(postgres_uri, "drop schema if exists orrery, tiny, limited cascade")


@pytest.fixture
def dbt_as(uri: Uri, write_project: WriteProject) -> Callable[[str, str], Dbt]:
    """A function: dbt with a role of the database, building into a schema."""
    address = parse_dsn(uri)

    def make(role: str, schema: str) -> Dbt:
        profile = (
            "tiny:\n  target: dev\n  outputs:\n    dev:\n      type: postgres\n      password: ''\n"
            f"      host: {address['host']}\n      port: {address.get('port', 5432)}\n"
            f"      user: {role}\n      dbname: {address['dbname']}\n      schema: {schema}\n"
        )
        project: Project = write_project({**BASE, **FILES, "dbt/profiles.yml": profile})
        return Dbt(project, target_dir=project.root / "target")

    return make


@pytest.fixture
def dbt(dbt_as: Callable[[str, str], Dbt]) -> Dbt:
    """dbt with all rights, before its first command."""
    return dbt_as("postgres", "tiny")


def build(
    dbt: Dbt,
    run_id: str = "r1",
    nodes: tuple[str, ...] = NODES,
    try_number: int = 1,
    folder: Path | None = None,
) -> Ledger:
    """Build as the task `build` does; returns what it knows, unwritten."""
    ledger = Ledger("tiny", run_id, dbt, folder)

    def ended(record: TaskRecord) -> None:
        ledger.take(record.nodes.values(), try_number)

    collector = Collector(map(task, nodes), started=lambda _: None, ended=ended, told=lambda _: None)
    assert dbt.manifest
    assert dbt.run(["build"], collector, **dbt.exactly(nodes)).exception is None
    return ledger


def task(uid: str) -> TaskPlan:
    return TaskPlan(f"core.{uid}", "core", TaskKind.MODEL, (uid,), (), frozenset(), None, "")


def write(uri: Uri, *rows: NodeRun) -> None:
    """Write rows as a ledger does."""
    with closing(psycopg2.connect(uri)) as link, link, link.cursor() as cursor:
        cursor.execute(*record(rows))


def kept(uri: Uri, run_id: str = "r1") -> dict[str, NodeRun]:
    """The rows of a run by node."""
    rows = query(uri, f"select {', '.join(COLUMNS)} from orrery.node_runs where run_id = '{run_id}'")
    return {row[2]: NodeRun(*row) for row in rows}


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "orrery.execute.ledger"]


def test_a_build_with_a_failed_test_is_kept(dbt: Dbt, uri: Uri, caplog: pytest.LogCaptureFixture) -> None:
    began = datetime.now(UTC)
    build(dbt).write()
    rows = kept(uri)
    assert {
        uid: (row.resource_type, row.status, row.rows_affected, row.failures) for uid, row in rows.items()
    } == {
        SEED: ("seed", "success", 3, None),
        MODEL: ("model", "success", 2, None),
        TEST: ("test", "fail", None, 2),
        CHILD: ("model", "skipped", None, None),
    }
    for uid in (SEED, MODEL, TEST):
        row = rows[uid]
        assert row.started_at
        assert row.ended_at
        assert began < row.started_at < row.ended_at < datetime.now(UTC)
        assert 0 < row.seconds <= (row.ended_at - row.started_at).total_seconds() + 0.01
        assert (row.bytes_processed, row.bytes_billed, row.try_number) == (None, None, 1)
        assert (row.target, row.max_loaded_at) == ("dev", None)
    (invocation,) = {row.invocation_id for row in rows.values()}
    assert invocation
    assert len(invocation) == 36
    assert warnings(caplog) == []


def test_the_freshness_of_a_source_is_kept(dbt: Dbt, uri: Uri) -> None:
    build(dbt, nodes=(SEED,)).write()
    ledger = Ledger("tiny", "r2", dbt)
    collector = Collector(
        [task(SOURCE)],
        started=lambda _: None,
        ended=lambda ended: ledger.take(ended.nodes.values(), 1),
        told=lambda _: None,
    )
    dbt.run(["source", "freshness"], collector)
    collector.finish(read_results(dbt.target_dir))
    ledger.write()
    (row,) = kept(uri, "r2").values()
    assert (row.unique_id, row.resource_type, row.status) == (SOURCE, "source", "error")
    assert row.max_loaded_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert row.started_at
    assert row.invocation_id


def test_a_node_that_is_built_again_replaces_its_own_row_only(dbt: Dbt, uri: Uri) -> None:
    build(dbt).write()
    build(dbt, "r2", (SEED,)).write()
    before = kept(uri)
    build(dbt, "r1", (MODEL,), try_number=2).write()
    after = kept(uri)
    assert {uid for uid in NODES if after[uid] != before[uid]} == {MODEL}
    assert after[MODEL].try_number == 2
    assert after[MODEL].invocation_id != before[MODEL].invocation_id
    assert set(kept(uri, "r2")) == {SEED}


def test_what_is_written_is_not_written_again(dbt: Dbt, uri: Uri) -> None:
    ledger = build(dbt, nodes=(SEED,))
    ledger.write()
    query(uri, "delete from orrery.node_runs")
    ledger.write()
    assert kept(uri) == {}


def test_what_a_killed_build_did_is_written_by_the_next_one(dbt: Dbt, uri: Uri, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    build(dbt, nodes=(SEED,), folder=folder)
    (left,) = folder.iterdir()
    # It was killed while it took down a third one.
    with left.open("a") as file:
        file.write('\n{"pipeline": "tiny", "run_id": "r1", "unique_')
    build(dbt, nodes=(MODEL,), try_number=2, folder=folder)
    # And so was the next one.
    build(dbt, nodes=(TEST,), try_number=3, folder=folder).write()
    assert {uid: row.try_number for uid, row in kept(uri).items()} == {SEED: 1, MODEL: 2, TEST: 3}
    assert kept(uri)[SEED].ended_at
    assert list(folder.iterdir()) == []


def test_what_could_not_be_written_is_written_by_the_next_build(
    dbt: Dbt, uri: Uri, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    query(uri, "create schema orrery; create view orrery.node_runs as select 1 as target")
    build(dbt, nodes=(SEED,), folder=tmp_path).write()
    assert len(warnings(caplog)) == 1
    query(uri, "drop schema orrery cascade")
    build(dbt, nodes=(MODEL,), folder=tmp_path).write()
    assert set(kept(uri)) == {SEED, MODEL}


def test_a_table_without_later_columns_gets_them(dbt: Dbt, uri: Uri) -> None:
    write(uri, NodeRun("tiny", "r0", SEED, "seed", "success", 1.0, started_at=NOW, ended_at=NOW))
    # As it once was.
    query(
        uri,
        "alter table orrery.node_runs drop constraint node_runs_pkey, drop column target,"
        " drop column max_loaded_at, drop column choices, add primary key (pipeline, run_id, unique_id);"
        " drop index orrery.node_runs_ended_at",
    )
    ledger = build(dbt, nodes=(SEED,))
    ledger.write()
    assert kept(uri)[SEED].target == "dev"
    # Nobody knows which one that was.
    assert kept(uri, "r0")[SEED].target == kept(uri, "r0")[SEED].choices == ""
    for target in ("dev", "prod"):
        write(uri, NodeRun("tiny", "r1", SEED, "seed", "success", 1.0, target=target))
    assert query(uri, "select target from orrery.node_runs where run_id = 'r1' order by 1") == [
        ("dev",),
        ("prod",),
    ]
    assert query(uri, "select to_regclass('orrery.node_runs_ended_at') is not null") == [(True,)]


def test_rows_that_are_too_old_are_deleted(uri: Uri) -> None:
    young = replace(OLD, run_id="young", ended_at=NOW - timedelta(days=KEPT_DAYS - 1))
    write(uri, OLD, young, replace(OLD, run_id="endless", ended_at=None))
    assert set(kept(uri, "old")) == set()
    assert set(kept(uri, "young")) == set(kept(uri, "endless")) == {SEED}


def test_no_connection_is_left(dbt: Dbt, uri: Uri) -> None:
    others = "backend_type = 'client backend' and pid <> pg_backend_pid()"

    def connections() -> set[tuple[Any, ...]]:
        return {*query(uri, f"select pid from pg_stat_activity where {others}")}

    # Those of earlier tests may take a moment to end, and are not counted.
    before = connections()
    ledger = build(dbt, nodes=(SEED,))
    ledger.write()
    wait_for("the connection ends", lambda: connections() <= before)
    with pytest.raises(Exception, match="division by zero"):
        dbt.execute("select 1 / %s", (0,))
    wait_for("that of a failure ends", lambda: connections() <= before)


def test_before_its_first_command_dbt_has_no_adapter(dbt: Dbt, monkeypatch: pytest.MonkeyPatch) -> None:
    from dbt.adapters.factory import FACTORY

    monkeypatch.setattr(FACTORY, "adapters", {})
    with pytest.raises(DbtError, match="before its first command"):
        dbt.execute("select %s", (1,))


def test_without_the_right_to_create_the_schema_a_build_is_warned(
    dbt_as: Callable[[str, str], Dbt], uri: Uri, caplog: pytest.LogCaptureFixture
) -> None:
    build(dbt_as("limited", "limited")).write()
    (told,) = warnings(caplog)
    assert "not kept in orrery.node_runs" in told
    assert "permission denied for database" in told
    assert query(uri, "select to_regnamespace('orrery')") == [(None,)]


def test_a_role_that_creates_nothing_writes_into_a_table_that_is_there(
    dbt_as: Callable[[str, str], Dbt], uri: Uri, caplog: pytest.LogCaptureFixture
) -> None:
    write(uri, replace(OLD, ended_at=None))
    query(uri, f"update orrery.node_runs set ended_at = now() - interval '{KEPT_DAYS + 1} days'")
    query(uri, "grant usage on schema orrery to limited")
    query(uri, "grant select, insert, update on orrery.node_runs to limited")
    build(dbt_as("limited", "limited")).write()
    assert warnings(caplog) == []
    assert set(kept(uri)) == set(NODES)
    # It may not delete, and need not.
    assert set(kept(uri, "old")) == {SEED}


def test_a_locked_table_holds_up_nobody_for_long(
    dbt: Dbt, uri: Uri, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = build(dbt, nodes=(SEED,))
    ledger.write()
    again = build(dbt, "r2", nodes=(SEED,))
    with closing(psycopg2.connect(uri)) as link, link.cursor() as cursor:
        cursor.execute("lock table orrery.node_runs in access exclusive mode")
        again.write()
    (told,) = warnings(caplog)
    # It is shorter than that of the whole statement.
    assert "lock timeout" in told
    assert set(kept(uri)) == {SEED}
    assert kept(uri, "r2") == {}


def test_two_first_builds_at_the_same_time_make_one_table(uri: Uri) -> None:
    def row(run_id: str) -> tuple[str, tuple[str]]:
        return record([NodeRun("tiny", run_id, SEED, "seed", "success", 1.0)])

    failures: list[Exception] = []

    def second() -> None:
        try:
            with closing(psycopg2.connect(uri)) as link, link, link.cursor() as cursor:
                # A busy machine may hold the first one up.
                sql, values = row("r2")
                cursor.execute(sql.replace("_timeout = '", "_timeout = '10"), values)
        except Exception as error:
            failures.append(error)

    with closing(psycopg2.connect(uri)) as link, link.cursor() as cursor:
        cursor.execute(*row("r1"))
        thread = threading.Thread(target=second)
        thread.start()
        waiting = "select 1 from pg_locks where locktype = 'advisory' and not granted"
        wait_for("the second waits", lambda: failures or query(uri, waiting), 60)
        link.commit()
        thread.join()
    assert failures == []
    assert kept(uri).keys() == kept(uri, "r2").keys() == {SEED}


def test_the_last_runs_of_one_pipeline_are_read(uri: Uri) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        NodeRun("tiny", f"r{day}", uid, "model", "success", 1.0, started_at=began + timedelta(days=day))
        for day in range(4)
        for uid in (SEED, MODEL)
    ]
    rows += [replace(row, pipeline="other") for row in rows]
    # Of before there were targets; and those of another one, which has runs of the same names.
    rows = [replace(row, target="" if row.run_id == "r3" else "dev") for row in rows]
    rows += [
        replace(row, target="prod", started_at=row.started_at and row.started_at + timedelta(days=9))
        for row in rows
    ]
    # The latest of all, but nothing in it began.
    rows += [NodeRun("tiny", "r9", MODEL, "model", "skipped", 0.0)]
    with closing(psycopg2.connect(uri)) as link, link.cursor() as cursor:
        cursor.execute(*record(rows))
        cursor.execute(*recent("tiny", "dev", 2))
        found = [NodeRun(*row) for row in cursor.fetchall()]
    assert {(row.pipeline, row.run_id, row.unique_id, row.target) for row in found} == {
        ("tiny", run_id, uid, target)
        for run_id, target in (("r2", "dev"), ("r3", ""))
        for uid in (SEED, MODEL)
    }
    assert len(found) == 4


class BigQuery:
    """Stands for dbt with another adapter."""

    adapter_type = "bigquery"
    target = "dev"

    def execute(self, sql: str, bindings: Any) -> None:
        raise AssertionError(sql)


def test_on_another_warehouse_the_log_says_that_there_is_no_ledger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "orrery.execute.ledger")
    response = {"bytes_processed": 2048, "bytes_billed": 10_485_760.0, "job_id": "j"}
    result = NodeResult(MODEL, "success", 1.0, 5, None, None, response)
    ledger = Ledger("tiny", "r1", BigQuery())  # type: ignore[arg-type]
    ledger.take([NodeRecord(result=result)], 1)
    (row,) = ledger._rows.values()
    assert (row.bytes_processed, row.bytes_billed) == (2048, 10_485_760)
    ledger.write()
    assert warnings(caplog) == ["There is no run ledger on bigquery: it needs PostgreSQL."]
