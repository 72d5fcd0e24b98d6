"""Who may do what in the databases `airflow` and `warehouse`. Repeated at every start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import encrypt_password
from psycopg2.sql import SQL, Identifier, Literal

from orrery.local.layout import HOST

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


class Superuser:
    """The role that may create roles and databases, on one server."""

    def __init__(self, password: str, *, port: int, host: str = HOST, user: str = "postgres") -> None:
        self._server: dict[str, Any] = {"host": host, "port": port, "user": user, "password": password}

    @contextmanager
    def connected(self, database: str) -> Iterator[Connection]:
        """A connection to a database, without transactions. Raises psycopg2.OperationalError."""
        link = psycopg2.connect(**self._server, dbname=database, connect_timeout=10)
        link.autocommit = True  # databases cannot be created inside a transaction
        try:
            yield link
        finally:
            link.close()


def ensure_roles(superuser: Superuser, passwords: Mapping[str, str]) -> None:
    """Create roles and databases where missing, set the passwords, and grant what each needs.

    `loader` owns the schema `landing`; `transformer` reads it and makes schemas of its own; neither
    reaches Airflow's database. Raises psycopg2.Error.

    :param passwords: those of the roles `airflow`, `loader` and `transformer`
    """
    with superuser.connected("postgres") as link, link.cursor() as cursor:
        cursor.execute("select rolname from pg_roles")
        roles = {name for (name,) in cursor.fetchall()}
        for role, password in passwords.items():
            # Hashed on this side, so that the password never shows in the server's log.
            verifier = encrypt_password(password, role, link, "scram-sha-256")
            do = SQL("alter" if role in roles else "create")
            cursor.execute(
                SQL("{} role {} login password {}").format(do, Identifier(role), Literal(verifier))
            )
        cursor.execute("select datname from pg_database")
        databases = {name for (name,) in cursor.fetchall()}
        if "airflow" not in databases:
            cursor.execute("create database airflow owner airflow")
        if "warehouse" not in databases:
            cursor.execute("create database warehouse")
        cursor.execute("revoke all on database airflow from public")
        cursor.execute("revoke connect on database postgres from public")
    with superuser.connected("warehouse") as link, link.cursor() as cursor:
        cursor.execute(_WAREHOUSE)


def migration(superuser: Superuser) -> str | None:
    """The revision that Airflow's database is at; None when it was never (or half) migrated."""
    with superuser.connected("airflow") as link, link.cursor() as cursor:
        cursor.execute("select to_regclass('public.alembic_version')")
        row = cursor.fetchone()
        if row is None or row[0] is None:
            return None
        cursor.execute("select min(version_num) from alembic_version")
        row = cursor.fetchone()
        return str(row[0]) if row and row[0] else None


def reset_airflow(superuser: Superuser) -> None:
    """Give Airflow an empty database, for when a first migration was interrupted."""
    with superuser.connected("postgres") as link, link.cursor() as cursor:
        cursor.execute("drop database airflow with (force)")
        cursor.execute("create database airflow owner airflow")
        cursor.execute("revoke all on database airflow from public")
