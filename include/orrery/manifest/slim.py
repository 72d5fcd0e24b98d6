"""The slim manifest: what rendering one pipeline needs, in the shape that Cosmos reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from graphlib import TopologicalSorter
from typing import Any

from orrery.config.resources import (
    NODE_TYPES,
    ON_RUN_END,
    ON_RUN_START,
    OPERATION,
    SOURCE,
    TEST_TYPES,
    type_of,
)
from orrery.manifest.freshness import has_threshold
from orrery.manifest.makers import parents_of, source_makers, with_makers
from orrery.manifest.packages import ELEMENTARY

Resource = dict[str, Any]

# What is said to us in the meta of a resource.
_ORRERY = "orrery"


def slim_manifest(
    manifest: Mapping[str, Any], selected: set[str], stages: Mapping[str, set[str]]
) -> Resource:
    """Cut `manifest` down to the `selected` unique ids and the sources that they read.

    `depends_on` of each resource is rewritten to its nearest ancestors that are kept, so that the
    order of dbt holds across nodes that are not selected. What reads a source depends on the node that makes
    the source's table (see orrery.manifest.makers), by way of the source where that is kept. Functions are
    among the nodes. `stages` maps a pipeline's own stages to nodes.
    """
    resources: dict[str, Resource] = {
        **manifest["nodes"],
        **manifest["sources"],
        **manifest.get("unit_tests", {}),
        **manifest.get("functions", {}),
    }
    kept = {uid for uid in selected if resources.get(uid, {}).get("resource_type") in NODE_TYPES}
    read = {parent for uid in kept for parent in parents_of(resources[uid])}
    sources = {uid for uid in resources if uid in manifest["sources"] and (uid in selected or uid in read)}
    tests = {
        uid
        for uid, resource in resources.items()
        if resource["resource_type"] in TEST_TYPES and (uid in selected or _only_on(resource, sources))
    }
    tested = {parent for uid in tests for parent in parents_of(resources[uid])}
    unchecked = sorted(uid for uid in sources if resources[uid].get("unchecked"))
    sources = {
        uid for uid in sources if uid in tested or has_threshold(resources[uid]) or _is_loaded(resources[uid])
    }
    kept |= sources
    lineage = _Lineage(resources, kept, manifest["metadata"].get("adapter_type") or "")
    own_stage = {uid: stage for stage, members in stages.items() for uid in members}
    return {
        "metadata": {
            key: manifest["metadata"].get(key) for key in ("dbt_version", "project_name", "adapter_type")
        },
        "groups": {group["name"]: {"owner": group["owner"]} for group in manifest.get("groups", {}).values()},
        # What fills the sources, and what runs after the models; see orrery.manifest.ingest and exposures.
        "ingest": [],
        "runs": [],
        # The hooks of a run, but those of Elementary, which are Orrery's own matter.
        "hooks": {when: _hooks(manifest["nodes"], when) for when in (ON_RUN_START, ON_RUN_END)},
        # Whether this dbt package is installed.
        "elementary": False,
        # Who is told of what; see orrery.manifest.alerts.
        "alerts": None,
        "exposures": {
            uid: {"name": exposure["name"], "depends_on": {"nodes": parents_of(exposure)}}
            for uid, exposure in sorted(manifest.get("exposures", {}).items())
            if not kept.isdisjoint(parents_of(exposure))
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
        "tests": {uid: _slim_test(resources[uid], kept) for uid in sorted(tests)},
        # Sources with a threshold whose age dbt cannot tell; see orrery.manifest.freshness.
        "unchecked": unchecked,
        # Of sources that are not kept: the nodes that make them, for the tests and exposures that read them.
        "made_by": {
            uid: parents
            for uid in sorted(manifest["sources"].keys() - sources)
            if (parents := lineage.parents(uid))
        },
    }


def _hooks(nodes: Mapping[str, Resource], when: str) -> dict[str, str]:
    """The code of the hooks of one moment, by unique id."""
    return {
        uid: node["raw_code"]
        for uid, node in sorted(nodes.items())
        if node["resource_type"] == OPERATION
        and when in node.get("tags", ())
        and node["package_name"] != ELEMENTARY
    }


def _only_on(test: Resource, sources: set[str]) -> bool:
    parents = parents_of(test)
    return bool(parents) and all(parent in sources for parent in parents)


def _is_loaded(source: Resource) -> bool:
    """Whether something is said about how data comes into the source."""
    return _ORRERY in (source["config"].get("meta") or {})


class _Lineage:
    """The graph of the kept resources, contracted over those that are not kept."""

    def __init__(self, resources: Mapping[str, Resource], kept: set[str], adapter: str) -> None:
        self._kept = kept
        self._direct = {
            uid: [parent for parent in parents_of(resource) if parent in resources]
            for uid, resource in resources.items()
        }
        of_type: dict[str, dict[str, Resource]] = {}
        for uid, resource in resources.items():
            of_type.setdefault(resource["resource_type"], {})[uid] = resource
        tests = {uid for kind in TEST_TYPES for uid in of_type.get(kind, ())}
        makers = source_makers(resources, of_type.get(SOURCE, {}), adapter)
        for uid, found in with_makers(self._direct, makers, tests).items():
            self._direct[uid] += found
        self._nearest: dict[str, dict[str, None]] = {}
        for uid in self._in_order(resources, parents_of=self._direct.__getitem__):
            self._nearest[uid] = self._contract(self._direct[uid])

    def parents(self, uid: str) -> list[str]:
        """The nearest kept ancestors of `uid`."""
        return list(self._nearest[uid])

    def ordered(self) -> list[str]:
        """The kept resources, every one after its parents."""
        return self._in_order(self._kept, parents_of=self.parents)

    def _contract(self, parents: Iterable[str]) -> dict[str, None]:
        nearest: dict[str, None] = {}
        for parent in parents:
            nearest.update({parent: None} if parent in self._kept else self._nearest[parent])
        return nearest

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
    "arguments",
    "returns",
)


def _is_pii(column: Resource) -> bool:
    """Whether a column holds personal data: by the tag `pii`, or by `pii: true` in its meta."""
    config = column.get("config") or {}
    tags = [*(column.get("tags") or ()), *(config.get("tags") or ())]
    meta = {**(column.get("meta") or {}), **(config.get("meta") or {})}
    return "pii" in tags or bool(meta.get("pii"))


def _slim_test(test: Resource, kept: set[str]) -> Resource:
    """A test; `reads` are its sources that are not kept."""
    parents = parents_of(test)
    slim = _slim(test, [parent for parent in parents if parent in kept], None)
    if reads := [parent for parent in parents if parent not in kept and type_of(parent) == SOURCE]:
        slim["reads"] = reads
    return slim


def _slim(resource: Resource, parents: list[str], stage: str | None) -> Resource:
    config = resource.get("config", {})
    slim = {key: resource[key] for key in _COPIED if resource.get(key)}
    slim["config"] = {key: config[key] for key in ("materialized", "severity", "group") if config.get(key)}
    if _ORRERY in (config.get("meta") or {}):
        # What others say there is for others: Cosmos would change its tasks, or refuse the DAG.
        slim["config"]["meta"] = {_ORRERY: config["meta"][_ORRERY]}
    if not has_threshold(resource):
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
