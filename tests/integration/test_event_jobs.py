"""The jobs of the product `events` on a real PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import fsspec
import psycopg2
import pytest
import yaml

from jobs import load_events, train_model
from orrery.config.ingest import Files
from orrery.ingest.landing import LandingZone
from orrery.ingest.load import Loader
from orrery.ingest.target import Target
from support.warehouse import query

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
OBJECTS = ROOT / "tests" / "services" / "data" / "events"
(SOURCE,) = yaml.safe_load((ROOT / "dbt/models/events/staging/_events__sources.yml").read_text())["sources"]
(RAW_EVENTS,) = SOURCE["tables"]
COLUMNS = {column["name"]: column["data_type"] for column in RAW_EVENTS["columns"]}
# All but when they were loaded.
ROWS = f"select {', '.join(COLUMNS)}, _source_file, _source_id, _row_number from {{}} order by event_id"


@pytest.fixture(scope="module")
def uri(landing_uri: str) -> Iterator[str]:
    """The URI of a PostgreSQL with the schemas `landing` and `marts`."""
    query(landing_uri, "create schema marts")
    yield landing_uri
    query(landing_uri, "drop schema marts cascade")


@pytest.fixture
def objects(tmp_path: Path) -> Path:
    """A copy of the shipped objects."""
    return Path(shutil.copytree(OBJECTS, tmp_path / "objects"))


@pytest.fixture
def table(uri: str) -> Iterator[str]:
    """The name of a table that is not there yet."""
    yield "landing.trial"
    query(uri, "drop table if exists landing.trial")


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a job as its container does."""
    return subprocess.run(
        [sys.executable, str(ROOT / "include" / "jobs" / script), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_objects_one_by_one_and_all_at_once_fill_the_same_table(uri: str, objects: Path, table: str) -> None:
    block = dict(RAW_EVENTS["config"]["meta"]["orrery"]["ingest"][-1])
    block.pop("landing_zone")
    spec = Files(**block)
    zone = LandingZone(f"file://{objects}")
    target = Target("landing", "raw_events", "events.raw_events", COLUMNS, spec.key)
    loader = Loader(lambda: psycopg2.connect(uri), target, spec, zone, "test")
    loader.prepare()
    list(loader.load(loader.pending(zone.find(spec.files))))

    done = run("load_events.py", "--table", table, EVENTS_URI=f"file://{objects}", WAREHOUSE_DSN=uri)
    assert done.returncode == 0, done.stderr
    assert "2053 lines, 2035 events loaded into landing.trial, 1 lines left out." in done.stdout
    assert "2026-03-04-00.jsonl:49: is no event: {" in done.stdout
    assert query(uri, ROWS.format(table)) == query(uri, ROWS.format("landing.raw_events"))
    types = (
        "select attname, format_type(atttypid, atttypmod), attnotnull from pg_attribute"
        " where attrelid = '{}'::regclass and attnum > 0 order by attnum"
    )
    assert query(uri, types.format(table)) == query(uri, types.format("landing.raw_events"))

    # Each goes on with the table of the other.
    again = run(
        "load_events.py", "--table", "landing.raw_events", EVENTS_URI=f"file://{objects}", WAREHOUSE_DSN=uri
    )
    assert again.returncode == 0, again.stderr
    (objects / "2026-03-07-00.jsonl").write_text((objects / "2026-03-06-12.jsonl").read_text())
    ((_, merged),) = [(each.file, each.merged) for each in loader.load(loader.pending(zone.find(spec.files)))]
    assert (merged.inserted, merged.updated) == (0, 359)


def test_a_second_run_stamps_and_adds_nothing(uri: str, objects: Path, table: str) -> None:
    stamps = []
    for _ in range(2):
        done = run("load_events.py", "--table", table, EVENTS_URI=f"file://{objects}", WAREHOUSE_DSN=uri)
        assert done.returncode == 0, done.stderr
        stamps += query(uri, f"select count(*), count(distinct _loaded_at), max(_loaded_at) from {table}")
    (count, times, first), (second_count, second_times, second) = stamps
    assert (count, times) == (second_count, second_times) == (2_035, 1)
    assert second > first


def test_an_object_store_is_read_as_a_folder_is(uri: str, table: str) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe("/lake/raw [1]/a b.jsonl", b'{"event_id": "e1", "amount": "", "path": "tab\\there"}\n\n')
    fs.pipe(
        "/lake/raw [1]/b.jsonl", b'{"event_id": "e1", "amount": 7}\n{"event_id":\t"e2", "path": "a\\\\b"}'
    )
    fs.pipe("/lake/raw [1]/c.txt", b"no object of ours")
    with closing(psycopg2.connect(uri)) as link, link, link.cursor() as cursor:
        load_events.load(cursor, "memory://lake/raw [1]", table, 0)
    found = query(
        uri, f"select event_id, amount::text, path, _source_file, _row_number from {table} order by 1"
    )
    assert found == [("e1", "7.00", None, "b.jsonl", 1), ("e2", None, "a\\b", "b.jsonl", 2)]
    fs.rm("/lake", recursive=True)


@pytest.mark.parametrize(
    "line",
    [
        b'{"event_id": "e9", "event_na',
        b'["e9"]',
        b'{"event_id": ""}',
        b'{"event_name": "page_view"}',
        b'{"event_id": "e9", "amount": "much"}',
        b'{"event_id": "e9", "occurred_at": "yesterday evening"}',
        b'{"event_id": "e9", "path": "\xff"}',
        b'{"event_id": "e9", "path": "\x00"}',
        b'{"event_id": "e9", "path": "\\u0000"}',
    ],
)
def test_lines_that_are_no_events_are_left_out_or_stop_the_job(
    uri: str, tmp_path: Path, table: str, line: bytes
) -> None:
    good = b"".join(b'{"event_id": "e%d"}\n' % number for number in range(3))
    (tmp_path / "a.jsonl").write_bytes(good + line + b"\n")
    few = run("load_events.py", "--table", table, EVENTS_URI=f"file://{tmp_path}", WAREHOUSE_DSN=uri)
    assert few.returncode == 1
    assert "1 of 4 lines are no events, more than --max-rejected allows." in few.stderr
    assert query(uri, f"select to_regclass('{table}')") == [(None,)]
    with closing(psycopg2.connect(uri)) as link, link, link.cursor() as cursor:
        load_events.load(cursor, f"file://{tmp_path}", table, 0.25)
    assert query(uri, f"select count(*) from {table}") == [(3,)]


def test_what_is_missing_is_named(uri: str, tmp_path: Path, table: str) -> None:
    empty = run("load_events.py", "--table", table, EVENTS_URI=f"file://{tmp_path}", WAREHOUSE_DSN=uri)
    assert (empty.returncode, empty.stderr) == (
        1,
        f"load_events: there is no *.jsonl object below file://{tmp_path}.\n",
    )
    unset = run("load_events.py", "--table", table, EVENTS_URI="", WAREHOUSE_DSN=uri)
    assert (unset.returncode, unset.stderr) == (
        2,
        "load_events: the environment variable EVENTS_URI is not set.\n",
    )
    dsn = "postgresql://loader:not-for-the-log@127.0.0.1:1/warehouse"
    for script, arguments in (("load_events.py", ("--table", table)), ("train_model.py", ())):
        down = run(script, *arguments, EVENTS_URI=f"file://{tmp_path}", WAREHOUSE_DSN=dsn)
        assert down.returncode == 1
        assert "Connection refused" in down.stderr
        assert "Traceback" not in down.stderr
        assert "not-for-the-log" not in down.stdout + down.stderr


def test_the_declared_columns_are_those_of_the_job() -> None:
    assert load_events.COLUMNS == COLUMNS
    assert f"{SOURCE['name']}.{RAW_EVENTS['name']}" == load_events.SOURCE


def test_a_training_is_a_row(uri: str) -> None:
    numbers = ", ".join(
        f"(number * {each}) % 7 as {name}" for each, name in enumerate(train_model.NUMBERS, 2)
    )
    query(
        uri,
        "create table marts.fct_user_features as select 'u' || number as user_id, 'google' as traffic_source,"
        f" 'mobile' as device_kind, {numbers}, number <= 60 as is_label_final,"
        " number * 2 % 7 > 3 as has_bought from generate_series(1, 70) number",
    )
    for trainings in (1, 2):
        done = run("train_model.py", WAREHOUSE_DSN=uri, MARTS_SCHEMA="marts")
        assert done.returncode == 0, done.stderr
        ((count, users, loss, baseline, found),) = query(
            uri,
            "select count(*) over (), training_count + test_count, log_loss, baseline_log_loss, coefficients"
            " from marts.model_runs order by trained_at desc limit 1",
        )
        assert (count, users) == (trainings, 60)
        assert loss < baseline / 2
        assert found["page_view_count"]["weight"] > 1
        assert found.keys() == {"intercept", *train_model.NAMES}
        assert json.loads(done.stdout)["coefficients"] == found

    query(uri, "delete from marts.fct_user_features where user_id > 'u15'")
    done = run("train_model.py", WAREHOUSE_DSN=uri, MARTS_SCHEMA="marts")
    assert done.returncode == 0
    assert "too few to learn from" in done.stdout
    assert query(uri, "select count(*) from marts.model_runs") == [(2,)]
