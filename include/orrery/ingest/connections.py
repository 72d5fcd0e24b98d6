"""The Airflow connections that tasks need."""

from __future__ import annotations

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from orrery.ingest.errors import IngestError


def require(conn_id: str, example_uri: str) -> Connection:
    """The connection; raises IngestError when Airflow does not have it.

    :param example_uri: what could stand in the environment variable, for the message
    """
    try:
        found: Connection = Connection.get(conn_id)
    except AirflowNotFoundException:
        raise IngestError(
            f"Airflow has no connection {conn_id!r}.\n"
            f"  Set AIRFLOW_CONN_{conn_id.upper()}={example_uri}\n"
            "  or try the pipeline with stand-ins: ./orrery run <pipeline> --stand-ins"
        ) from None
    return found
