"""Is Airflow well? Asked over HTTP on loopback; and the first calls that warm a cold api-server up."""

from __future__ import annotations

import http.client
import json
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

from orrery.local.layout import HOST

# The name in Airflow's health report for each component.
_REPORTED: Final = {"scheduler": "scheduler", "dag-processor": "dag_processor", "triggerer": "triggerer"}


def request(
    port: int,
    method: str,
    path: str,
    *,
    body: object = None,
    token: str | None = None,
    seconds: float = 10,
) -> tuple[int, Any]:
    """Call the api-server; return the status and the decoded JSON (None if it is none). Raises OSError."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    connection = http.client.HTTPConnection(HOST, port, timeout=seconds)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        text = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"no valid answer: {error}") from error
    finally:
        connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, None


def unhealthy(port: int, since: float) -> dict[str, str]:
    """What is not well yet, by component, in words; empty when all is well.

    A heartbeat counts when it is younger than `since` (seconds since the epoch; 0: Airflow's own rule,
    30 seconds), so that a part's predecessor does not vouch for it.
    """
    try:
        status, report = request(port, "GET", "/api/v2/monitor/health", seconds=5)
    except OSError as error:
        return {"api-server": f"does not answer on port {port}: {error}"}
    if status != 200 or not isinstance(report, dict):
        return {"api-server": f"answers {status} on port {port}"}
    found = {}
    if report.get("metadatabase", {}).get("status") != "healthy":
        found["postgres"] = "cannot be reached by the api-server"
    for component, name in _REPORTED.items():
        entry = report.get(name) or {}
        if entry.get("status") != "healthy":
            found[component] = f"reports {entry.get('status') or 'nothing'}"
        elif _heartbeat(report, name) < since:
            found[component] = "has not reported yet"
    return found


def heartbeats(port: int) -> dict[str, float]:
    """When each part was last heard of, in seconds since the epoch; empty without a database.

    Raises OSError.
    """
    _, report = request(port, "GET", "/api/v2/monitor/health", seconds=30)
    if not isinstance(report, dict) or (report.get("metadatabase") or {}).get("status") != "healthy":
        return {}
    return {component: _heartbeat(report, name) for component, name in _REPORTED.items()}


def _heartbeat(report: dict[str, Any], name: str) -> float:
    found = (report.get(name) or {}).get(f"latest_{name}_heartbeat")
    try:
        return datetime.fromisoformat(str(found)).timestamp()
    except ValueError:
        return 0.0


def login(port: int, password: str) -> str | None:
    """Return an access token for `admin`, or None when the api-server gives none. Raises OSError."""
    credentials = {"username": "admin", "password": password}
    status, answer = request(port, "POST", "/auth/token", body=credentials, seconds=60)
    return str(answer["access_token"]) if status == 201 and isinstance(answer, dict) else None


def warm_up(port: int, password: str) -> None:
    """Make the first, slow calls (they load code), so that no task and no user has to wait for them."""
    with suppress(OSError):
        request(port, "GET", "/execution/health", seconds=60)
        # Without a valid token this changes nothing, but it builds the routes that tasks use.
        nobody = "00000000-0000-0000-0000-000000000000"
        request(port, "PATCH", f"/execution/task-instances/{nobody}/run", body={}, seconds=60)
        token = login(port, password)
        if token:
            request(port, "GET", "/api/v2/dags?limit=1", token=token, seconds=60)
