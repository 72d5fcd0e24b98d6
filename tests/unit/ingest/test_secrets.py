"""What is told of failures without the secrets in it."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowException

from orrery.execute.results import RESULT_KEY
from orrery.ingest.connections import hide
from orrery.ingest.errors import IngestError, explained, without_secrets
from support.stores import Task

TOKEN = "tok.en-1234567890_abcdefgh"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"401: you sent Authorization: Bearer {TOKEN}, no", "401: you sent Authorization: Bearer ***, no"),
        (f'{{"authorization": "bearer {TOKEN}"}}', '{"authorization": "bearer ***"}'),
        ("Basic bWU6aHVzaC1odXNoLWh1c2g=", "Basic ***"),
        ("no postgres://me:hush@host/db", "no postgres://***@host/db"),
        # No secrets, and as they were.
        ("Basic authentication is off", "Basic authentication is off"),
        ("gs://my_google@bucket/a:b@c", "gs://my_google@bucket/a:b@c"),
    ],
)
def test_credentials_in_texts(text: str, told: str) -> None:
    assert without_secrets(text) == told


def test_what_of_a_connection_is_secret() -> None:
    host = "https://user:in-the-url@hooks.example.com/services/T0/4f9a0e77c1b24f0fa5b0"
    hide(Connection(conn_id="x", conn_type="http", host=host, login="me", password="a-password"))
    basic = base64.b64encode(b"me:a-password").decode()
    text = f"a-password {basic} in-the-url 4f9a0e77c1b24f0fa5b0 services T0"
    assert without_secrets(text) == "*** *** *** *** services T0"


@pytest.mark.parametrize("error", [IngestError, ValueError])
def test_an_error_is_told_without_secrets(error: type[Exception]) -> None:
    task = Task()
    context: Any = {"ti": task}
    with pytest.raises((AirflowException, ValueError)) as raised, explained(context):
        raise error(f"Bearer {TOKEN}")
    assert task.xcoms[RESULT_KEY]["message"] == "Bearer ***"
    if error is IngestError:
        assert str(raised.value) == "Bearer ***"
        # Its traceback is in the log.
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__


def test_an_error_without_secrets_shows_where_it_comes_from() -> None:
    context: Any = {"ti": Task()}
    with pytest.raises(AirflowException, match="no such file") as raised, explained(context):
        raise IngestError("no such file")
    assert isinstance(raised.value.__cause__, IngestError)
