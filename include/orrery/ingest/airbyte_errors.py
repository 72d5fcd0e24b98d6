"""What Airbyte says when something is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urljoin

import httpx
from airbyte_api import errors
from airflow.providers.airbyte.hooks.airbyte import AirbyteHook
from airflow.sdk.exceptions import AirflowException

from orrery.config.airbyte import Airbyte
from orrery.ingest.errors import IngestError, SetupError

# Asking why a job has failed must not hold up saying that it has.
_REASON_SECONDS = 10.0


class SyncRunsError(IngestError):
    """A sync of the connection is running."""


@contextmanager
def reached(block: Airbyte) -> Iterator[None]:
    """Turn the errors of Airbyte's client into those of an ingestion."""
    who = f"the Airflow connection {block.connection!r}"
    try:
        yield
    except Exception as error:
        # The hook puts what it catches into an error of its own.
        cause = error.args[0] if isinstance(error, AirflowException) and error.args else error
        if isinstance(cause, errors.AirbyteAPIError):
            status, said = cause.status_code, _said(cause.body)
            if status == 409:
                raise SyncRunsError(said) from None
            if status == 404:
                raise SetupError(
                    f"Airbyte knows nothing of {block.airbyte!r} ({said}).\n"
                    f"  Correct its id, or the server URL of {who}, which ends with /api/public/v1."
                ) from None
            if status not in (401, 403):
                raise IngestError(f"Airbyte refuses ({status}: {said}).\n  Try again.") from None
        elif "token endpoint" not in str(cause):
            raise IngestError(
                f"Airbyte does not answer ({type(cause).__name__}: {cause}).\n"
                f"  Try again, or correct the server URL of {who}."
            ) from None
        raise SetupError(f"Airbyte refuses access.\n  Correct client id and secret of {who}.") from None


def _said(body: str) -> str:
    """What Airbyte tells in the body of an error."""
    try:
        told = json.loads(body)
        return str(told.get("detail") or told.get("message") or told.get("title"))
    except (ValueError, AttributeError):
        return body[:200]


def reason(hook: AirbyteHook, job_id: int) -> str | None:
    """Why a job has failed, where Airbyte tells: not the public API does, but the one of its own pages."""
    server, login = str(hook.conn["host"]).rstrip("/"), hook.conn["client_id"]
    if not server.endswith("/api/public/v1"):
        return None
    try:
        with httpx.Client(timeout=_REASON_SECONDS) as client:
            if login:
                form = {"client_id": login, "client_secret": hook.conn["client_secret"]}
                form["grant_type"] = "client_credentials"
                token = client.post(urljoin(f"{server}", hook.conn["token_url"]), data=form)
                client.headers["Authorization"] = f"Bearer {token.json()['access_token']}"
            answer = client.post(f"{server.removesuffix('/public/v1')}/v1/jobs/get", json={"id": job_id})
            attempts = answer.raise_for_status().json()["attempts"]
        failures = attempts[-1]["attempt"]["failureSummary"]["failures"]
        return str(failures[0]["externalMessage"])
    except (httpx.HTTPError, KeyError, IndexError, TypeError, ValueError):
        return None
