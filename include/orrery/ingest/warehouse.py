"""The connection with which files are loaded."""

from __future__ import annotations

from typing import Any

import psycopg2

from orrery.ingest.connections import require

CONNECTION = "warehouse_loader"


def connect() -> Any:
    """A psycopg2 connection as the role that writes the landing schema.

    Raises SetupError when Airflow does not know the connection, psycopg2.OperationalError when nobody
    answers.
    """
    known = require(CONNECTION, "postgres://user:password@host:5432/database")
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
