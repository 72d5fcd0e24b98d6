"""The names of tasks."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Any

Resource = dict[str, Any]

# Airflow allows 250 characters, and a log file's folder has 255 bytes; the stage's name and a suffix need
# some of them.
_MAX_BYTES = 200


def unique_names(resources: list[Resource]) -> dict[str, str]:
    """A task name for every resource: its dbt name, with the package where that is not unique."""
    short = {resource["unique_id"]: _short_name(resource) for resource in resources}
    count = Counter((resource["resource_type"], short[resource["unique_id"]]) for resource in resources)
    return {
        resource["unique_id"]: _safe(
            short[resource["unique_id"]]
            if count[resource["resource_type"], short[resource["unique_id"]]] == 1
            else f"{resource['package_name']}__{short[resource['unique_id']]}"
        )
        for resource in resources
    }


def _short_name(resource: Resource) -> str:
    if resource["resource_type"] == "source":
        return f"{resource['source_name']}__{resource['name']}"
    # A versioned model is called <name>.v2 in its unique id.
    return (
        str(resource["unique_id"]).split(".", 2)[2]
        if resource["resource_type"] == "model"
        else resource["name"]
    )


def safe_name(name: str) -> str:
    """A part of a task's id for any text; it is the text itself where Airflow takes that."""
    safe = _safe(name)
    return safe if safe == name else f"{safe}_{digest(name)}"


def _safe(name: str) -> str:
    name = re.sub(r"[^\w-]", "_", name)
    whole = name.encode()
    if len(whole) <= _MAX_BYTES:
        return name
    return f"{whole[: _MAX_BYTES - 9].decode(errors='ignore')}_{digest(name)}"


def digest(text: str) -> str:
    """A few characters that tell `text` from others."""
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=4).hexdigest()
