"""What somebody may have meant by a selection that matches nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from orrery.config.errors import nearest

_TOKEN = re.compile(r"(?P<before>[@+\d]*)(?:(?P<method>[a-z_]+):)?(?P<value>[^+]+)(?P<after>\+?\d*)")


def similar_selection(select: Iterable[str], manifest: Mapping[str, Any]) -> str | None:
    """The first selector of `select` with its value replaced by the nearest that exists, or None.

    Knows tags, groups, sources and node names; other methods have no list of values.
    """
    known = {
        None: {node["name"] for key in ("nodes", "functions") for node in manifest.get(key, {}).values()},
        "tag": {tag for node in manifest["nodes"].values() for tag in node.get("tags", ())},
        "group": {group["name"] for group in manifest.get("groups", {}).values()},
        "source": {source["source_name"] for source in manifest["sources"].values()},
    }
    for token in " ".join(select).replace(",", " ").split():
        match = _TOKEN.fullmatch(token)
        near = match and nearest(match["value"], known.get(match["method"], ()))
        if match and near and near != match["value"]:
            method = f"{match['method']}:" if match["method"] else ""
            return f"{match['before']}{method}{near}{match['after']}"
    return None
