"""What the resources of a dbt project are to those that refer to them.

Where that changes, it is not enough to parse the files of a resource again.
"""

from __future__ import annotations

from typing import Any

# What nobody else knows of a node. Of everything else, others may know.
OWN = frozenset(
    {
        *("checksum", "columns", "compiled", "compiled_code", "compiled_path", "config", "config_call_dict"),
        *("created_at", "depends_on", "description", "doc_blocks", "docs", "extra_ctes", "functions", "meta"),
        *("extra_ctes_injected", "metrics", "raw_code", "refs", "sources", "tags", "unrendered_config"),
        "unrendered_config_call_dict",
    }
)
KINDS = (
    *("disabled", "exposures", "functions", "groups", "metrics", "nodes", "saved_queries", "semantic_models"),
    *("sources", "unit_tests"),
)

# By kind and unique id: the files that make a resource, and what others may know of it.
Outline = dict[tuple[str, str], tuple[frozenset[str], Any]]


def outline(manifest: Any) -> Outline:
    """The outline of a manifest of dbt's, without tests and hooks, to which nobody refers."""
    return {
        (kind, uid): _of(kind, found)
        for kind in KINDS
        for uid, found in getattr(manifest, kind).items()
        if not uid.startswith(("test.", "operation."))
    }


def _of(kind: str, found: Any) -> tuple[frozenset[str], Any]:
    # Several resources that are disabled may have the same id.
    each = found if kind == "disabled" else [found]
    files = {path for one in each for path in (one.file_id, getattr(one, "patch_path", None)) if path}
    known = kind == "nodes" and {name: value for name, value in vars(found).items() if name not in OWN}
    return frozenset(files), known


def changed_files(before: Outline, after: Outline) -> frozenset[str]:
    """The files of the resources that are others now to those that refer to them."""
    keys = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    return frozenset(
        file_id for each in (before, after) for key in keys & each.keys() for file_id in each[key][0]
    )
