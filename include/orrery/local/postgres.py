"""The embedded PostgreSQL: creating the cluster, its configuration, and waiting for it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2

from orrery.local import pgwheel
from orrery.local.environment import setup_env
from orrery.local.errors import StackError, with_log
from orrery.local.layout import HOST, POSTGRES, SETUP, Layout, write_private
from orrery.local.state import Secrets

_SETTINGS = """\
# Written by every `./orrery up`; changes made here are lost.
listen_addresses = '{host}'
port = {port}
unix_socket_directories = ''       # no way in without a password
password_encryption = scram-sha-256
max_connections = 150              # Airflow's pools (4 parts and the workers) and dbt's threads
shared_buffers = 128MB
jit = off                          # costs more than it brings on queries of this size
wal_level = minimal                # nobody replicates; filling a new table then skips the log
max_wal_senders = 0
client_connection_check_interval = 2s   # a killed dbt's queries end, too
log_line_prefix = '%m [%p] %q%u@%d '
log_timezone = 'UTC'
timezone = 'UTC'
datestyle = 'iso, mdy'
default_text_search_config = 'pg_catalog.english'
"""
_ACCESS = "host all all {host}/32 scram-sha-256\n"


def configure(layout: Layout, port: int) -> None:
    """Write PostgreSQL's configuration, beside its data and without secrets. Raises OSError."""
    owner = pgwheel.account()
    for path, text in (
        (layout.postgres_conf, _SETTINGS.format(host=HOST, port=port)),
        (layout.postgres / "pg_hba.conf", _ACCESS.format(host=HOST)),
    ):
        write_private(path, text)
        if owner:
            os.chown(path, owner.uid, owner.gid)


def command(layout: Layout) -> list[str]:
    """The server's command line; it holds no secret."""
    return [
        str(pgwheel.program("postgres")),
        "-D",
        str(layout.pgdata),
        "-c",
        f"config_file={layout.postgres_conf}",
        "-c",
        f"hba_file={layout.postgres / 'pg_hba.conf'}",
    ]


def ensure_cluster(layout: Layout, keys: Secrets, report: Callable[[str], None]) -> None:
    """Create the cluster unless it is there. It gets its name when it is complete: a kill leaves no half.

    A cluster of another PostgreSQL version, or a failing initdb: StackError. Raises OSError.
    """
    version = layout.pgdata / "PG_VERSION"
    if version.exists():
        found = version.read_text(encoding="utf-8").strip()
        if found != str(pgwheel.MAJOR):
            raise StackError(
                f"the database was made by PostgreSQL {found}, this is PostgreSQL {pgwheel.MAJOR}\n"
                f"  at: {layout.pgdata}\n  fix: dump it with the older Orrery, then delete {layout.state}"
            )
        return
    report("creating the database cluster")
    unfinished = layout.postgres / "data.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    password = layout.postgres / "password"
    write_private(password, keys.postgres + "\n")
    owner = pgwheel.account()
    if owner:
        os.chown(password, owner.uid, owner.gid)
    try:
        # One locale for everybody: sorting must not depend on the machine.
        result = pgwheel.run(
            "initdb",
            f"--pgdata={unfinished}",
            "--username=postgres",
            f"--pwfile={password}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            env=setup_env(layout),
            cwd=layout.postgres,
        )
    finally:
        password.unlink(missing_ok=True)
    log = layout.log(SETUP)
    with log.open("a", encoding="utf-8") as file:
        file.write(result.stdout)
    if result.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise with_log("PostgreSQL's initdb failed", log, f"see the message above; state in {layout.state}")
    unfinished.rename(layout.pgdata)


def clear_stale_pid(data: Path) -> None:
    """Remove `postmaster.pid` once no server works in `data`.

    PostgreSQL would refuse to start if the old number had meanwhile gone to another process of its user.
    """
    (data / "postmaster.pid").unlink(missing_ok=True)


def dsn(role: str, password: str, database: str, port: int) -> str:
    """A libpq URL; `password` needs no quoting because the stack's passwords are hexadecimal."""
    return f"postgresql://{role}:{password}@{HOST}:{port}/{database}"


def wait_ready(layout: Layout, keys: Secrets, port: int, failing: Callable[[], bool], seconds: float) -> None:
    """Wait until the server accepts the superuser. Not within `seconds`, or `failing()`: StackError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            psycopg2.connect(dsn("postgres", keys.postgres, "postgres", port), connect_timeout=5).close()
            return
        except psycopg2.OperationalError as error:
            if "password authentication failed" in str(error):
                raise StackError(
                    f"the database rejects the stack's own password\n  at: {layout.secrets}\n"
                    f"  fix: restore that file, or start afresh: ./orrery down, then delete {layout.state}"
                ) from error
        if failing() or time.monotonic() > deadline:
            raise with_log(
                "PostgreSQL does not start",
                layout.log(POSTGRES),
                "see the last lines above, then ./orrery up",
            )
        time.sleep(0.05)
