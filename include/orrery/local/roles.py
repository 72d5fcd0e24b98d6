"""Who may do what in the databases `airflow` and `warehouse`. Repeated at every start, changing nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import encrypt_password
from psycopg2.sql import SQL, Identifier, Literal

from orrery.local.postgres import dsn
from orrery.local.state import Secrets

_WAREHOUSE = """
revoke all on database warehouse from public;
revoke all on schema public from public;
grant connect, temporary on database warehouse to loader;
grant connect, temporary, create on database warehouse to transformer;
create schema if not exists landing authorization loader;
grant usage on schema landing to transformer;
grant select on all tables in schema landing to transformer;
alter default privileges for role loader in schema landing grant select on tables to transformer;
"""


@contextmanager
def _connected(keys: Secrets, database: str, port: int) -> Iterator[Connection]:
    link = psycopg2.connect(dsn("postgres", keys.postgres, database, port), connect_timeout=10)
    link.autocommit = True  # databases cannot be created inside a transaction
    try:
        yield link
    finally:
        link.close()


def ensure_roles(keys: Secrets, port: int) -> None:
    """Create roles and databases where missing, and grant what DESIGN.md, section 5, says.

    `loader` owns the schema `landing`; `transformer` reads it and makes schemas of its own; neither
    reaches Airflow's database. Raises psycopg2.Error.
    """
    with _connected(keys, "postgres", port) as link, link.cursor() as cursor:
        cursor.execute("select rolname from pg_roles")
        roles = {name for (name,) in cursor.fetchall()}
        for role in ("airflow", "loader", "transformer"):
            if role not in roles:
                # Hashed on this side, so that the password never shows in the server's log.
                verifier = encrypt_password(getattr(keys, role), role, link, "scram-sha-256")
                cursor.execute(
                    SQL("create role {} login password {}").format(Identifier(role), Literal(verifier))
                )
        cursor.execute("select datname from pg_database")
        databases = {name for (name,) in cursor.fetchall()}
        if "airflow" not in databases:
            cursor.execute("create database airflow owner airflow")
        if "warehouse" not in databases:
            cursor.execute("create database warehouse")
        cursor.execute("revoke all on database airflow from public")
        cursor.execute("revoke connect on database postgres from public")
    with _connected(keys, "warehouse", port) as link, link.cursor() as cursor:
        cursor.execute(_WAREHOUSE)


def migration(keys: Secrets, port: int) -> str | None:
    """The revision that Airflow's database is at; None when it was never (or half) migrated."""
    with _connected(keys, "airflow", port) as link, link.cursor() as cursor:
        cursor.execute("select to_regclass('public.alembic_version')")
        row = cursor.fetchone()
        if row is None or row[0] is None:
            return None
        cursor.execute("select min(version_num) from alembic_version")
        row = cursor.fetchone()
        return str(row[0]) if row and row[0] else None


def reset_airflow(keys: Secrets, port: int) -> None:
    """Give Airflow an empty database, for when a first migration was interrupted."""
    with _connected(keys, "postgres", port) as link, link.cursor() as cursor:
        cursor.execute("drop database airflow with (force)")
        cursor.execute("create database airflow owner airflow")
        cursor.execute("revoke all on database airflow from public")
