"""The slim manifest: what rendering one pipeline needs, in the shape that Cosmos reads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from graphlib import TopologicalSorter
from typing import Any

from orrery.config.resources import NODE_TYPES, TEST_TYPES

Resource = dict[str, Any]


def slim_manifest(
    manifest: Mapping[str, Any], selected: set[str], stages: Mapping[str, set[str]]
) -> Resource:
    """Cut `manifest` down to the `selected` unique ids and the sources that they read.

    `depends_on` of each resource is rewritten to its nearest ancestors that are kept, so that the
    order of dbt holds across nodes that are not selected; and a source whose relation is made by a
    kept node (a seed, say) depends on that node. `stages` maps a pipeline's own stages to nodes.
    """
    resources: dict[str, Resource] = {
        **manifest["nodes"],
        **manifest["sources"],
        **manifest.get("unit_tests", {}),
    }
    kept = {uid for uid in selected if resources.get(uid, {}).get("resource_type") in NODE_TYPES}
    read = {parent for uid in kept for parent in _depends_on(resources[uid])}
    sources = {uid for uid in resources if uid in manifest["sources"] and (uid in selected or uid in read)}
    tests = {
        uid
        for uid, resource in resources.items()
        if resource["resource_type"] in TEST_TYPES and (uid in selected or _only_on(resource, sources))
    }
    tested = {parent for uid in tests for parent in _depends_on(resources[uid])}
    made_by = _made_by(resources, kept, sources)
    sources = {
        uid
        for uid in sources
        if uid in tested or uid in made_by or _has_freshness(resources[uid]) or _is_loaded(resources[uid])
    }
    kept |= sources
    lineage = _Lineage(resources, kept, made_by)
    own_stage = {uid: stage for stage, members in stages.items() for uid in members}
    return {
        "metadata": {
            key: manifest["metadata"].get(key) for key in ("dbt_version", "project_name", "adapter_type")
        },
        "groups": {group["name"]: {"owner": group["owner"]} for group in manifest.get("groups", {}).values()},
        # What fills the sources, and what runs after the models; see orrery.manifest.ingest and exposures.
        "ingest": [],
        "runs": [],
        # Whether this dbt package is installed.
        "elementary": False,
        # Who is told of what; see orrery.manifest.alerts.
        "alerts": None,
        "exposures": {
            uid: {"name": exposure["name"], "depends_on": {"nodes": _depends_on(exposure)}}
            for uid, exposure in sorted(manifest.get("exposures", {}).items())
            if not kept.isdisjoint(_depends_on(exposure))
        },
        "nodes": {
            uid: _slim(resources[uid], lineage.parents(uid), own_stage.get(uid))
            for uid in lineage.ordered()
            if uid not in sources
        },
        "sources": {
            uid: _slim(resources[uid], lineage.parents(uid), None)
            for uid in lineage.ordered()
            if uid in sources
        },
        "tests": {
            uid: _slim(resources[uid], [p for p in _depends_on(resources[uid]) if p in kept], None)
            for uid in sorted(tests)
        },
    }


def _depends_on(resource: Resource) -> list[str]:
    return list(resource.get("depends_on", {}).get("nodes", []))


def _only_on(test: Resource, sources: set[str]) -> bool:
    parents = _depends_on(test)
    return bool(parents) and all(parent in sources for parent in parents)


def _has_freshness(source: Resource) -> bool:
    # dbt writes {"count": null, "period": null} for a threshold that is not set.
    freshness = source.get("freshness") or {}
    return any(
        (freshness.get(threshold) or {}).get("count") is not None
        for threshold in ("warn_after", "error_after")
    )


def _is_loaded(source: Resource) -> bool:
    """Whether something is said about how data comes into the source."""
    return "orrery" in (source["config"].get("meta") or {})


def _made_by(resources: Mapping[str, Resource], kept: set[str], sources: set[str]) -> dict[str, str]:
    """The kept node that makes the table of a source, by the source's unique id."""
    makers = {
        relation: uid for uid in sorted(kept) if (relation := resources[uid].get("relation_name")) is not None
    }
    return {
        uid: makers[relation]
        for uid in sorted(sources)
        if (relation := resources[uid].get("relation_name")) in makers
    }


class _Lineage:
    """The graph of the kept resources, contracted over those that are not kept."""

    def __init__(self, resources: Mapping[str, Resource], kept: set[str], made_by: Mapping[str, str]) -> None:
        self._resources = resources
        self._kept = kept
        self._nearest: dict[str, dict[str, None]] = {}
        for uid in self._in_order(resources, parents_of=self._direct):
            self._nearest[uid] = self._contract(self._direct(uid))
        for source, maker in made_by.items():
            # A node that reads its own earlier table as a source must not wait for itself.
            if source not in self._ancestors(maker):
                self._nearest[source] = {maker: None}

    def parents(self, uid: str) -> list[str]:
        """The nearest kept ancestors of `uid`."""
        return list(self._nearest[uid])

    def ordered(self) -> list[str]:
        """The kept resources, every one after its parents."""
        return self._in_order(self._kept, parents_of=self.parents)

    def _direct(self, uid: str) -> list[str]:
        return [parent for parent in _depends_on(self._resources[uid]) if parent in self._resources]

    def _contract(self, parents: Iterable[str]) -> dict[str, None]:
        nearest: dict[str, None] = {}
        for parent in parents:
            nearest.update({parent: None} if parent in self._kept else self._nearest[parent])
        return nearest

    def _ancestors(self, uid: str) -> set[str]:
        found: set[str] = set()
        waiting = deque(self._nearest[uid])
        while waiting:
            parent = waiting.popleft()
            if parent not in found:
                found.add(parent)
                waiting.extend(self._nearest[parent])
        return found

    @staticmethod
    def _in_order(resources: Iterable[str], parents_of: Callable[[str], list[str]]) -> list[str]:
        """`resources`, every one after its parents, and in the same order in every build."""
        graph = {uid: parents_of(uid) for uid in sorted(resources)}
        return list(TopologicalSorter(graph).static_order())


_COPIED = (
    "unique_id",
    "resource_type",
    "name",
    "source_name",
    "package_name",
    "original_file_path",
    "fqn",
    "tags",
    "description",
    "raw_code",
    "relation_name",
    "schema",
    "identifier",
    "freshness",
    "loaded_at_field",
    "model",
    "column_name",
    "test_metadata",
)


def _is_pii(column: Resource) -> bool:
    """Whether a column holds personal data: by the tag `pii`, or by `pii: true` in its meta."""
    config = column.get("config") or {}
    tags = [*(column.get("tags") or ()), *(config.get("tags") or ())]
    meta = {**(column.get("meta") or {}), **(config.get("meta") or {})}
    return "pii" in tags or bool(meta.get("pii"))


def _slim(resource: Resource, parents: list[str], stage: str | None) -> Resource:
    config = resource.get("config", {})
    slim = {key: resource[key] for key in _COPIED if resource.get(key)}
    slim["config"] = {
        key: config[key] for key in ("materialized", "severity", "group", "meta") if config.get(key)
    }
    if not _has_freshness(resource):
        slim.pop("freshness", None)
    slim["depends_on"] = {"nodes": parents}
    slim["columns"] = {
        name: {key: column.get(key) for key in ("data_type", "description") if column.get(key)}
        | ({"pii": True} if _is_pii(column) else {})
        for name, column in resource.get("columns", {}).items()
    }
    if resource.get("group"):
        slim["config"]["group"] = resource["group"]
    if stage:
        slim["stage"] = stage
    return slim
