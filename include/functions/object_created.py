"""A cloud function: a new object starts the pipeline that loads it.

AWS Lambda calls `handler` with the notification of an S3 bucket; nothing but Python's standard library
is needed. Its settings are environment variables:

    AIRFLOW_URL       such as https://airflow.example.com
    PIPELINE          the pipeline to start, such as events_batch
    AIRFLOW_TOKEN     a token of Airflow's API, or else AIRFLOW_USERNAME and AIRFLOW_PASSWORD

S3 may deliver a notification more than once. A run is named after the object and its content, so that
Airflow refuses the second one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote_plus
from urllib.request import Request, urlopen

TIMEOUT = 20  # seconds for one answer of Airflow
_EXISTS = 409

log = logging.getLogger(__name__)


class NotStarted(Exception):
    """The pipeline could not be started; raised, so that the notification is delivered again."""


def handler(event: Mapping[str, Any], context: object) -> dict[str, list[str]]:
    """Start a run for each object of a notification.

    Returns the ids of the runs that were `started`, and of those that were `known` already. Raises
    NotStarted at the first that cannot be started.
    """
    url, pipeline = _setting("AIRFLOW_URL").rstrip("/"), _setting("PIPELINE")
    runs = f"{url}/api/v2/dags/{quote(pipeline, safe='')}/dagRuns"
    done: dict[str, list[str]] = {"started": [], "known": []}
    token = ""
    for record in event.get("Records") or []:
        # Of what a bucket tells, only this means a new object.
        if not str(record.get("eventName", "")).startswith("ObjectCreated:"):
            continue
        run_id, uri = run_of(record)
        token = token or _token(url)
        body = {"dag_run_id": run_id, "logical_date": None, "conf": {"uri": uri}}
        status, answer = _post(runs, body, token)
        if status == _EXISTS:
            log.info("%s has a run already: %s", uri, run_id)
            done["known"].append(run_id)
        elif status < 300:
            log.info("%s has started %s", uri, run_id)
            done["started"].append(run_id)
        else:
            raise NotStarted(_refusal(status, answer, pipeline, uri))
    return done


def run_of(record: Mapping[str, Any]) -> tuple[str, str]:
    """The id of the run for a record, and the URI of its object; raises NotStarted.

    The id is the same for each notification about the same content, and differs when the object is
    written again with other content.
    """
    try:
        bucket, stored = record["s3"]["bucket"]["name"], record["s3"]["object"]
        # Notifications have keys as in a query: blanks are plus signs.
        key = unquote_plus(stored["key"])
    except (KeyError, TypeError):
        raise NotStarted("This is no record of an S3 notification: it has no bucket or no key.") from None
    version = stored.get("eTag") or stored.get("sequencer") or ""
    digest = hashlib.sha256("\0".join((bucket, key, version)).encode()).hexdigest()[:16]
    # Readable as far as Airflow allows it.
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", key.rpartition("/")[2])[-100:]
    return f"object__{name}__{digest}", f"s3://{bucket}/{key}"


def _token(url: str) -> str:
    """A token of Airflow's API: the given one, or one for the given user."""
    if token := os.environ.get("AIRFLOW_TOKEN"):
        return token
    if "AIRFLOW_USERNAME" not in os.environ:
        raise NotStarted("Set AIRFLOW_TOKEN, or AIRFLOW_USERNAME and AIRFLOW_PASSWORD.")
    user = {"username": _setting("AIRFLOW_USERNAME"), "password": _setting("AIRFLOW_PASSWORD")}
    status, answer = _post(f"{url}/auth/token", user)
    if status >= 300 or not (token := answer.get("access_token")):
        raise NotStarted(f"Airflow gives no token ({status}). Check AIRFLOW_USERNAME and AIRFLOW_PASSWORD.")
    return str(token)


def _post(url: str, body: Mapping[str, Any], token: str | None = None) -> tuple[int, dict[str, Any]]:
    """Status and answer, as JSON, of a POST; raises NotStarted when nobody answers."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    try:
        request = Request(url, json.dumps(body).encode(), headers, method="POST")
        with urlopen(request, timeout=TIMEOUT) as response:
            return response.status, _json(response.read())
    except HTTPError as error:
        return error.code, _json(error.read())
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise NotStarted(f"Airflow does not answer at {url}: {reason}. Check AIRFLOW_URL.") from None
    except ValueError:
        # The error would tell the token.
        raise NotStarted("AIRFLOW_URL is no URL, or AIRFLOW_TOKEN has a line break in it.") from None


def _json(content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}


def _refusal(status: int, answer: Mapping[str, Any], pipeline: str, uri: str) -> str:
    """What to tell about an answer that is no success."""
    hints = {
        401: "Check AIRFLOW_TOKEN, or AIRFLOW_USERNAME and AIRFLOW_PASSWORD.",
        403: f"Let the user create runs of {pipeline!r}.",
        404: f"Check PIPELINE: Airflow has no pipeline {pipeline!r}.",
    }
    hint = hints.get(status) or f"Airflow says: {answer.get('detail') or 'nothing'}."
    return f"Airflow did not start {pipeline!r} for {uri} ({status}). {hint}"


def _setting(name: str) -> str:
    if not (value := os.environ.get(name)):
        raise NotStarted(f"The environment variable {name} is not set.")
    return value
