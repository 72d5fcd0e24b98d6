"""Is the service of this container well? `python -m orrery.deploy.health COMPONENT`; exit code 0 or 1.

It runs every few seconds in every container, so it imports nothing of Airflow, which would cost seconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request
from typing import Any

_SECONDS = 5
# By no proxy: Docker may name one to all containers, and it does not know where they are.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# Their answer is their status, 200 or another one, and nothing more.
_PAGES = {"scheduler": "http://127.0.0.1:8974/health", "flower": "http://127.0.0.1:5555/healthcheck"}
# Celery's workers serve the logs of their tasks there, from a process of their own main process.
_WORKER_PORT = 8793
# The name in Airflow's health report for each component that has no door of its own.
_REPORTED = {"dag-processor": "dag_processor", "triggerer": "triggerer"}


def problem(component: str) -> str | None:
    """What is wrong with the component, in words; None when it is well."""
    try:
        if component == "worker":
            socket.create_connection(("127.0.0.1", _WORKER_PORT), timeout=_SECONDS).close()
            return None
        if component in _PAGES:
            _OPENER.open(_PAGES[component], timeout=_SECONDS).close()
            return None
        report = _get(f"{_api_server()}/api/v2/monitor/health")
    except (OSError, ValueError) as error:
        return str(error)
    return _unhealthy(report, _REPORTED.get(component, "metadatabase"))


def _api_server() -> str:
    url = os.environ.get("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:8080/execution/")
    return url.removesuffix("/").removesuffix("/execution")


def _get(url: str) -> Any:
    with _OPENER.open(url, timeout=_SECONDS) as response:
        return json.load(response)


def _unhealthy(report: dict[str, Any], name: str) -> str | None:
    status = (report.get(name) or {}).get("status")
    return None if status == "healthy" else f"{name}: {status or 'no report'}"


def main() -> None:
    """Exit with 1, and say why, when the component is not well."""
    found = problem(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("ORRERY_COMPONENT", "api-server"))
    if found is not None:
        sys.exit(found)


if __name__ == "__main__":
    main()
