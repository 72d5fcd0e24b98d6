"""The names of tasks."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from typing import Any

Resource = dict[str, Any]

# Airflow allows 250 characters; the stage's name and a suffix need some of them.
_MAX_NAME = 200


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


def selector(resource: Resource) -> str:
    """What selects a resource, and no other, in dbt's syntax."""
    match resource["resource_type"]:
        case "source":
            return f"source:{resource['package_name']}.{resource['source_name']}.{resource['name']}"
        case "exposure":
            return f"exposure:{resource['package_name']}.{resource['name']}"
        case _:
            return "fqn:" + ".".join(resource["fqn"])


def _safe(name: str) -> str:
    name = re.sub(r"[^\w-]", "_", name)
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 9]}_{digest(name)}"


def digest(text: str) -> str:
    """A few characters that tell `text` from others."""
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
