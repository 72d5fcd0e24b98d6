"""Airflow connections that have to be there."""

from __future__ import annotations

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from orrery.ingest.errors import SetupError


def require(conn_id: str, example_uri: str) -> Connection:
    """The Airflow connection `conn_id`.

    :param example_uri: what such a connection looks like, for the error
    Raises SetupError when Airflow has none of this name.
    """
    try:
        found: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        raise SetupError(
            f"Airflow has no connection {conn_id!r}.\n"
            f"  Set AIRFLOW_CONN_{conn_id.upper()}='{example_uri}'\n"
            "  or try the pipeline with stand-ins: ./orrery run <pipeline> --stand-ins"
        ) from None
    return found


def base_url(connection: Connection) -> str:
    """The URL of a connection of type http."""
    host = str(connection.host or "")
    base = host if "://" in host else f"{connection.schema or 'http'}://{host}"
    return f"{base}:{connection.port}" if connection.port else base
