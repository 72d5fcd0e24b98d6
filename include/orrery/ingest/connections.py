"""The connections of Airflow with which work beside dbt reaches other systems."""

from __future__ import annotations

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from orrery.ingest.errors import UnconfiguredError


def require(connection: str, example: str) -> Connection:
    """The connection of Airflow; raises UnconfiguredError when there is none.

    :param example: what the environment variable may hold, without anything secret
    """
    try:
        known: Connection = Connection.get(connection)
    except AirflowNotFoundException:
        raise UnconfiguredError(
            f"Airflow has no connection {connection!r}.\n"
            f"  Set AIRFLOW_CONN_{connection.upper()}={example}, or add it under Admin > Connections.\n"
            "  To try the pipeline without the real system: ./orrery run PIPELINE --stand-ins"
        ) from None
    return known
