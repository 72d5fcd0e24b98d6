"""dbt's artifacts of a whole DAG run, from those that each of its commands has written."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from orrery.execute.run_folder import RESULTS, kept_results

# Of a run's folder: dbt's target folder of its docs.
DOCS_FOLDER = "docs"


def read_artifacts(folder: Path) -> dict[str, bytes]:
    """The artifacts in the folder of a run, by name; those that are not there are left out."""
    found = {}
    for name in RESULTS:
        document = merged(json.loads(path.read_bytes()) for path in kept_results(folder, name))
        if document is not None:
            found[name] = json.dumps(document).encode()
    # What a build has written knows the SQL that it ran.
    for name, parents in {
        "manifest.json": (folder, folder / DOCS_FOLDER),
        "catalog.json": (folder / DOCS_FOLDER,),
    }.items():
        path = next((parent / name for parent in parents if (parent / name).is_file()), None)
        if path is not None:
            found[name] = path.read_bytes()
    return found


def merged(documents: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """One run_results.json, or sources.json, of several; None without any.

    Of each node the last result counts; the seconds of all commands are added up. What describes a command
    (its arguments, its invocation) is that of the last one.

    :param documents: the oldest first; one may come several times
    """
    results: dict[str, dict[str, Any]] = {}
    seconds: dict[str, float] = {}
    last: dict[str, Any] | None = None
    for last in documents:
        for result in last["results"]:
            # The order is that in which the nodes ran.
            results.pop(result["unique_id"], None)
            results[result["unique_id"]] = result
        seconds[last["metadata"]["invocation_id"]] = last["elapsed_time"]
    if last is None:
        return None
    return last | {"results": [*results.values()], "elapsed_time": sum(seconds.values())}
