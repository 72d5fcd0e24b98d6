"""What Airflow's api-server answers about a run: each of its routes, and the pages of its plugins."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Any
from urllib.parse import quote, urldefrag, urljoin

from support.airflow import Airflow

# In place of what a route asks for; a value that fits nothing is answered with an error, which is read, too.
_OTHERS = {"map_index": ("-1",), "xcom_key": ("dbt", "return_value"), "try_number": ("1",)}
_LINK = re.compile(r'(?:href|src|action)="([^"#]+)')
_MOST_PAGES = 300
# What a page says instead of what the ledger holds.
LATE = re.compile(r"The warehouse (takes too long|does not answer)")
Answer = tuple[str, int, bytes]


def routes() -> list[str]:
    """The paths of what can be asked for, of the API and of the web interface."""
    from airflow.api_fastapi.core_api.routes.public import public_router
    from airflow.api_fastapi.core_api.routes.ui import ui_router

    found: list[str] = [
        route.path
        for router in (public_router, ui_router)
        for route in router.routes
        if "GET" in getattr(route, "methods", ())
    ]
    # These would end the session.
    return [path for path in found if "/auth/" not in path]


def answers_about(airflow: Airflow, dag_id: str, run_id: str, connections: list[str]) -> Iterator[Answer]:
    """Everything that is answered about a run: path, status, content."""
    states = airflow.states(dag_id, run_id)
    values: dict[str, tuple[str, ...]] = {
        **_OTHERS,
        **dict.fromkeys(("task_try_number",), _OTHERS["try_number"]),
        **dict.fromkeys(("dag_run_id", "run_id"), (run_id,)),
        "dag_id": (dag_id,),
        "task_id": tuple(states),
        "connection_id": tuple(connections),
        "file_token": tuple(airflow.get(f"/dags/{dag_id}")[key] for key in ("file_token",)),
    }
    for path in routes():
        names = re.findall(r"{(\w+)(?::path)?}", path)
        for chosen in product(*(values.get(name, ("1",)) for name in names)):
            told = dict(zip(names, chosen, strict=True))
            filled = re.sub(r"{(\w+)(?::path)?}", lambda name: quote(told[name[1]], safe=""), path)  # noqa: B023
            # What a route does not know, it does not mind.
            asked = {"dag_id": dag_id, "run_id": run_id, "full_content": "true", "limit": "100"}
            yield (filled, *airflow.ask(filled, asked))


def pages_of_plugins(airflow: Airflow) -> Iterator[Answer]:
    """The pages of plugins, as far as links lead from one to the next."""
    plugins: list[dict[str, Any]] = airflow.get("/plugins")["plugins"]
    prefixes = [app["url_prefix"] for plugin in plugins for app in plugin["fastapi_apps"]]
    starts = [view["href"] for plugin in plugins for view in plugin["external_views"]]
    waiting = [*(f"{prefix}/" for prefix in prefixes), *starts]
    seen: set[str] = set()
    while waiting and len(seen) < _MOST_PAGES:
        path = urldefrag(waiting.pop(0)).url
        if path in seen or not path.startswith(tuple(prefixes)):
            continue
        seen.add(path)
        status, content = airflow.ask(path)
        yield path, status, content
        # What is published is searched where it lies; only pages link to others.
        if content.lstrip()[:1] == b"<" and len(content) < 1 << 20:
            waiting += [urljoin(path, link) for link in _LINK.findall(content.decode(errors="replace"))]
