"""The way up, step by step. Every step finds out what is missing, so it can be repeated after any crash."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2

from orrery.local import health, history, migration, pgwheel, ports, postgres, processes, roles, settings
from orrery.local import supervisor as control
from orrery.local.environment import base_env
from orrery.local.errors import StackError, explained, with_log
from orrery.local.layout import (
    AIRFLOW_COMPONENTS,
    API_SERVER,
    HOST,
    POSTGRES,
    SETUP,
    SUPERVISOR,
    WATCH,
    Layout,
    write_private,
)
from orrery.local.shutdown import end_leftovers, stop
from orrery.local.state import Saved, Secrets, ensure_secrets, load_saved, load_secrets, remember, save

Report = Callable[[str], None]
_HEALTHY_WITHIN = 180.0  # seconds; a cold start on two busy cores takes some 30
# Variables that a running stack keeps from its start, and those that begin with _BIGQUERY; no passwords.
_CHOSEN = frozenset(
    {
        *("DBT_PROFILES_DIR", "DBT_TARGET", "ORRERY_CI_ID", "ORRERY_DBT_PACKAGES", "ORRERY_DBT_QUEUE"),
        *("ORRERY_ELEMENTARY", "ORRERY_ENVIRONMENT", "ORRERY_LANDING_ZONE", "ORRERY_POD_IMAGE"),
        *("ORRERY_TARGET", "ORRERY_TARGET_PATH", "ORRERY_WAREHOUSE_CONNECTION"),
    }
)
_BIGQUERY = "ORRERY_BIGQUERY_"
_PACKAGE = Path(__file__).resolve().parents[1]
_HOPELESS = 3  # deaths of one component during a start


def prepare(layout: Layout) -> None:
    """Create the state directory, for its owner alone. Not possible: StackError."""
    if not layout.root.is_dir():
        raise StackError(f"there is no project\n  at: {layout.root}\n  fix: run it in the project's folder")
    with explained("the state directory cannot be written", layout.state):
        layout.state.mkdir(parents=True, exist_ok=True)
        if layout.state.stat().st_mode & 0o067:  # 0710 is right when root shares it with PostgreSQL's group
            layout.state.chmod(0o700)
        for directory in (layout.run, layout.logs, layout.airflow_home, layout.postgres):
            directory.mkdir(mode=0o700, exist_ok=True)
        (layout.state / ".gitignore").write_text("*\n", encoding="utf-8")


def start(layout: Layout, report: Report) -> bool:
    """Bring the stack up; return whether this was its first start. To be called under the lock.

    Whatever goes wrong is a StackError; then nothing is left running that this call has started.
    """
    with explained("the stack cannot be started", layout.state):
        saved = load_saved(layout)
        running = control.Supervisor(saved.control_socket) if saved else None
        if saved and running and running.reachable():
            keys = load_secrets(layout)
            if keys is None:
                raise StackError(
                    f"the stack's keys are gone\n  at: {layout.secrets}\n"
                    f"  fix: restore the file, or start afresh: ./orrery down, then delete {layout.state}"
                )
            _require_same_port(saved)
            if is_well(running, saved):
                return False
            report("repairing the running stack")
            processes.end(processes.find(layout.marker, SETUP), grace=5)
            return _complete(layout, saved, keys, running, report)
        saved, keys = _fresh(layout, saved, report)
        try:
            running = control.launch(layout, saved.control_socket, base_env(layout))
            return _complete(layout, saved, keys, running, report)
        except BaseException:
            stop(layout, saved, lambda _: None)
            raise


def is_well(running: control.Supervisor, saved: Saved) -> bool:
    """Tell whether every component runs and Airflow reports itself healthy."""
    states = {entry["statename"] for entry in running.processes().values()}
    return states == {"RUNNING"} and not health.unhealthy(saved.api_port, since=0)


def is_outdated(layout: Layout, saved: Saved, keys: Secrets) -> bool:
    """Tell whether the running processes have other settings, or another Orrery, than those of now."""
    return saved.settings != digest(layout, saved, keys)


def digest(layout: Layout, saved: Saved, keys: Secrets) -> str:
    """A fingerprint of what the processes have from their start: configuration, variables, our code."""
    text = settings.render(layout, saved, keys) + control.render(layout, saved.control_socket)
    chosen = [
        (name, value)
        for name, value in sorted(os.environ.items())
        if value and (name in _CHOSEN or name.startswith(_BIGQUERY))
    ]
    code = [
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(_PACKAGE.rglob("*.py"))
    ]
    return hashlib.sha256(f"{text}{chosen}{code}".encode()).hexdigest()


def _require_same_port(saved: Saved) -> None:
    wanted = ports.requested_api_port(saved.api_port)
    if wanted != saved.api_port:
        raise StackError(
            f"the stack runs on port {saved.api_port} already, ORRERY_PORT asks for {wanted}\n"
            f"  at: http://{HOST}:{saved.api_port}\n"
            f"  fix: ./orrery down && ORRERY_PORT={wanted} ./orrery up"
        )


def _fresh(layout: Layout, before: Saved | None, report: Report) -> tuple[Saved, Secrets]:
    """Clear away an earlier stack's rest, choose ports, write all files."""
    end_leftovers(layout, report)
    api_port = ports.requested_api_port(before.api_port if before else None)
    ports.require_free(api_port)
    port = before.postgres_port if before else 0
    if not port or port == api_port or not ports.is_free(port):
        port = ports.find_free(frozenset({api_port}))
    keys = ensure_secrets(layout)
    saved = Saved(
        api_port=api_port,
        postgres_port=port,
        control_socket=control.socket_path(layout, before.control_socket if before else None),
        airflow_version=before.airflow_version if before else None,
        migration=before.migration if before else None,
    )
    save(layout, saved)
    write_private(layout.airflow_cfg, settings.render(layout, saved, keys))
    write_private(layout.passwords, f'{{"admin": "{keys.admin}"}}\n')
    write_private(layout.supervisord_conf, control.render(layout, saved.control_socket))
    for line in pgwheel.give_access(layout.state, layout.postgres):
        report(line)
    postgres.configure(layout, port)
    return remember(layout, saved, settings=digest(layout, saved, keys)), keys


def _complete(
    layout: Layout, saved: Saved, keys: Secrets, running: control.Supervisor, report: Report
) -> bool:
    """From a running supervisord to a healthy stack; return whether Airflow's database is new."""
    deaths = _Deaths(layout)
    since = time.time()
    states = running.processes()
    restarted = [name for name in AIRFLOW_COMPONENTS if states[name]["statename"] != "RUNNING"]
    postgres.ensure_cluster(layout, keys, report)
    report("starting PostgreSQL")
    running.start(POSTGRES)
    postgres.wait_ready(layout, keys, saved.postgres_port, lambda: deaths.hopeless(POSTGRES), 60)
    first = saved.migration is None
    try:
        superuser = roles.Superuser(keys.postgres, port=saved.postgres_port)
        roles.ensure_roles(
            superuser, {"airflow": keys.airflow, "loader": keys.loader, "transformer": keys.transformer}
        )
        if first:
            # It takes the longest to start and does without tables until it is asked something.
            running.start(API_SERVER)
        saved = migration.migrate(layout, saved, superuser, report)
    except psycopg2.Error as error:
        what = f"the databases cannot be set up: {str(error).strip()}"
        raise with_log(what, layout.log(POSTGRES), "see the last lines above, then ./orrery up") from error
    report("starting Airflow")
    for name in (*AIRFLOW_COMPONENTS, WATCH):
        running.start(name)
    all_new = len(restarted) == len(AIRFLOW_COMPONENTS)
    _wait_healthy(layout, saved, keys, deaths, since if all_new else 0)
    return first


class _Deaths:
    """How often components died since this start began."""

    def __init__(self, layout: Layout) -> None:
        self._log = layout.log(SUPERVISOR)
        self._before = history.read(self._log)

    def hopeless(self, name: str) -> bool:
        now = history.read(self._log).get(name, history.Deaths()).count
        before = self._before.get(name, history.Deaths()).count
        # A new supervisord starts a new count.
        return (now - before if now >= before else now) >= _HOPELESS


def _wait_healthy(layout: Layout, saved: Saved, keys: Secrets, deaths: _Deaths, since: float) -> None:
    deadline = time.monotonic() + _HEALTHY_WITHIN
    cold = True
    while True:
        missing = health.unhealthy(saved.api_port, since)
        if cold and API_SERVER not in missing:
            health.warm_up(saved.api_port, keys.admin)  # while the others are still starting
            cold = False
        if not missing:
            return
        hopeless = [name for name in AIRFLOW_COMPONENTS if deaths.hopeless(name)]
        if hopeless or time.monotonic() > deadline:
            name = hopeless[0] if hopeless else next(iter(missing))
            why = "keeps dying" if hopeless else missing[name]
            raise with_log(f"{name} {why}", layout.log(name), "see the last lines above, then ./orrery up")
        time.sleep(0.1)
