"""What runs leave behind holds no secret: files, databases, and all that Airflow answers about them.

Nothing here is a list of what a run leaves: whatever lies in the project's folder, stands in a table or is
answered, is searched.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psutil
import psycopg2
import pytest
from psycopg2 import sql

from orrery.local.layout import Layout
from orrery.local.state import load_secrets
from support.leaks import Search
from support.leaky import PIPELINE, Telltale, telltale
from support.live import Done, Live
from support.pages import answers_about, pages_of_plugins
from support.running import content, facts, files_below

pytestmark = pytest.mark.integration

# What all of this is to find, if it finds anything: dbt's error of a model, and a service's answer.
CANARIES = {"dbt": "division by zero", "service": "is refused"}
# Airflow takes the host of a connection for no secret: it stands in its tables, and who may see connections
# is shown it.
HOSTS = {"connection host token", "connection host password"}
TABLES = {"public.connection", "public.log"}
ROUTES = re.compile(r"/connections|/eventLogs")
# What Airflow signs for its tasks and users.
TOKEN = re.compile(rb"eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}")


@pytest.fixture(scope="module")
def service(live: Live) -> Iterator[Telltale]:
    """The telltale service, to which Airflow's connections lead."""
    assert live.orrery("up").code == 0
    with telltale() as made:
        for name, body in made.connections.items():
            live.airflow.post("/connections", {"connection_id": name, **body})
        yield made
        for name in made.connections:
            live.airflow.delete(f"/connections/{name}")


@pytest.fixture(scope="module")
def search(live: Live, service: Telltale) -> Search:
    """All secrets of the stack, and of the connections."""
    keys = load_secrets(Layout.of(live.root, live.state))
    assert keys
    login = f"me:{service.secrets['http']}"
    return Search(
        {f"key {name}": value for name, value in vars(keys).items()}
        | {f"connection {name}": value for name, value in service.secrets.items()}
        | {"basic": base64.b64encode(login.encode()).decode()}
        | {f"dsn {role}": dsn.partition("://")[2].partition("@")[0] for role, dsn in live.warehouse.items()}
    )


@contextmanager
def wrong_passwords(live: Live) -> Iterator[None]:
    """Nobody gets into the warehouse."""
    with closing(psycopg2.connect(live.stack.warehouse_dsn("postgres"))) as link, link.cursor() as cursor:
        link.autocommit = True
        cursor.execute(
            "select rolname, rolpassword from pg_authid where rolname in ('loader', 'transformer')"
        )
        roles = dict(cursor.fetchall())
        change = sql.SQL("alter role {} password {}")
        for role in roles:
            # Another role's, as it is kept.
            other = roles["transformer" if role == "loader" else "loader"]
            cursor.execute(change.format(sql.Identifier(role), sql.Literal(other)))
        try:
            yield
        finally:
            for role, kept in roles.items():
                cursor.execute(change.format(sql.Identifier(role), sql.Literal(kept)))


@pytest.fixture(scope="module")
def runs(live: Live, service: Telltale) -> list[Done]:
    """A run in which models and calls fail, and one in which nobody gets into the warehouse."""
    landing = live.dbt / "landing" / "leaks"
    landing.mkdir(parents=True)
    (landing / "a.csv").write_text("id\n1\nnone\n")
    failing = live.orrery("run", PIPELINE)
    (landing / "b.csv").write_text("id\n2\n")
    with wrong_passwords(live):
        refused = live.orrery("run", PIPELINE)
    assert "password authentication failed" in refused.output
    return [failing, refused]


def test_all_went_wrong(live: Live, runs: list[Done]) -> None:
    for done in runs:
        assert done.code == 1
    failing, refused = (live.airflow.states(PIPELINE, done.run_id) for done in runs)
    calls = {"ingest.leak_bucket__leak_bucket", "ingest.leak_sync__leak_sync"}
    assert {task for task, state in failing.items() if state == "failed"} == calls | {
        "core.leak_bad",
        "core.leak_shown",
        "exposures.leak_call",
        "exposures.leak_webhook",
        "ingest.leak_file__leak_file",
    }
    assert {task for task, state in refused.items() if state == "failed"} >= calls | {"build"}
    assert "is answered with 403" in runs[0].output


def test_a_model_that_asks_for_them_gets_its_default(live: Live, runs: list[Done]) -> None:
    asked = live.airflow.tasks(PIPELINE, runs[0].run_id)["core.leak_asked"]
    assert asked["state"] == "success"
    assert asked["rendered_fields"]["compiled_sql"] == "select 1 as id -- not shown"


def test_dbt_on_the_command_line_shows_none(live: Live, runs: list[Done], search: Search) -> None:
    live.env["COPY_OF_IT"] = live.stack.warehouse_dsn("loader")
    try:
        shown = live.orrery(
            "dbt", "-q", "compile", "--inline", "select '{{ env_var('COPY_OF_IT', 'hidden') }}'"
        )
    finally:
        del live.env["COPY_OF_IT"]
    assert "select 'hidden'" in shown.output
    assert search.in_bytes(shown.output.encode()) == set()


def test_commands_print_none(live: Live, runs: list[Done], search: Search) -> None:
    shown = [live.orrery(*command).output for command in (("status",), ("logs",), ("report", PIPELINE))]
    for output in (*(done.output for done in runs), *shown):
        assert search.in_bytes(output.encode()) == set()


def test_files_hold_none(live: Live, runs: list[Done], search: Search) -> None:
    layout = Layout.of(live.root, live.state)
    # What the stack itself reads them from, and nobody else.
    homes = {layout.secrets, layout.airflow_cfg, layout.passwords}
    assert {path.stat().st_mode & 0o777 for path in homes} == {0o600}
    # The tables in it are searched below.
    found = search.in_files(live.root, but=[layout.postgres])
    assert {path: names for path, names in found.items() if path not in homes} == {}
    assert found.keys() >= homes
    canaries = Search(CANARIES).in_files(live.root, but=[layout.postgres])
    assert layout.logs in {parent for path in canaries for parent in path.parents}
    files = files_below(live.root, but=[layout.postgres])
    assert [path for path in files if TOKEN.search(content(path))] == []


@pytest.mark.parametrize("database", ["airflow", "warehouse"])
def test_tables_hold_none(live: Live, runs: list[Done], search: Search, database: str) -> None:
    dsn = live.stack.warehouse_dsn("postgres").replace("/warehouse", f"/{database}")
    found = search.in_tables(dsn)
    assert {table: names for table, names in found.items() if table not in TABLES or names - HOSTS} == {}
    if database == "airflow":
        found = Search({**CANARIES, "sql": "1 / 0"}).in_tables(dsn)
        assert found["public.xcom"] >= {"dbt", "service"}
        assert "public.rendered_task_instance_fields" in found


def test_airflow_answers_with_none(live: Live, runs: list[Done], service: Telltale, search: Search) -> None:
    canaries, fine = Search(CANARIES), set()
    leaks, told = {}, set()
    for done in runs:
        for path, status, answer in answers_about(
            live.airflow, PIPELINE, done.run_id, [*service.connections]
        ):
            if names := search.in_bytes(answer) - (HOSTS if ROUTES.search(path) else set()):
                leaks[path] = names
            if status == 200:
                fine.add(path)
            told |= {(path.rpartition("/")[2], name) for name in canaries.in_bytes(answer)}
    assert leaks == {}
    # Logs, by the number of their try, and XComs, by their key.
    assert told >= {("1", "dbt"), ("1", "service"), ("dbt", "dbt"), ("dbt", "service")}
    assert len(fine) > 100
    for path, _, answer in pages_of_plugins(live.airflow):
        assert search.in_bytes(answer) == set(), path


def test_processes_show_none(live: Live, runs: list[Done], search: Search) -> None:
    # Everybody on the machine can read how a process was called.
    asked = [*facts(live.members(), psutil.Process.cmdline)]
    assert asked
    for process, words in asked:
        assert search.in_bytes(" ".join(words).encode()) == set(), process
