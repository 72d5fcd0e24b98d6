"""The shipped systems, from their landed files to their marts, through the commands that a user types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import psycopg2
import pytest

from orrery.ingest.chunks import PREFIX, Chunk
from services.stand_ins import INBOX, LAKE, LAKE_FOLDER, WEBSITE, Events
from support.live import Done, Live
from support.trial import ROOT
from support.waiting import wait_for

pytestmark = pytest.mark.integration

TRANSACTIONS = "ingest.forex__transactions"
SPLIT, CHUNKS = f"{TRANSACTIONS}__split", f"{TRANSACTIONS}__chunks"
LEDGER = "landing._orrery_ledger"


@pytest.fixture(scope="module")
def forex_run(live: Live) -> Done:
    """The first run of `forex`; what other pipelines have loaded of its files is gone."""
    assert live.orrery("up").code == 0
    live.query(
        "drop table if exists landing.forex_transactions, landing.forex_reference_rates cascade", "loader"
    )
    if live.query(f"select 1 where to_regclass('{LEDGER}') is not null"):
        live.query(f"delete from {LEDGER} where table_name like 'forex%'", "loader")
    done = live.orrery("run", "forex")
    assert done.code == 0, done.output
    return done


def count(live: Live, table: str, condition: str = "true") -> int:
    return int(live.query(f"select count(*) from {table} where {condition}")[0][0])


def loads(live: Live) -> list[tuple[Any, ...]]:
    """What the ledger says, in the order of the loads."""
    return live.query(
        "select table_name, file, rows_read, inserted, updated, rejected"
        " from landing._orrery_ledger order by load_id"
    )


def test_forex_goes_from_files_to_gold(live: Live, forex_run: Done) -> None:
    files = live.query(f"select file, rows_read from {LEDGER} where table_name = 'forex_transactions'")
    landing = live.dbt / "landing" / "forex" / "transactions"
    assert {Path(file).name for file, _ in files} == {path.name for path in landing.glob("*.csv")}
    assert sum(rows for _, rows in files) == 2_995
    assert count(live, "landing.forex_transactions") == 2_940
    assert count(live, "landing.forex_reference_rates") == 56
    assert count(live, "dev_gold.fct_transactions") == 2_940
    # The last file of a transaction wins, so that there are as many as the files correct.
    assert count(live, "landing.forex_transactions", "revision > 1") == 54
    assert count(live, "dev_gold.fct_daily_turnover") == 113
    assert count(live, "dev_gold.dim_forex_customers") == 180
    assert live.query("select sum(net_amount_eur)::text from dev_gold.fct_transactions") == [("-137032.41",)]
    states = live.airflow.states("forex", forex_run.run_id)
    assert set(states.values()) == {"success"}
    edges = live.airflow.edges("forex")
    assert {(TRANSACTIONS, "build"), (TRANSACTIONS, "source_freshness.forex__transactions")} <= edges
    # Two files are larger than chunk_size, and are cut into two parts each.
    instances = live.airflow.instances("forex", forex_run.run_id, CHUNKS)
    assert {(task["map_index"], task["rendered_map_index"], task["state"]) for task in instances} == {
        (0, "transactions_2025-04-16.csv 1/2", "success"),
        (1, "transactions_2025-04-16.csv 2/2", "success"),
        (2, "transactions_2025-04-21.csv 1/2", "success"),
        (3, "transactions_2025-04-21.csv 2/2", "success"),
    }
    assert "success ingest.forex__transactions__chunks[transactions_2025-04-16.csv 2/2]" in forex_run.output
    lines = [line.split() for line in forex_run.output.splitlines()]
    (line,) = (line for line in lines if line[1:2] == ["forex__transactions__chunks"])
    rows = sum(read for file, read in files if Path(file).stem[-2:] in ("16", "21"))
    assert (line[2:5], line[-1]) == (["(4", "instances)", "success"], f"{rows:,}")
    assert no_chunks(live)


def leave_a_chunk(live: Live, run_id: str) -> None:
    """A staging table as a run leaves it behind that dies."""
    chunk = Chunk("a.csv", "1", number=1, of=2, start=0, end=9, line=1, content_hash="x")
    told = {"dag_id": "forex", "run_id": run_id, "table": "forex_transactions", "chunk": asdict(chunk)}
    with closing(psycopg2.connect(live.stack.warehouse_dsn("loader"))) as link, link:
        link.cursor().execute(
            f"create unlogged table landing.{PREFIX}left (); comment on table landing.{PREFIX}left is %s",
            [json.dumps({**told, "columns": [], "rows": 0, "content_hash": "x"})],
        )
    assert not no_chunks(live)


def no_chunks(live: Live) -> bool:
    """Whether no staging table is left."""
    return live.query("select relname from pg_class where starts_with(relname, '_orrery_chunk_')") == []


def test_a_second_run_loads_nothing(live: Live, forex_run: Done) -> None:
    before = loads(live)
    leave_a_chunk(live, forex_run.run_id)
    done = live.orrery("run", "forex")
    assert done.code == 0
    assert "nothing new" in done.output
    # That run has ended.
    assert no_chunks(live)
    assert loads(live) == before
    states = live.airflow.states("forex", done.run_id)
    # There is nothing to map, which is fine.
    assert states.pop(CHUNKS) == "skipped"
    assert set(states.values()) == {"success"}


def test_a_bad_file_holds_back_what_reads_it_and_nothing_else(live: Live, forex_run: Done) -> None:
    before, rows = loads(live), count(live, "landing.forex_transactions")
    landing = live.dbt / "landing" / "forex" / "transactions"
    header = (landing / "transactions_2025-04-23.csv").read_text().splitlines()[0]
    good = f"{header}\nF99999;1;K0001;card_payment;debit;booked;EUR;12,50;Lunch;2025-04-24 12:00:00\n"
    landed = landing / "transactions_2025-04-24.csv"
    landed.write_text(good.replace("12,50", "12.5"))
    try:
        done = live.orrery("run", "forex")
        assert done.code == 1
        assert "transactions_2025-04-24.csv:2: 1 of 1 rows are bad, and max_rejected allows 0:" in done.output
        assert 'amount: invalid input syntax for type numeric: "12.5 (with a decimal comma)"' in done.output
        assert "./orrery retry forex --failed" in done.output
        states = live.airflow.states("forex", done.run_id)
        # All comes after the build; what the file holds back does without it.
        readers = {after for task, after in live.airflow.edges("forex") if task == TRANSACTIONS} - {"build"}
        after = readers.union(*(live.airflow.descendants("forex", task) for task in readers))
        assert states[TRANSACTIONS] == "failed"
        assert {states[task] for task in after} == {"upstream_failed"}
        assert states[CHUNKS] == "skipped"
        others = states.keys() - {*after, TRANSACTIONS, CHUNKS}
        assert {states[task] for task in others} == {"success"}
        assert "silver.int_forex_rates__spanned" in states.keys() - after
        assert (loads(live), count(live, "landing.forex_transactions")) == (before, rows)

        landed.write_text(good)
        retried = live.orrery("retry", "forex", "--failed")
        assert retried.code == 0, retried.output
        states = live.airflow.states("forex", done.run_id)
        assert states.pop(CHUNKS) == "skipped"
        assert set(states.values()) == {"success"}
        added = ("forex_transactions", "forex/transactions/transactions_2025-04-24.csv", 1, 1, 0, 0)
        assert loads(live) == [*before, added]
        assert count(live, "dev_gold.fct_transactions") == rows + 1
    finally:
        landed.unlink()


def test_one_chunk_that_fails(live: Live, forex_run: Done) -> None:
    """What reads the source is held back, and a retry does what is missing, however the file was cut."""
    before = loads(live)
    landing = live.dbt / "landing" / "forex" / "transactions"
    landed = landing / "transactions_2025-04-24.csv"
    first, *others = (landing / "transactions_2025-04-16.csv").read_text().splitlines(keepends=True)
    landed.write_text(first + "".join(f"N{line}" for line in others))
    try:
        with no_space_for_the_first_chunk(live):
            done = live.orrery("run", "forex")
        assert done.code == 1
        assert "No space left" in done.output
        states = {t["map_index"]: t["state"] for t in live.airflow.instances("forex", done.run_id, CHUNKS)}
        assert sorted(states.values()) == ["failed", "success"]
        (index,) = (index for index, state in states.items() if state == "failed")
        assert f"{CHUNKS}[transactions_2025-04-24.csv {index + 1}/2] failed" in done.output
        assert f"/tasks/{CHUNKS}/mapped/{index}" in done.output
        tasks = live.airflow.states("forex", done.run_id)
        assert tasks[TRANSACTIONS] == "upstream_failed"
        assert tasks["gold.fct_transactions"] == "upstream_failed"
        assert tasks["silver.int_forex_rates__spanned"] == "success"
        assert loads(live) == before

        retried = live.orrery("retry", "forex", "--failed")
        assert retried.code == 0, retried.output
        (added,) = loads(live)[len(before) :]
        assert added[1:] == ("forex/transactions/transactions_2025-04-24.csv", 1_129, 1_129, 0, 0)
        assert no_chunks(live)
        again = live.orrery("retry", "forex", "--model", "forex__transactions")
        assert again.code == 0, again.output
        assert "nothing new" in again.output
    finally:
        landed.unlink()


@contextmanager
def no_space_for_the_first_chunk(live: Live) -> Iterator[None]:
    """PostgreSQL has no room for the next staging table, nor when it is tried again, but for the other."""
    link = psycopg2.connect(live.stack.warehouse_dsn("postgres"))
    link.autocommit = True
    with closing(link), link.cursor() as cursor:
        cursor.execute(
            "create sequence public.chunks;"
            " create function public.fail_first() returns event_trigger security definer language plpgsql"
            " as $$ begin if exists (select from pg_event_trigger_ddl_commands()"
            " where object_identity like 'landing._orrery_chunk_%') and nextval('public.chunks') in (1, 3)"
            " then raise exception 'No space left' using errcode = 'disk_full'; end if; end $$;"
            " create event trigger fail_first on ddl_command_end when tag in ('CREATE TABLE')"
            " execute function public.fail_first()"
        )
        try:
            yield
        finally:
            cursor.execute(
                "drop event trigger fail_first; drop function public.fail_first; drop sequence public.chunks"
            )


@pytest.mark.parametrize("conf", [{"select": "no_such_model"}, {"exclude": "--profiles-dir /etc"}])
def test_refused_choices_load_nothing(live: Live, forex_run: Done, conf: dict[str, str]) -> None:
    landing = live.dbt / "landing" / "forex" / "rates"
    copy = landing / "reference_rates_copy.csv"
    shutil.copy(landing / "reference_rates_2025-04-23.csv", copy)
    before = loads(live)
    try:
        run_id = live.airflow.trigger("forex", conf).raise_for_status().json()["dag_run_id"]
        assert live.airflow.wait_ended("forex", run_id) == "failed"
        states = live.airflow.states("forex", run_id)
        failed = {task for task, state in states.items() if state == "failed"}
        assert failed == {SPLIT, "ingest.forex__reference_rates", "build"}
        assert {states[task] for task in (CHUNKS, TRANSACTIONS)} == {"upstream_failed"}
        assert loads(live) == before
    finally:
        copy.unlink()


def test_a_selection_and_left_out_stages_leave_ingestion_out(live: Live, forex_run: Done) -> None:
    for conf in ({"select": "fct_transactions"}, {"skip_stages": ["ingest"]}):
        run_id = live.airflow.trigger("forex", conf).raise_for_status().json()["dag_run_id"]
        assert live.airflow.wait_ended("forex", run_id) == "success"
        states = live.airflow.states("forex", run_id)
        assert {states[task] for task in (SPLIT, CHUNKS, TRANSACTIONS)} == {"skipped"}
        assert states["gold.fct_transactions"] == "success"


def test_affiliates_and_scrapers_start_combined(live: Live) -> None:
    # Whichever comes second starts it, and no clock.
    for pipeline in ("affiliates", "scrapers"):
        assert live.airflow.runs("combined") == []
        done = live.orrery("run", pipeline)
        assert done.code == 0, done.output
    states = live.airflow.states("affiliates", live.airflow.runs("affiliates")[0]["dag_run_id"])
    # Nobody has been paid yet, which is fine; what reads it runs.
    assert states.pop("ingest.affiliates__payouts") == "skipped"
    assert set(states.values()) == {"success"}

    (run,) = wait_for("combined starts", lambda: live.airflow.runs("combined"))
    assert run["run_type"] == "asset_triggered"
    assert live.airflow.wait_ended("combined", run["dag_run_id"]) == "success"
    rows = {
        name: count(live, f"dev_gold.{name}")
        for name in ("fct_conversions", "fct_partner_days", "fct_dashboard_days", "fct_campaign_profits")
    }
    assert rows == {
        "fct_conversions": 101,
        "fct_partner_days": 84,
        "fct_dashboard_days": 63,
        "fct_campaign_profits": 56,
    }
    assert count(live, "dev_gold.fct_dashboard_differences") == 63
    assert count(live, "landing.payouts") == 0

    # A corrected file takes the place of its rows, and the marts follow.
    def commission(where: str) -> list[tuple[Any, ...]]:
        return live.query(f"select sum(commission_amount) from dev_gold.fct_conversions where {where}")

    before = {where: commission(where)[0][0] for where in ("partner_id = 'P05'", "partner_id <> 'P05'")}
    deals = next((live.dbt / "landing" / "affiliates" / "deals").glob("*2026*.csv"))
    text = deals.read_text()
    assert text.count("D016,P05,share,11.0") == 1
    try:
        deals.write_text(text.replace("D016,P05,share,11.0", "D016,P05,share,22.0"))
        assert live.orrery("run", "affiliates").code == 0
        assert commission("partner_id <> 'P05'")[0][0] == before["partner_id <> 'P05'"]
        assert commission("partner_id = 'P05'")[0][0] > before["partner_id = 'P05'"] > 0
        assert count(live, "landing.deals") == 18
    finally:
        deals.write_text(text)


def test_a_pipeline_waits_for_its_file_without_a_worker(live: Live, forex_run: Done) -> None:
    landing = live.dbt / "landing" / "trial"
    landing.mkdir(parents=True)
    run_id = ""
    try:
        with live.start("run", "trial_landed") as command:
            runs = wait_for("the run starts", lambda: live.airflow.runs("trial_landed"))
            run_id = runs[0]["dag_run_id"]

            def state() -> str | None:
                return live.airflow.states("trial_landed", run_id)["ingest.trial_landing__arrivals"]

            wait_for("the task waits", lambda: state() == "deferred")
            (landing / "arrivals.jsonl").write_text('{"id": 7}\n')
            output, _ = command.communicate(timeout=120)
        assert command.returncode == 0, output
        assert live.query("select id from dev.trial_landed") == [(7,)]
    finally:
        shutil.rmtree(landing)


def test_files_that_arrive_start_a_pipeline_once(live: Live, forex_run: Done) -> None:
    landing = live.dbt / "landing" / "watched"
    landing.mkdir(parents=True)
    try:
        started: set[str] = set()
        for number in (1, 2):
            (landing / f"{number}.csv").write_text(f"id\n{number}\n")

            def new(known: frozenset[str] = frozenset(started)) -> set[str]:
                return {run["dag_run_id"] for run in live.airflow.runs("trial_watched")} - known

            # Were the first file to start runs again and again, there would be more than one.
            (run_id,) = wait_for("a run starts", new)
            assert run_id.startswith("asset_triggered")
            assert live.airflow.wait_ended("trial_watched", run_id) == "success"
            started.add(run_id)
            rows = live.query("select id from dev.trial_watched order by id")
            assert rows == [(each,) for each in range(1, number + 1)]
    finally:
        shutil.rmtree(landing)


def test_sales_marketing_goes_from_airbyte_to_acquisition_costs(live: Live, booking_run: Done) -> None:
    done = live.orrery("run", "sales_marketing", "--stand-ins")
    assert done.code == 0, done.output
    states = live.airflow.states("sales_marketing", done.run_id)
    assert set(states.values()) == {"success"}
    assert "gs://google_reports@sales-marketing-dev/reports/latest/index.html" in done.output
    # One sync fills all tables of the source.
    assert [task for task in states if task.startswith("ingest.")] == ["ingest.sales_marketing"]
    rows = {
        "landing.ads_spend": 1_765,
        "landing.crm_accounts": 220,
        "dev_core.dim_accounts": 208,
        "dev_core.fct_ad_spend": 1_650,
        "dev_core.fct_acquisition_costs": 38,
        "dev_core.fct_attributed_revenue": 91,
        "dev_core.fct_marketing_funnel": 67,
        "dev_core.fct_monthly_pipeline": 9,
        "dev_core.fct_opportunities": 201,
    }
    assert {table: count(live, table) for table in rows} == rows
    # Nothing of the stand-ins is left, and without them the run says what it needs.
    missing = live.orrery("run", "sales_marketing")
    assert missing.code == 1
    assert "Airflow has no connection 'airbyte_default'." in missing.output
    assert "AIRFLOW_CONN_AIRBYTE_DEFAULT=" in missing.output


EVENTS = "ingest.events__raw_events"
MARTS = ("fct_sessions", "fct_daily_active_users", "fct_conversion_funnel", "fct_user_features")


def contents(live: Live) -> dict[str, list[tuple[Any, ...]]]:
    """The events, and what is made of them, without the times and places of their loads."""
    columns = (
        "event_id, event_name, anonymous_id, user_id, source, device, path, amount, occurred_at, sent_at"
    )
    found = {"raw_events": live.query(f"select {columns} from landing.raw_events order by 1")}
    return found | {
        mart: live.query(f"select to_jsonb(m) - 'loaded_at' from dev_core.{mart} m order by 1")
        for mart in MARTS
    }


def test_events_come_in_one_by_one_or_all_at_once(live: Live, booking_run: Done) -> None:
    with Events(live.root, live.warehouse) as events:
        for connection in events.connections().values():
            live.airflow.post("/connections", connection)
        try:
            # A function sees a new object, and starts the pipeline for it alone.
            first = "2026-03-04-00.jsonl"
            assert notify(live, f"incoming/{first}") == "success"
            assert count(live, "landing.raw_events", f"_source_file <> '{first}'") == 0
            assert count(live, "landing.raw_events") > 0
            assert events.gcs.names(LAKE) == [f"{LAKE_FOLDER}/{first}"]
            # The same notification comes twice, as it may: there is no second run.
            assert notify(live, f"incoming/{first}") == "success"
            assert len(live.airflow.runs("events_batch")) == 1
            assert count(live, "landing.raw_events__rejected") == 1

            done = live.orrery("run", "events_batch")
            assert done.code == 0, done.output
            states = live.airflow.states("events_batch", done.run_id)
            assert set(states.values()) == {"success"}
            assert ("ingest.events__raw_events__transfer", EVENTS) in live.airflow.edges("events_batch")
            assert '"model.orrery_demo.fct_sessions"' in website(events, "latest")
            kept = {name.split("/")[2] for name in events.gcs.names(WEBSITE) if "/runs/" in name}
            assert len(kept) == len(live.airflow.runs("events_batch")) == 2
            by_object = contents(live)
            assert len(by_object["raw_events"]) == 2_035
            trained = count(live, "dev_core.model_runs")
            # From one object there is too little to learn.
            assert trained == 1

            integration = live.orrery("run", "events_integration", "--uri", f"s3://{INBOX}/incoming/{first}")
            assert integration.code == 0, integration.output
            unknown = live.orrery("run", "events_integration", "--uri", f"s3://{INBOX}/elsewhere/{first}")
            assert unknown.code == 1
            assert f"no source of this pipeline takes s3://{INBOX}/elsewhere/{first}" in unknown.output
            assert events.kubernetes.unknown == []

            # All history, by one Spark job: the same, from nothing.
            live.query("drop table landing.raw_events cascade", role="loader")
            live.query("delete from landing._orrery_ledger where table_name = 'raw_events'", role="loader")
            full = live.orrery("run", "events_full_refresh")
            assert full.code == 0, full.output
            assert set(live.airflow.states("events_full_refresh", full.run_id).values()) == {"success"}
            assert contents(live) == by_object
            assert count(live, "dev_core.model_runs") == trained + 1
            assert [posted["kind"] for posted in events.kubernetes.posted][-2:] == ["SparkApplication", "Pod"]
        finally:
            for name in events.connections():
                live.airflow.delete(f"/connections/{name}")


def website(events: Events, folder: str) -> str:
    """The documentation that `events_batch` has published, as a browser gets it."""
    name = f"events/{folder}/index.html"
    answer = httpx.get(f"{events.gcs.url}/{WEBSITE}/{name}", trust_env=False).raise_for_status()
    assert events.gcs.storage.objects[WEBSITE][name]["contentType"] == "text/html"
    return answer.text


def notify(live: Live, key: str) -> str:
    """Let the cloud function handle the notification about an object; the state of its run at the end."""
    event = {
        "Records": [
            {
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": INBOX}, "object": {"key": quote_plus(key), "eTag": "1"}},
            }
        ]
    }
    call = "print(json.dumps(object_created.handler(json.load(sys.stdin), None)))"
    code = f"import json, sys, object_created; {call}"
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT / "include" / "functions"),
        "AIRFLOW_URL": live.info.url,
        "AIRFLOW_USERNAME": live.info.username,
        "AIRFLOW_PASSWORD": live.info.password,
        "PIPELINE": "events_batch",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(event),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    (run_id,) = told["started"] + told["known"]
    return live.airflow.wait_ended("events_batch", run_id, seconds=300)
