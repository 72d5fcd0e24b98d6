"""Which node makes the table of a source, and what has to wait for it.

dbt has no edge from a source to the seed, model or snapshot whose table it is. Every function here takes
dbt's own objects (`Manifest.nodes`, `Manifest.sources`) as well as their dicts in manifest.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from orrery.config.resources import TABLE_TYPES, TEST_TYPES

# A part of a relation's name: quoted as PostgreSQL, BigQuery or SQL Server do it, or bare.
_PART = re.compile(r'"((?:[^"]|"")*)"|`([^`]*)`|\[([^\]]*)\]|([^."`\[\]]+)')
# What adapters make of a name without quotes; a quoted one they take as it is written.
_FOLDED: dict[str, Callable[[str], str]] = {
    "postgres": str.lower,
    "snowflake": str.upper,
    "oracle": str.upper,
    "bigquery": str,
}


def source_makers(nodes: Mapping[str, Any], sources: Mapping[str, Any], adapter: str = "") -> dict[str, str]:
    """The node that makes the table of each source, by the unique ids of the sources that have one.

    Relations are compared as the warehouse does: with PostgreSQL `raw`, `RAW` and `"raw"` are one table, and
    `"RAW"` is another. Tests are no makers, although dbt may store their failures in a table.

    :param adapter: dbt's name of the warehouse's type; of an unknown one no name depends on its case
    """
    exact: dict[str, str] = {}
    same: dict[tuple[str, ...], str] = {}
    for uid in sorted(nodes):
        relation = _value(nodes[uid], "relation_name")
        if relation and _value(nodes[uid], "resource_type") in TABLE_TYPES:
            exact.setdefault(relation, uid)
            same.setdefault(_identity(relation, adapter), uid)
    found = {}
    for uid in sorted(sources):
        relation = _value(sources[uid], "relation_name")
        if relation and (maker := exact.get(relation) or same.get(_identity(relation, adapter))):
            found[uid] = maker
    return found


def parents_by_makers(
    nodes: Mapping[str, Any], sources: Mapping[str, Any], adapter: str = ""
) -> dict[str, list[str]]:
    """The makers that each reader of a source has to wait for, beside what dbt knows: for `depends_on.nodes`.

    With these edges the graph of the nodes is still free of cycles.

    :param nodes: dbt's `nodes`, and its `functions`, which may read sources, too
    """
    depends_on = {uid: parents_of(node) for uid, node in nodes.items()}
    tests = {uid for uid, node in nodes.items() if _value(node, "resource_type") in TEST_TYPES}
    added = with_makers(depends_on, source_makers(nodes, sources, adapter), tests)
    found: dict[str, list[str]] = {}
    for uid in sorted(nodes):
        makers = [*added.get(uid, ()), *(m for parent in depends_on[uid] for m in added.get(parent, ()))]
        if new := [maker for maker in dict.fromkeys(makers) if maker not in depends_on[uid]]:
            found[uid] = new
    return found


def with_makers(
    depends_on: Mapping[str, Sequence[str]], makers: Mapping[str, str], tests: Iterable[str]
) -> dict[str, list[str]]:
    """New parents, by unique id: its maker for a source, or else for those that read the source.

    A node may read its own earlier table as a source. Then the source cannot wait for it, and neither can the
    node's ancestors nor the source's tests, which come before the node; but all others that read it can.

    :param depends_on: the parents of all nodes
    """
    graph = {uid: list(parents) for uid, parents in depends_on.items()}
    readers: dict[str, list[str]] = {source: [] for source in makers}
    for uid in sorted(graph.keys() - set(tests)):
        for parent in graph[uid]:
            if parent in readers:
                readers[parent].append(uid)
    added: dict[str, list[str]] = {}
    for source, maker in sorted(makers.items()):
        above = _with_ancestors(maker, graph)
        for uid in [source] if source not in above else readers[source]:
            if uid not in above and maker not in graph.get(uid, ()):
                graph.setdefault(uid, []).append(maker)
                added.setdefault(uid, []).append(maker)
    return added


def parents_of(resource: Any) -> list[str]:
    """The unique ids that a resource depends on, as dbt has them."""
    depends_on = _value(resource, "depends_on")
    return list((_value(depends_on, "nodes") if depends_on else None) or ())


def _with_ancestors(uid: str, graph: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    waiting = [uid]
    while waiting:
        each = waiting.pop()
        if each not in found:
            found.add(each)
            waiting += graph.get(each, ())
    return found


def _identity(relation: str, adapter: str) -> tuple[str, ...]:
    """The parts of a relation's name; the same ones however the name is written."""
    fold = _FOLDED.get(adapter)
    parts = []
    for match in _PART.finditer(relation):
        bare = match.group(4)
        name = next(group for group in match.groups() if group is not None).replace('""', '"')
        parts.append(name.lower() if fold is None else fold(name) if bare else name)
    return tuple(parts)


def _value(thing: Any, key: str) -> Any:
    """A value of a dict, or of one of dbt's objects."""
    return thing.get(key) if isinstance(thing, Mapping) else getattr(thing, key, None)
