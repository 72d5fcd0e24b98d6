"""Resources of a dbt manifest, written by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Resource = dict[str, Any]


def resource(kind: str, name: str, parents: Iterable[str] = (), **more: Any) -> Resource:
    """A resource of the package `shop` as dbt writes it; `parents` are unique ids."""
    package = more.pop("package", "shop")
    found: Resource = {
        "unique_id": f"{kind}.{package}.{name}",
        "resource_type": kind,
        "name": name.rpartition(".")[2],
        "package_name": package,
        "original_file_path": f"{kind}s/{name}.sql",
        "fqn": [package, *name.split(".")],
        "tags": [],
        "description": "",
        "config": {},
        "columns": {},
        "depends_on": {"nodes": list(parents)},
    }
    if kind == "source":
        del found["depends_on"]
        found["source_name"] = name.partition(".")[0]
    if kind == "seed":
        # dbt gives seeds macros to depend on, and no nodes.
        found["depends_on"] = {"macros": []}
    return {**found, **more}


def full_manifest(*resources: Resource, groups: Iterable[Resource] = ()) -> Resource:
    """A manifest that holds `resources`, in the shape of dbt's manifest.json."""
    names = {"source": "sources", "unit_test": "unit_tests", "function": "functions"}
    sections: dict[str, dict[str, Resource]] = {"nodes": {}, **{name: {} for name in names.values()}}
    for item in resources:
        section = names.get(item["resource_type"], "nodes")
        sections[section][item["unique_id"]] = item
    return {
        "metadata": {"dbt_version": "1.11", "project_name": "shop", "adapter_type": "postgres"},
        "groups": {f"group.shop.{group['name']}": group for group in groups},
        **sections,
    }
