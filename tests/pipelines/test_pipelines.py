"""Pipelines for real: Airflow, PostgreSQL and dbt, through the commands that a user types."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from support import trial
from support.airflow import Json, moment
from support.expected import demonstration_rows, unpaid_completed_bookings
from support.live import Done, Live
from support.terminal import orrery_in_terminal
from support.waiting import wait_for

pytestmark = pytest.mark.integration

BOOKINGS = "booking_analytics"
BUILD = "build"
STAGING = "staging.stg_trial__numbers"
TESTS = "tests.stg_trial__numbers"
TOTALS = "core.trial_totals"
REPORT = "core.trial_report"
# The project has hooks; a build that runs again is a new invocation of dbt, and runs them again.
HOOKS = {"hooks.on_run_start", "hooks.on_run_end"}
HOOKED = dict.fromkeys(HOOKS, "success")
TRIAL = {BUILD, "seed.trial_numbers", STAGING, TESTS, TOTALS, REPORT, *HOOKS}


class Row(NamedTuple):
    """A line of the table at the end of a run."""

    state: str
    seconds: str
    rows: str
    message: str


@pytest.fixture(scope="module")
def trial_run(live: Live) -> str:
    """The id of a successful run of the pipeline `trial`, whose tables the small pipelines read."""
    done = live.orrery("run", "trial")
    assert done.code == 0, done.output
    assert set(live.airflow.states("trial", done.run_id)) == TRIAL
    return done.run_id


def table_of(output: str) -> dict[str, Row]:
    """The table at the end of a run by `<stage>.<node>`."""
    header, _, rest = output.partition(" message")
    assert header.split()[-5:] == ["stage", "node", "state", "seconds", "rows"], output
    line = re.compile(r"(\S+) +(\S+) +([a-z_]+)(?: +(\d+\.\d))?(?: +([\d,]+)(?= |$))?(?: +(.*))?")
    found = {}
    for text in rest.strip().split("\n\n")[0].splitlines():
        match = line.fullmatch(text.rstrip())
        assert match, text
        stage, node, *cells = match.groups(default="")
        found[f"{stage}.{node}" if stage != BUILD else BUILD] = Row(*cells)
    return found


def oids(live: Live, schema: str) -> dict[str, int]:
    """The identity of each table of a schema: dbt makes a new table whenever it builds one."""
    return dict(
        live.query(
            "select relname, pg_class.oid from pg_class join pg_namespace on relnamespace = pg_namespace.oid"
            f" where nspname = '{schema}' and relkind = 'r'"
        )
    )


def ran_again(before: dict[str, Json], after: dict[str, Json]) -> set[str]:
    """The tasks with another start; that only these have another try is checked on the way."""

    def changed(key: str) -> set[str]:
        return {task_id for task_id, task in after.items() if task[key] != before[task_id][key]}

    again, tried = changed("start_date"), changed("try_number")
    # A task that could not start the first time has its first try only now.
    first = {task_id for task_id, task in before.items() if task["state"] == "upstream_failed"}
    assert again == tried | (first & again)
    return again


@contextmanager
def edited(path: Path, old: str, new: str) -> Iterator[None]:
    """A file in which `old` is `new` for a while."""
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")
    try:
        yield
    finally:
        path.write_text(text, encoding="utf-8")


def test_run_fills_the_warehouse(live: Live, booking_run: Done) -> None:
    tables = live.query(
        "select table_schema || '.' || table_name from information_schema.tables"
        " where table_schema in ('dev_raw', 'dev_staging', 'dev_core', 'dev_snapshots')"
    )
    found = {name: live.query(f"select count(*) from {name}")[0][0] for (name,) in tables}
    assert found == demonstration_rows(live.dbt)


def test_run_shows_progress_and_outcome(live: Live, booking_run: Done) -> None:
    states = live.airflow.states(BOOKINGS, booking_run.run_id)
    # There are no dbt packages.
    assert states.pop("publish.elementary") == "skipped"
    assert set(states.values()) == {"success"}
    # It does nothing, and the table says nothing of it.
    del states["tests.begin"]
    # Not a terminal: a line per task, and nothing that moves a cursor.
    assert "\x1b" not in booking_run.output
    for task_id in states:
        assert re.search(
            rf"^success +{re.escape(task_id)} +\d+\.\d s  \(\d+ of \d+ in \w+\)$",
            booking_run.output,
            re.MULTILINE,
        )
    table = table_of(booking_run.output)
    skipped = table.pop("publish.elementary")
    assert skipped.state == "skipped"
    # No worker had it, which would cost seconds.
    assert not skipped.seconds
    assert skipped.message == (
        "Elementary is not installed in dbt/dbt_packages: ./orrery build --packages installs it."
    )
    assert set(table) == set(states)
    assert all(row.seconds for row in table.values())
    expected = demonstration_rows(live.dbt)
    rows = {name.partition(".")[2]: f"{count:,}" for name, count in expected.items()}
    for task_id, row in table.items():
        stage, _, node = task_id.partition(".")
        # PostgreSQL knows no rows of a view, and tests change none.
        assert row.rows == (rows[node] if stage in ("seed", "snapshot", "core") else ""), task_id
    unpaid = unpaid_completed_bookings(live.dbt)
    warning = table.pop("tests.assert_completed_bookings_are_paid")
    assert warning.state == "warning"
    assert warning.message == (
        f"assert_completed_bookings_are_paid: Got {unpaid} results, configured to warn if != 0"
    )
    assert {row.state for row in table.values()} == {"success"}
    url = f"{live.info.url}/dags/{BOOKINGS}/runs/"
    assert re.search(rf"^Graph: {re.escape(url)}\S+$", booking_run.output, re.MULTILINE)
    assert re.search(
        rf"^{BOOKINGS}: success in \d+ s \({len(states) - 1} success, 1 warning, 1 skipped\)$",
        booking_run.output,
        re.MULTILINE,
    )


def test_airflow_can_draw_every_pipeline(live: Live, booking_run: Done) -> None:
    # Airflow orders the groups, too, and cannot when two of them wait for each other.
    for name in (BOOKINGS, *trial.PIPELINES):
        for page in (f"/ui/structure/structure_data?dag_id={name}", f"/ui/grid/structure/{name}"):
            assert live.airflow.status_of(page) == 200, f"{name}: Airflow cannot answer {page}"


def test_failed_model_is_explained_and_retried(live: Live, booking_run: Done) -> None:
    unchanged = oids(live, "dev_core")
    # The seeds are loaded; leaving them out makes the test quicker.
    skipped = ("seed", "source_freshness", "source_tests")
    model = live.dbt / "models" / BOOKINGS / "core" / "fct_payments.sql"
    with edited(model, "    net_amount_eur,\n", "    no_such_column as net_amount_eur,\n"):
        failed = live.orrery("run", BOOKINGS, "--skip-stages", ",".join(skipped))
    assert failed.code == 1
    before = live.airflow.tasks(BOOKINGS, failed.run_id)
    descendants = live.airflow.descendants(BOOKINGS, "core.fct_payments")
    assert {"core.fct_monthly_revenue", "tests.fct_payments", "tests.fct_monthly_revenue"} <= descendants
    for task_id, task in before.items():
        expected = "skipped" if task_id.startswith((*skipped, "publish.elementary")) else "success"
        if task_id in descendants and not task_id.startswith("publish."):
            expected = "upstream_failed"
        assert task["state"] == ("failed" if task_id == "core.fct_payments" else expected), task_id
    assert "Database Error in model fct_payments" in failed.output
    assert 'column "no_such_column" does not exist' in failed.output
    assert re.search(rf"^ *\./orrery retry {BOOKINGS} --failed$", failed.output, re.MULTILINE)
    siblings = {"dim_booking_history", "dim_customers", "dim_properties", "int_bookings__converted_to_eur"}
    rebuilt = oids(live, "dev_core")
    assert all(rebuilt[name] != unchanged[name] for name in siblings)
    assert rebuilt["fct_payments"] == unchanged["fct_payments"]

    mended = live.orrery("retry", BOOKINGS, "--failed")
    assert mended.code == 0, mended.output
    assert mended.run_id == failed.run_id
    after = live.airflow.tasks(BOOKINGS, failed.run_id)
    assert {task["state"] for task in after.values()} == {"success", "skipped"}
    assert ran_again(before, after) == {BUILD, "core.fct_payments", *descendants, *HOOKS}
    assert set(table_of(mended.output)) - HOOKS == {"core.fct_payments", *descendants}
    now = oids(live, "dev_core")
    assert {name for name in now if now[name] != rebuilt[name]} == {"fct_payments", "fct_monthly_revenue"}


def test_terminal_shows_a_live_table(live: Live, trial_run: str) -> None:
    shown = orrery_in_terminal(live, "run", "trial_off")
    assert shown.code == 0, shown.output
    # Drawn over itself at least once: the cursor goes up, the line is erased.
    assert re.search(r"\x1b\[1A\x1b\[2K", shown.output)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.output)
    assert re.search(r"stage +done +states +running now", plain)
    assert re.search(r"staging +1/1 +success 1", plain)
    assert not re.search(r"success +staging\.stg_trial__numbers", plain), "lines of the plain progress"
    table = table_of(plain.replace("\r\n", "\n").rpartition("running now")[2])
    assert set(table) == {BUILD, STAGING, TOTALS, *HOOKS}


def test_retry_runs_one_node(live: Live, trial_run: str) -> None:
    before, built = live.airflow.tasks("trial", trial_run), oids(live, "dev")
    done = live.orrery("retry", "trial", "--model", "trial_totals", "--run-id", trial_run)
    assert done.code == 0, done.output
    after = live.airflow.tasks("trial", trial_run)
    assert ran_again(before, after) == {BUILD, TOTALS, *HOOKS}
    assert after[TOTALS]["try_number"] == before[TOTALS]["try_number"] + 1
    assert set(table_of(done.output)) - HOOKS == {TOTALS}
    now = oids(live, "dev")
    assert {name for name in now if now[name] != built[name]} == {"trial_totals"}


def test_retry_runs_a_node_and_its_descendants(live: Live, trial_run: str) -> None:
    before, built = live.airflow.tasks("trial", trial_run), oids(live, "dev")
    arguments = ("--model", "stg_trial__numbers", "--downstream", "--run-id", trial_run)
    done = live.orrery("retry", "trial", *arguments)
    assert done.code == 0, done.output
    after = live.airflow.tasks("trial", trial_run)
    again = {STAGING, TESTS, TOTALS, REPORT}
    assert ran_again(before, after) == {BUILD, *again, *HOOKS}
    edges = [edge for edge in live.airflow.edges("trial") if set(edge) <= again]
    assert {(STAGING, TESTS), (TESTS, TOTALS), (TOTALS, REPORT)} <= set(edges)
    for first, second in edges:
        assert moment(after[first]["end_date"]) <= moment(after[second]["start_date"]), (first, second)
    now = oids(live, "dev")
    assert {name for name in now if now[name] != built[name]} == {"trial_totals", "trial_report"}


def test_stages_are_left_out(live: Live, trial_run: str) -> None:
    answer = live.airflow.trigger("trial", {"skip_stages": ["seed", "tests"]})
    run_id = answer.raise_for_status().json()["dag_run_id"]
    assert live.airflow.wait_ended("trial", run_id) == "success"
    expected = {BUILD: "success", "seed.trial_numbers": "skipped", TESTS: "skipped", STAGING: "success"}
    assert live.airflow.states("trial", run_id) == {
        **expected,
        **HOOKED,
        TOTALS: "success",
        REPORT: "success",
    }

    done = live.orrery("run", "trial", "--skip-stages", "seed, staging")
    assert done.code == 0, done.output
    expected = {BUILD: "success", "seed.trial_numbers": "skipped", STAGING: "skipped", TESTS: "success"}
    assert live.airflow.states("trial", done.run_id) == {
        **expected,
        **HOOKED,
        TOTALS: "success",
        REPORT: "success",
    }
    assert table_of(done.output)[STAGING].state == "skipped"


def test_stages_that_the_pipeline_leaves_out_by_default(live: Live, trial_run: str) -> None:
    run_id = live.airflow.trigger("trial_unseeded").raise_for_status().json()["dag_run_id"]
    assert live.airflow.wait_ended("trial_unseeded", run_id) == "success"
    states = live.airflow.states("trial_unseeded", run_id)
    assert states == {BUILD: "success", "seed.trial_numbers": "skipped", STAGING: "success", **HOOKED}


def test_unknown_stage_is_refused_before_a_run_exists(live: Live, trial_run: str) -> None:
    before = len(live.airflow.runs("trial"))
    answer = live.airflow.trigger("trial", {"skip_stages": ["stagin"]})
    assert answer.status_code == 400
    assert "'stagin' is not one of" in answer.text
    done = live.orrery("run", "trial", "--skip-stages", "stagin")
    assert done.code == 2
    assert "Unknown stage 'stagin'. Did you mean 'staging'?" in done.output
    assert len(live.airflow.runs("trial")) == before


def test_per_model_runs_and_retries_the_same_graph(live: Live, trial_run: str) -> None:
    done = live.orrery("run", "trial_per_model")
    assert done.code == 0, done.output
    before = live.airflow.tasks("trial_per_model", done.run_id)
    assert set(before) == TRIAL - {BUILD, *HOOKS}
    nodes = {edge for edge in live.airflow.edges("trial") if BUILD not in edge}
    assert live.airflow.edges("trial_per_model") == nodes
    assert {task["state"] for task in before.values()} == {"success"}

    again = live.orrery("retry", "trial_per_model", "--model", "trial_totals")
    assert again.code == 0, again.output
    assert ran_again(before, live.airflow.tasks("trial_per_model", done.run_id)) == {TOTALS}
    rows = live.query(
        "select split_part(unique_id, '.', 3), status, target, try_number, started_at < ended_at,"
        " rows_affected, count(*) over (partition by invocation_id) from orrery.node_runs"
        f" where pipeline = 'trial_per_model' and run_id = '{done.run_id}'"
    )
    one = ("dev", 1, True)
    assert {name: tuple(values) for name, *values in rows} == {
        "trial_numbers": ("success", *one, 3, 1),
        "stg_trial__numbers": ("success", *one, None, 1),
        "not_null_stg_trial__numbers_id": ("pass", *one, None, 1),
        "trial_totals": ("success", "dev", 2, True, 1, 1),
        "trial_report": ("success", *one, 1, 1),
    }

    part = live.orrery("run", "trial_per_model", "--select", "trial_totals+")
    assert part.code == 0, part.output
    states = live.airflow.states("trial_per_model", part.run_id)
    assert {task_id for task_id, state in states.items() if state == "success"} == {TOTALS, REPORT}
    assert set(states.values()) == {"success", "skipped"}

    refused = live.orrery("run", "trial_per_model", "--select", "trial_totls")
    assert refused.code == 1
    assert "'trial_totls' matches no node" in refused.output
    assert "Did you mean 'trial_totals'?" in refused.output
    states = live.airflow.states("trial_per_model", refused.run_id)
    assert states.pop("seed.trial_numbers") == "failed"
    assert set(states.values()) == {"upstream_failed"}


def test_full_refresh_rebuilds_an_incremental_model(live: Live, booking_run: Done) -> None:
    marked = "select count(*) from dev_core.fct_bookings where booking_id = 'not in the source'"
    live.query(
        "insert into dev_core.fct_bookings (booking_id, updated_at)"
        " values ('not in the source', '2024-01-01')"
    )
    normal = live.orrery("run", "trial_bookings")
    assert normal.code == 0, normal.output
    assert live.query(marked) == [(1,)]
    refreshed = live.orrery("run", "trial_bookings", "--full-refresh")
    assert refreshed.code == 0, refreshed.output
    assert live.query(marked) == [(0,)]
    rows = demonstration_rows(live.dbt)["dev_core.fct_bookings"]
    assert live.query("select count(*) from dev_core.fct_bookings") == [(rows,)]


def test_failed_test_holds_back_the_children(live: Live, trial_run: str) -> None:
    built = oids(live, "dev")
    done = live.orrery("run", "trial_gate")
    assert done.code == 1
    states = live.airflow.states("trial_gate", done.run_id)
    expected = {BUILD: "success", STAGING: "success", TESTS: "failed", TOTALS: "upstream_failed"}
    assert states == {**expected, **HOOKED}
    assert "Got 1 result, configured to fail if != 0" in table_of(done.output)[TESTS].message
    assert oids(live, "dev") == built


def test_tests_at_the_end_hold_back_nothing(live: Live, trial_run: str) -> None:
    built = oids(live, "dev")
    done = live.orrery("run", "trial_end")
    assert done.code == 1
    tasks = live.airflow.tasks("trial_end", done.run_id)
    assert {task_id: tasks[task_id]["state"] for task_id in (STAGING, TOTALS, TESTS)} == {
        STAGING: "success",
        TOTALS: "success",
        TESTS: "failed",
    }
    assert moment(tasks[TESTS]["start_date"]) >= moment(tasks[TOTALS]["end_date"])
    assert oids(live, "dev")["trial_totals"] != built["trial_totals"]


def test_no_tests_no_tasks(live: Live, trial_run: str) -> None:
    done = live.orrery("run", "trial_off")
    assert done.code == 0, done.output
    assert live.airflow.states("trial_off", done.run_id) == {
        BUILD: "success",
        STAGING: "success",
        TOTALS: "success",
        **HOOKED,
    }


def test_broken_pipeline_is_shown_and_harms_no_other(live: Live, trial_run: str) -> None:
    path = live.dbt / "pipelines" / "broken.yml"
    wait_for("earlier errors go away", lambda: live.airflow.import_errors() == [])
    try:
        path.write_text("selct: trial_totals\n", encoding="utf-8")
        wait_for("Airflow shows the error", live.airflow.import_errors)
        built = live.orrery("build")
        assert built.code == 1
        message = built.output.partition("\n\n")[2].rstrip("\n")
        assert message.startswith("dbt/pipelines/broken.yml:1:1: ")
        assert "Did you mean 'select'?" in message
        wait_for("it is the message of the build", lambda: live.airflow.import_errors() == [message])
        known = {dag["dag_id"] for dag in live.airflow.pages("/dags", "dags")}
        assert known >= {BOOKINGS, *trial.PIPELINES}
        assert known == {file.stem for file in path.parent.glob("*.yml")} - {"broken"}
        other = live.orrery("run", "trial_off")
        assert other.code == 0, other.output
        refused = live.orrery("run", "broken")
        assert refused.code == 1
        assert message in refused.output

        path.write_text("select: trial_totals\n", encoding="utf-8")
        assert live.orrery("build").code == 0
        wait_for("the error goes away", lambda: live.airflow.import_errors() == [])
    finally:
        path.unlink()
        assert live.orrery("build").code == 0


def test_no_edit_during_a_run_stops_it_or_takes_a_dag_away(live: Live, trial_run: str) -> None:
    def waits() -> bool:
        return live.query("select 1 from pg_locks where locktype = 'advisory' and not granted") != []

    def parsed_since() -> bool:
        parsed = live.airflow.get("/dags/trial_held/details")
        return not parsed["is_stale"] and moment(parsed["last_parsed_time"]) > since

    def shown(words: str) -> list[str]:
        # Between a change and the build of an earlier test Airflow may have seen another error.
        return [error for error in live.airflow.import_errors() if words in error]

    def known() -> set[str]:
        return {dag["dag_id"] for dag in live.airflow.pages("/dags", "dags")}

    pipelines = {file.stem for file in (live.dbt / "pipelines").glob("*.yml")}
    model = live.dbt / "models" / "trial" / "core" / "trial_released.sql"
    with live.connect() as link, link.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(%s)", (trial.LOCK,))
        with live.start("run", "trial_held") as command:
            try:
                wait_for("the first model runs", waits)
                with edited(model, "select id", "-- An edit.\nselect id"):
                    since = datetime.now(UTC)
                    changed = f"{model.name} has changed"
                    [error] = wait_for("Airflow shows that it is stale", lambda: shown(changed))
                    assert "models/trial/core/trial_released.sql has changed" in error
                    assert "Run ./orrery build" in error
                    wait_for("Airflow reads the pipeline again", parsed_since)
                with edited(model, "ref('trial_held')", "ref('trial_hled')"):
                    built = live.orrery("build")
                    assert built.code == 1
                    assert "'trial_hled'" in built.output
                    since = datetime.now(UTC)
                    wait_for("Airflow shows dbt's message", lambda: shown("'trial_hled'"))
                    wait_for("Airflow reads the pipeline again", parsed_since)
                    assert known() >= pipelines
                    assert command.poll() is None
                    cursor.execute("select pg_advisory_unlock(%s)", (trial.LOCK,))
                    output, _ = command.communicate(timeout=120)
            finally:
                command.kill()
    assert command.returncode == 0, output
    assert {row.state for row in table_of(output).values()} == {"success"}
    assert "core.trial_released" in table_of(output)
    assert live.orrery("build").code == 0
    wait_for("the error goes away", lambda: live.airflow.import_errors() == [])


def test_success_of_a_pipeline_starts_the_next(live: Live, trial_run: str) -> None:
    assert live.airflow.runs("trial_second") == []
    first = live.orrery("run", "trial_first")
    assert first.code == 0, first.output
    [started] = wait_for("trial_second is started", lambda: live.airflow.runs("trial_second"))
    assert started["run_type"] == "asset_triggered"
    assert live.airflow.wait_ended("trial_second", started["dag_run_id"]) == "success"
    ended = live.airflow.tasks("trial_first", first.run_id)[TOTALS]["end_date"]
    for task in live.airflow.tasks("trial_second", started["dag_run_id"]).values():
        assert moment(task["start_date"]) > moment(ended)
