"""The connection with which files are loaded."""

from __future__ import annotations

from typing import Any

import psycopg2
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from orrery.ingest.errors import SetupError

CONNECTION = "warehouse_loader"


def connect() -> Any:
    """A psycopg2 connection as the role that writes the landing schema.

    Raises SetupError when Airflow does not know the connection, psycopg2.OperationalError when nobody
    answers.
    """
    try:
        known = Connection.get(CONNECTION)
    except AirflowNotFoundException:
        raise SetupError(
            f"Airflow has no connection {CONNECTION!r}, with which files are loaded into the warehouse.\n"
            f"  Set AIRFLOW_CONN_{CONNECTION.upper()}=postgres://user:password@host:5432/database"
        ) from None
    return psycopg2.connect(
        host=known.host,
        port=known.port or 5432,
        user=known.login,
        password=known.password,
        dbname=known.schema,
        application_name="orrery ingest",
        connect_timeout=30,
        keepalives_idle=30,
        **known.extra_dejson,
    )
