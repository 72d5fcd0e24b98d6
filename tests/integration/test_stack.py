"""The embedded stack for real: PostgreSQL, Airflow and supervisord, killed in every way."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest

from orrery.local import ComponentStatus, Stack, StackError, StackInfo, health, processes, watch
from orrery.local.layout import COMPONENTS, Layout
from orrery.local.ports import find_free
from orrery.local.state import load_secrets
from support.running import content, facts, files_below
from support.waiting import wait_for

pytestmark = pytest.mark.integration

INCLUDE = Path(__file__).resolve().parents[2] / "include"
DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def trial():
    @task(retries=2, retry_delay=1)
    def count() -> int:
        return 1

    count()

trial()
"""
# A first start whose migration stops half way: a sleep in the transaction that makes the 21st table.
HELD_UP = """
import sys
from contextlib import closing
from pathlib import Path
import psycopg2
from orrery.local import Stack

HOLD = '''
create function hold() returns event_trigger language plpgsql as $$ begin
    if (select count(*) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace) > 20
    then perform pg_sleep(600);
    end if;
end $$;
create event trigger hold on ddl_command_start when tag in ('CREATE TABLE') execute function hold();
'''
stack = Stack(Path(sys.argv[1]))

def report(line):
    if line.startswith("preparing the database"):
        dsn = stack.warehouse_dsn("postgres").replace("/warehouse", "/airflow")
        with closing(psycopg2.connect(dsn)) as link:
            link.autocommit = True
            link.cursor().execute(HOLD)

stack.up(report)
"""


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    """A project with one small DAG, in a directory with a short name, and a port of its own."""
    root = Path(tempfile.mkdtemp(prefix="orrery-it-"))
    (root / "include").symlink_to(INCLUDE)
    (root / "dags").mkdir()
    (root / "dags" / "trial.py").write_text(DAG)
    # The database's user, if it is another one, has to pass through.
    root.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORRERY_PORT", str(find_free()))
        patch.setenv("ORRERY_STATE_DIR", str(root / ".orrery"))
        patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
        yield root
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def first(project: Path) -> Iterator[StackInfo]:
    """The stack after its first start, which was killed once in the middle of Airflow's migration."""
    marker = Layout.of(project).marker
    environment = {**os.environ, "PYTHONPATH": str(INCLUDE)}
    interrupted = subprocess.Popen([sys.executable, "-c", HELD_UP, str(project)], env=environment)
    try:
        wait_for("the migration is half way", lambda: half_migrated(project))
        interrupted.kill()
        interrupted.wait()
        assert processes.find(marker), "the kill left nothing behind"
        yield Stack(project).up()
    finally:
        Stack(project).down()
    assert not processes.find(marker)
    assert not processes.find_postgres(Layout.of(project).pgdata)


@pytest.fixture
def stack(first: StackInfo, project: Path) -> Stack:
    """The running stack, well at the start of each test."""
    stack = Stack(project)
    stack.up()
    return stack


def half_migrated(project: Path) -> bool:
    """True once `airflow db migrate` stands still between two tables."""
    try:
        dsn = Stack(project).warehouse_dsn("postgres").replace("/warehouse", "/airflow")
        with connected(dsn) as link, link.cursor() as cursor:
            cursor.execute("select count(*) from pg_stat_activity where wait_event = 'PgSleep'")
            return bool(cursor.fetchone()[0])
    except (StackError, psycopg2.OperationalError):
        return False


def connected(dsn: str) -> closing[Any]:
    link = psycopg2.connect(dsn, connect_timeout=5)
    link.autocommit = True
    return closing(link)


def component(stack: Stack, name: str) -> ComponentStatus:
    return next(status for status in stack.status() if status.name == name)


def members(project: Path) -> list[psutil.Process]:
    layout = Layout.of(project)
    return list({*processes.find(layout.marker), *processes.find_postgres(layout.pgdata)})


def well(info: StackInfo) -> bool:
    return not health.unhealthy(info.api_port, since=0)


def run_trial(info: StackInfo) -> str:
    """Run the DAG `trial` to its end and return its state. Retried while the api-server comes back."""
    token = wait_for("a token", lambda: health.login(info.api_port, info.password))

    def started() -> Any:
        path, body = "/api/v2/dags/trial/dagRuns", {"logical_date": None}
        status, answer = health.request(info.api_port, "POST", path, body=body, token=token)
        return answer["dag_run_id"] if status == 200 else None

    run_id = wait_for("the DAG is known", started)

    def ended() -> Any:
        path = f"/api/v2/dags/trial/dagRuns/{run_id}"
        _, answer = health.request(info.api_port, "GET", path, token=token)
        return answer["state"] if answer["state"] in ("success", "failed") else None

    return str(wait_for("the run ends", ended))


def test_interrupted_first_start_is_completed(first: StackInfo, project: Path) -> None:
    assert first.first_start
    assert well(first)
    commands = facts(members(project), psutil.Process.cmdline)
    assert sum("supervisor.supervisord" in command for _, command in commands) == 1
    assert run_trial(first) == "success"


def test_second_up_changes_nothing(first: StackInfo, stack: Stack) -> None:
    before = {status.name: status.pid for status in stack.status()}
    said: list[str] = []
    again = stack.up(said.append)
    assert said == [], "it starts and repairs nothing"
    assert (again.password, again.api_port, again.first_start) == (first.password, first.api_port, False)
    assert {status.name: status.pid for status in stack.status()} == before


def test_everything_listens_on_loopback_only(first: StackInfo, stack: Stack, project: Path) -> None:
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for _, connections in facts(members(project), psutil.Process.net_connections)
        for connection in connections
        if connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM
    }
    assert listening == {("127.0.0.1", first.api_port), ("127.0.0.1", first.postgres_port)}


def test_secrets_are_neither_in_arguments_nor_readable(stack: Stack, project: Path) -> None:
    layout = Layout.of(project)
    keys = load_secrets(layout)
    assert keys is not None
    values = set(vars(keys).values())
    assert len(values) == 8
    found = members(project)
    for _, words in facts(found, psutil.Process.cmdline):
        assert not [value for value in values if value in " ".join(words)]
    for _, environment in facts(found, psutil.Process.environ):
        told = {value for value in values if value in environment.values()}
        # dbt, and the pages that read its ledger, take a password from the environment; nobody else has one.
        knows = environment.get(processes.COMPONENT) in ("scheduler", "api-server")
        assert told <= ({keys.transformer} if knows else set())
    assert stat.S_IMODE(layout.state.stat().st_mode) in (0o700, 0o710)
    for path in (layout.secrets, layout.airflow_cfg, layout.passwords, layout.supervisord_conf, layout.saved):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE(next(layout.run.glob("*.sock")).stat().st_mode) == 0o600
    for path in files_below(layout.state):
        if path.suffix == ".log":
            log = content(path)
            assert not [value for value in values if value.encode() in log], path


def test_no_password_no_entry(first: StackInfo, stack: Stack) -> None:
    for role in ("postgres", "airflow", "loader", "transformer"):
        with pytest.raises(psycopg2.OperationalError, match=r"no password supplied|authentication failed"):
            psycopg2.connect(
                f"postgresql://{role}@127.0.0.1:{first.postgres_port}/warehouse", passfile="/none"
            )
    assert health.login(first.api_port, "admin") is None
    status, _ = health.request(first.api_port, "GET", "/api/v2/dags")
    assert status == 401


def test_roles_have_the_rights_they_need_and_no_others(stack: Stack) -> None:
    with connected(stack.warehouse_dsn("loader")) as loader, loader.cursor() as cursor:
        cursor.execute("create table landing.bookings as select 1 as id")
    with connected(stack.warehouse_dsn("transformer")) as transformer, transformer.cursor() as cursor:
        cursor.execute("select id from landing.bookings")
        assert cursor.fetchall() == [(1,)]
        cursor.execute("create schema dev")
        cursor.execute("create table dev.bookings as select * from landing.bookings")
        for forbidden in (
            "insert into landing.bookings values (2)",
            "create table landing.other (id int)",
            "drop table landing.bookings",
            "create table public.other (id int)",
        ):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(forbidden)
    with (
        connected(stack.warehouse_dsn("loader")) as loader,
        loader.cursor() as cursor,
        pytest.raises(psycopg2.errors.InsufficientPrivilege),
    ):
        cursor.execute("create schema other")
    with pytest.raises(psycopg2.OperationalError, match="permission denied"):
        psycopg2.connect(stack.warehouse_dsn("transformer").replace("/warehouse", "/airflow"))


@pytest.mark.parametrize("name", COMPONENTS)
def test_killed_component_is_restarted_and_reported(name: str, first: StackInfo, stack: Stack) -> None:
    before = component(stack, name)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)

    def restarted() -> bool:
        now = component(stack, name)
        return now.state == "running" and now.pid != before.pid

    wait_for(f"{name} is restarted", restarted)
    after = component(stack, name)
    assert after.restarts == before.restarts + 1
    assert after.last_exit is not None
    assert "SIGKILL" in after.last_exit
    wait_for("the stack is well again", lambda: well(first))
    assert run_trial(first) == "success"


@pytest.mark.parametrize("name", ["scheduler", "triggerer"])
def test_part_that_does_nothing_is_started_anew(
    name: str, first: StackInfo, stack: Stack, project: Path
) -> None:
    layout, patience = Layout.of(project), 12.0
    wait_for("all are heard of", lambda: not watch.look(layout, {}, patience))
    pid = component(stack, name).pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    wait_for(f"{name} is silent", lambda: watch.look(layout, {}, patience).get(name) == pid)
    assert psutil.Process(pid).status() == psutil.STATUS_STOPPED, "not at the first look"
    watch.look(layout, {name: pid}, patience)
    wait_for(f"{name} is started anew", lambda: component(stack, name).pid not in (None, pid))
    wait_for("the stack is well again", lambda: well(first))
    assert run_trial(first) == "success"


def test_killed_supervisor_is_repaired_by_up(first: StackInfo, stack: Stack, project: Path) -> None:
    supervisor = psutil.Process(int(Layout.of(project).supervisord_pid.read_text()))
    orphans = [process for process in members(project) if process != supervisor]
    supervisor.kill()
    wait_for("the supervisor is gone", lambda: not processes.alive(supervisor))
    info = stack.info()
    assert info is not None
    assert not info.running
    again = stack.up()
    assert not [process for process in orphans if processes.alive(process)]
    assert again.password == first.password
    watched = {status.pid for status in stack.status()}
    top = wait_for("nobody but the new supervisor is without a parent in the stack", lambda: top_of(project))
    assert {psutil.Process(pid).ppid() for pid in watched if pid} == {top}
    assert run_trial(again) == "success"


def top_of(project: Path) -> int | None:
    """The only process of the stack whose parent is none; None when, for a moment, there are several."""
    found = members(project)
    known = {process.pid for process in found}
    tops = [process.pid for process, parent in facts(found, psutil.Process.ppid) if parent not in known]
    return tops[0] if len(tops) == 1 else None


def test_taken_port_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("ORRERY_PORT", str(port))
        with pytest.raises(StackError) as error:
            Stack(tmp_path, tmp_path / "state").up()
    assert f"port {port} is taken by" in str(error.value)
    assert f"(process {os.getpid()})" in str(error.value)
    assert "ORRERY_PORT=8090 ./orrery up" in str(error.value)
    assert not processes.find(str(tmp_path / "state"))


def test_other_port_for_a_running_stack_is_refused(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_PORT", str(find_free()))
    with pytest.raises(StackError, match="runs on port"):
        stack.up()
