"""What a pipeline selects and has no task for, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from orrery.config.resources import TEST_TYPES, type_of
from orrery.manifest.packages import ELEMENTARY

# How many of a kind are named.
_NAMED = 3
_NOTHING = "dbt build does nothing for these"
_OFF = "tests: off"
_ELEMENTARY = "Elementary's own"
_REASONS = {
    "analysis": "dbt only compiles analyses",
    "exposure": "without a run block, or not all that they depend on is in one pipeline",
    "metric": _NOTHING,
    "saved_query": _NOTHING,
    "semantic_model": _NOTHING,
    "source": "without ingestion, freshness and tests",
    "unit_test": "dbt build runs unit tests with their models only, which are not selected",
}
_PLURALS = {"analysis": "analyses", "saved_query": "saved queries"}


def left_out(
    selected: Iterable[str], manifest: Mapping[str, Any], slim: Mapping[str, Any], *, tests: bool
) -> dict[str, str]:
    """The selected unique ids that no task of a pipeline runs, each with the reason.

    :param tests: whether the pipeline runs tests
    """
    planned = {*slim["nodes"], *slim["sources"], *(entry["unique_id"] for entry in slim["runs"])}
    if tests:
        # A unit test whose model is not in the pipeline waits for nothing, and nothing runs it.
        planned |= {
            uid
            for uid, test in slim["tests"].items()
            if type_of(uid) != "unit_test" or test["depends_on"]["nodes"]
        }
    found = {}
    for uid in set(selected) - planned:
        node = manifest["nodes"].get(uid) or {}
        if ELEMENTARY in (node.get("package_name"), (node.get("test_metadata") or {}).get("namespace")):
            found[uid] = _ELEMENTARY
        elif type_of(uid) in TEST_TYPES and not tests:
            found[uid] = _OFF
        else:
            found[uid] = _REASONS[type_of(uid)]
    return found


def in_words(left: Mapping[str, str]) -> str:
    """One line about what is left out; of a few resources of a kind with their names."""
    kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for uid, reason in sorted(left.items()):
        kinds[reason][type_of(uid)].append(uid.split(".", 2)[2])
    told = [
        f"{', '.join(_count(kind, names) for kind, names in sorted(found.items()))} ({reason})"
        for reason, found in sorted(kinds.items())
    ]
    return f"Left out: {'; '.join(told)}."


def _count(kind: str, names: list[str]) -> str:
    noun = kind.replace("_", " ")
    if len(names) > 1:
        noun = _PLURALS.get(kind, f"{noun}s")
    return f"{len(names)} {noun}" + (f": {', '.join(names)}" if len(names) <= _NAMED else "")
