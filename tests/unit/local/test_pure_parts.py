"""The embedded stack's parts that need no process: paths, ports, settings, environments, history."""

from __future__ import annotations

import configparser
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from orrery.local import Stack, StackError, environment, errors, history, ports, processes, settings, startup
from orrery.local import supervisor as control
from orrery.local.layout import COMPONENTS, WATCH, WORKER, Layout, write_private
from orrery.local.state import (
    Saved,
    Secrets,
    ensure_secrets,
    load_saved,
    load_secrets,
    locked,
    remember,
    save,
)
from orrery.local.worker import BROKER, become_worker

SAVED = Saved(api_port=8080, postgres_port=5433, control_socket="/run/s.sock")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path, tmp_path / "state")
    layout.logs.mkdir(parents=True)
    layout.run.mkdir()
    return layout


# --- layout ---


def test_state_directory_is_argument_then_environment_then_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORRERY_STATE_DIR", raising=False)
    assert Layout.of(tmp_path).state == tmp_path / ".orrery"
    monkeypatch.setenv("ORRERY_STATE_DIR", str(tmp_path / "elsewhere"))
    assert Layout.of(tmp_path).state == tmp_path / "elsewhere"
    assert Layout.of(tmp_path, tmp_path / "given").state == tmp_path / "given"


def test_unknown_component_names_the_near_match(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="did you mean 'scheduler'"):
        Stack(tmp_path, tmp_path).log_files("schedular")


def test_log_files_are_those_that_exist(layout: Layout) -> None:
    layout.log("scheduler").write_text("x")
    stack = Stack(layout.root, layout.state)
    assert stack.log_files(None) == [layout.log("scheduler")]
    assert stack.log_files("triggerer") == []


def test_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


# --- state ---


def test_saved_state_survives_and_damage_is_forgotten(layout: Layout) -> None:
    assert load_saved(layout) is None
    save(layout, SAVED)
    assert remember(layout, SAVED, migration="abc") == load_saved(layout)
    raw = json.loads(layout.saved.read_text())
    layout.saved.write_text(json.dumps({**raw, "of_a_newer_version": 1}))
    assert load_saved(layout) is not None
    layout.saved.write_text("{half")
    assert load_saved(layout) is None


def test_keys_are_random_kept_and_private(layout: Layout) -> None:
    keys = ensure_secrets(layout)
    assert ensure_secrets(layout) == load_secrets(layout) == keys
    assert stat.S_IMODE(layout.secrets.stat().st_mode) == 0o600
    assert not set(vars(keys).values()) & set(vars(Secrets.generate()).values())


def test_lost_or_damaged_keys_are_an_error_not_new_keys(layout: Layout) -> None:
    layout.secrets.write_text("{half")
    with pytest.raises(StackError, match="cannot be read"):
        ensure_secrets(layout)
    layout.secrets.unlink()
    layout.pgdata.mkdir(parents=True)
    with pytest.raises(StackError, match="keys are gone"):
        ensure_secrets(layout)


def test_lock_lets_one_in_and_tells_the_other(layout: Layout) -> None:
    told, entered = threading.Event(), threading.Event()

    def second() -> None:
        with locked(layout.lock, lambda _: told.set()):
            entered.set()

    with locked(layout.lock, lambda _: None):
        other = threading.Thread(target=second)
        other.start()
        assert told.wait(10)
        assert not entered.is_set()
    other.join(10)
    assert entered.is_set()


# --- ports ---


def test_requested_port_is_environment_then_saved_then_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORRERY_PORT", raising=False)
    assert ports.requested_api_port(None) == 8080
    assert ports.requested_api_port(8090) == 8090
    monkeypatch.setenv("ORRERY_PORT", "9000")
    assert ports.requested_api_port(8090) == 9000


@pytest.mark.parametrize("text", ["http", "0", "70000", "-1", "80 80"])
def test_nonsense_in_orrery_port_is_explained(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_PORT", text)
    with pytest.raises(StackError, match="ORRERY_PORT is not a port"):
        ports.requested_api_port(None)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_taken_port_is_seen(address: str) -> None:
    with socket.create_server((address, 0)) as server:
        port = server.getsockname()[1]
        assert not ports.is_free(port)
        with pytest.raises(StackError, match=rf"port {port} is taken by .*{os.getpid()}"):
            ports.require_free(port)
    ports.require_free(port)


# --- settings and environments ---


def test_airflow_settings_are_on_loopback_and_hold_the_keys(layout: Layout) -> None:
    keys = Secrets.generate()
    parser = configparser.ConfigParser()
    parser.read_string(settings.render(layout, SAVED, keys))
    assert parser["api"]["host"] == "127.0.0.1"
    assert parser["core"]["simple_auth_manager_all_admins"] == "False"
    assert f"airflow:{keys.airflow}@127.0.0.1:5433" in parser["database"]["sql_alchemy_conn"]
    assert parser["api_auth"]["jwt_secret"] == keys.jwt_secret
    assert keys.postgres not in settings.render(layout, SAVED, keys)
    assert int(parser["core"]["parallelism"]) >= 4


def test_percent_in_a_path_is_kept(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "100%", tmp_path / "100%" / "state")
    parser = configparser.ConfigParser()
    parser.read_string(settings.render(layout, SAVED, Secrets.generate()))
    assert parser["core"]["dags_folder"] == str(tmp_path / "100%" / "dags")


def test_environment_drops_what_would_move_the_stack(layout: Layout) -> None:
    user = {
        "AIRFLOW__API__HOST": "0.0.0.0",
        "AIRFLOW_HOME": "/else",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite://",
        "AIRFLOW__CORE__PARALLELISM": "2",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        "AIRFLOW__CELERY__BROKER_URL": "redis://",
        "AIRFLOW_CONN_SLACK": "slack://",
        "ORRERY_TARGET": "prod",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "example.org",
        "PATH": "/bin",
    }
    env = environment.base_env(layout, user)
    assert {key for key in user if key not in env} == {
        "AIRFLOW__API__HOST",
        "AIRFLOW_HOME",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "PYTHONDONTWRITEBYTECODE",
    }
    assert env["ORRERY_TARGET"] == "prod"
    assert set(env["NO_PROXY"].split(",")) == {"127.0.0.1", "localhost", "example.org"}
    assert env["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert env["PYTHONPATH"].split(os.pathsep)[0] == str(layout.root / "include")


def test_only_who_reads_the_warehouse_gets_its_password(layout: Layout) -> None:
    keys = Secrets.generate()
    for name in (*COMPONENTS, WORKER):
        values = set(environment.component_env(layout, SAVED, keys, name).values())
        expected = {keys.transformer} if name in ("scheduler", "api-server", WORKER) else set()
        assert values & set(vars(keys).values()) == expected, name


def test_postgres_inherits_nothing_of_the_user(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", "x")
    assert "SOME_TOKEN" not in environment.component_env(layout, SAVED, Secrets.generate(), "postgres")


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("ORRERY_TARGET", True),
        ("DBT_TARGET", True),
        ("ORRERY_BIGQUERY_DATASET", True),
        ("ORRERY_DBT_QUEUE", True),
        ("DBT_ENV_SECRET_BIGQUERY_TOKEN", False),
        ("EDITOR", False),
    ],
)
def test_a_stack_is_outdated_when_what_it_was_started_with_has_changed(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, name: str, counts: bool
) -> None:
    keys = Secrets.generate()
    monkeypatch.delenv(name, raising=False)
    saved = replace(SAVED, settings=startup.digest(layout, SAVED, keys))
    assert not startup.is_outdated(layout, saved, keys)
    monkeypatch.setenv(name, "")
    assert not startup.is_outdated(layout, saved, keys)
    monkeypatch.setenv(name, "other")
    assert startup.is_outdated(layout, saved, keys) == counts


# --- a worker of Celery ---


def test_worker_needs_a_stack_and_a_broker(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BROKER, raising=False)
    with pytest.raises(StackError, match="never started"):
        become_worker(layout, queues="dbt", slots=2)
    save(layout, SAVED)
    keys = ensure_secrets(layout)
    with pytest.raises(StackError, match=f"{BROKER} is not set"):
        become_worker(layout, queues="dbt", slots=2)
    monkeypatch.setenv(BROKER, "redis://:secret@127.0.0.1/0")
    became: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execve", lambda _, command, env: became.append((command, env)))
    become_worker(layout, queues="dbt", slots=2)
    [(command, env)] = became
    assert command[command.index("--queues") + 1] == "dbt"
    assert command[command.index("--concurrency") + 1] == "2"
    assert "secret" not in " ".join(command)
    assert keys.loader in env["AIRFLOW_CONN_WAREHOUSE_LOADER"]
    # By these `./orrery down` finds it.
    assert (env[processes.STACK], env[processes.COMPONENT]) == (layout.marker, WORKER)


# --- supervisord ---


def test_supervisord_never_gives_up_and_holds_no_secret(layout: Layout) -> None:
    parser = configparser.RawConfigParser(inline_comment_prefixes=(" ;",))
    parser.read_string(control.render(layout, "/run/s.sock"))
    for name in COMPONENTS:
        program = parser[f"program:{name}"]
        assert program["autorestart"] == "true"
        assert int(program["startretries"]) >= 100_000
        assert program["command"].endswith(f"orrery.local.component {name}")
    listener = parser[f"eventlistener:{WATCH}"]
    assert (listener["autorestart"], listener["events"]) == ("true", "TICK_60")
    assert listener["command"].endswith("orrery.local.watch")
    assert parser["unix_http_server"]["chmod"] == "0600"
    assert "inet_http_server" not in parser


def test_control_socket_goes_to_a_short_private_place_if_the_path_is_deep(tmp_path: Path) -> None:
    short = Layout(Path("/p"), Path("/p/s"))
    assert control.socket_path(short, None) == "/p/s/run/supervisor.sock"
    deep = Layout(tmp_path, tmp_path / ("deep" * 30))
    chosen = Path(control.socket_path(deep, None))
    try:
        assert len(str(chosen)) < 100
        assert stat.S_IMODE(chosen.parent.stat().st_mode) == 0o700
        assert control.socket_path(deep, str(chosen)) == str(chosen)
        chosen.parent.chmod(0o755)  # no longer private: another one
        other = Path(control.socket_path(deep, str(chosen)))
        assert other != chosen
        other.parent.rmdir()
    finally:
        chosen.parent.rmdir()


def test_no_supervisor_is_not_reachable(tmp_path: Path) -> None:
    assert not control.Supervisor(str(tmp_path / "none.sock")).reachable()


# --- history ---

LOG = """\
2026-01-01 10:00:00,000 INFO supervisord started with pid 1
2026-01-01 10:00:01,000 WARN exited: scheduler (exit status 1; not expected)
2026-01-02 10:00:00,000 INFO supervisord started with pid 2
2026-01-02 10:00:01,000 INFO spawned: 'scheduler' with pid 3
2026-01-02 10:00:02,000 WARN exited: scheduler (terminated by SIGKILL; not expected)
2026-01-02 10:00:03,000 INFO exited: scheduler (exit status 0; expected)
2026-01-02 10:00:04,000 WARN exited: api-server (terminated by SIGSEGV (core dumped); not expected)
2026-01-02 10:00:05,000 INFO stopped: triggerer (exit status 0)
"""


def test_history_counts_unwanted_ends_since_the_last_start() -> None:
    found = history.parse(LOG.splitlines())
    assert found == {
        "scheduler": history.Deaths(2, "exit status 0 at 2026-01-02 10:00:03"),
        "api-server": history.Deaths(1, "terminated by SIGSEGV (core dumped) at 2026-01-02 10:00:04"),
    }


def test_history_reads_the_rotated_log_first(tmp_path: Path) -> None:
    log = tmp_path / "supervisor.log"
    lines = LOG.splitlines(keepends=True)
    (tmp_path / "supervisor.log.1").write_text("".join(lines[:5]))
    log.write_text("".join(lines[5:]))
    assert history.read(log)["scheduler"].count == 2
    assert history.read(tmp_path / "none.log") == {}


# --- processes ---


def test_only_marked_processes_are_found_and_ended(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"]
    marked = {**os.environ, processes.STACK: str(tmp_path), processes.COMPONENT: "scheduler"}
    other = {**os.environ, processes.STACK: str(tmp_path) + "-other"}
    with (
        subprocess.Popen(sleeper, env=marked, stdout=subprocess.PIPE) as ours,
        subprocess.Popen(sleeper, env=other, stdout=subprocess.PIPE) as theirs,
    ):
        try:
            for process in (ours, theirs):
                assert process.stdout is not None
                process.stdout.readline()
            assert [found.pid for found in processes.find(str(tmp_path))] == [ours.pid]
            assert processes.find(str(tmp_path), "triggerer") == []
            assert processes.end(processes.find(str(tmp_path)), grace=10) == []
            assert processes.alive(psutil.Process(theirs.pid))
        finally:
            ours.kill()
            theirs.kill()


# --- errors ---


def test_failed_component_error_shows_its_log(tmp_path: Path) -> None:
    log = tmp_path / "api-server.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))
    text = str(errors.with_log("api-server keeps dying", log, "look"))
    assert "line 99" in text
    assert "line 79" not in text
    assert str(log) in text


def test_full_disk_in_a_log_becomes_the_advice(tmp_path: Path) -> None:
    log = tmp_path / "postgres.log"
    log.write_text("FATAL: could not write: No space left on device\n")
    assert "the disk is full" in str(errors.with_log("PostgreSQL does not start", log, "look"))


def test_state_directory_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StackError, match="state directory cannot be written"):
        Stack(tmp_path, tmp_path / "state").up()


def test_questions_to_a_stack_that_was_never_started(tmp_path: Path) -> None:
    stack = Stack(tmp_path, tmp_path / "state")
    assert stack.info() is None
    assert {status.state for status in stack.status()} == {"stopped"}
    stack.down()
    with pytest.raises(StackError, match="never started"):
        stack.warehouse_dsn("loader")
    assert not (tmp_path / "state").exists()
