"""Airflow connections that have to be there."""

from __future__ import annotations

import base64
from urllib.parse import urlsplit

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException
from airflow.sdk.log import mask_secret

from orrery.ingest.errors import SetupError

# What is as long as that in the path of a URL may be a token, as in those of webhooks.
_TOKEN = 16


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


def hide(connection: Connection) -> None:
    """Have Airflow mask what of a connection over HTTP is secret in the forms in which it is sent, too."""
    url = urlsplit(str(connection.host or ""))
    secrets = [part for part in url.path.split("/") if len(part) >= _TOKEN]
    pairs = ((connection.login, connection.password), (url.username, url.password))
    for login, password in pairs:
        if password:
            secrets += [password, base64.b64encode(f"{login or ''}:{password}".encode()).decode()]
    for secret in secrets:
        mask_secret(secret)
