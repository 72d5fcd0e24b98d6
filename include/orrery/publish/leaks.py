"""Looks for secrets in what is about to be published: its readers may not see Airflow's connections."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from orrery.ingest.errors import SetupError
from orrery.manifest.known_secrets import found_in

# dbt's documentation has its manifest inside, Elementary's report its data in base64.
_NODE = re.compile(r'"unique_id": ?"([^"]+)"')
_ENCODED = re.compile(r"atob\('([\w+/=]+)'\)")


class LeakError(SetupError):
    """A file that is to be published contains a secret; nothing is published, and no retry helps."""


def check_files(files: Mapping[str, bytes]) -> None:
    """Raise LeakError when one of the files, given by name, contains a known secret."""
    for name, content in files.items():
        text = content.decode(errors="replace")
        for part in (text, *map(_decoded, _ENCODED.findall(text))):
            if origin := found_in(part):
                where = _where(name, part)
                raise LeakError(
                    f"{name} is not published: it contains a secret, that of {origin}, {where}.\n"
                    "  Remove it there, and change it, because dbt's target folder contains it, too."
                )


def _where(name: str, text: str) -> str:
    """The node and the key in which a secret stands, as far as they can be told."""
    if name.endswith(".json"):
        for node, key, value in _texts(json.loads(text)):
            if found_in(value):
                return f"in {key!r} of {node}" if node else f"in {key!r}"
    before = _up_to_secret(text)
    nodes = _NODE.findall(before)
    return f"in {nodes[-1]}" if nodes else "in what was collected from runs"


def _texts(value: Any, node: str = "", key: str = "") -> Iterator[tuple[str, str, str]]:
    """All texts in a document, each with the unique id of its node and the key that it has there."""
    if isinstance(value, Mapping):
        own = value.get("unique_id")
        for each, inner in value.items():
            yield own or node, each, each
            yield from _texts(inner, own or node, each)
    elif isinstance(value, list):
        for inner in value:
            yield from _texts(inner, node, key)
    elif isinstance(value, str):
        yield node, key, value


def _up_to_secret(text: str) -> str:
    """The text to the end of the first secret in it."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if found_in(text[:middle]) else (middle + 1, high)
    return text[:low]


def _decoded(encoded: str) -> str:
    try:
        return base64.b64decode(encoded).decode(errors="replace")
    except ValueError:
        return ""
