"""dbt's own graph of one invocation, as the order of a run's tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

from orrery.config.resources import TEST_TYPES, type_of
from orrery.config.stages import TESTS
from orrery.execute.invocation import Invocation
from orrery.execute.run_graph import RunGraph, stands_apart
from orrery.manifest.makers import source_makers
from orrery.plan.model import TaskKind, TaskPlan

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest


def graph_of(
    manifest: Manifest, tasks: Mapping[str, TaskPlan], invocation: Invocation, *, gate: bool
) -> RunGraph:
    """The order of `tasks`, as dbt's graph has it and as data comes into sources.

    :param gate: whether a failed test holds back what descends from its model; tests of sources always do
    """
    parents = _node_parents(manifest, invocation, gate=gate, free=_free_tests(tasks) if not gate else ())
    fillers: dict[str, set[str]] = {}
    task_of: dict[str, str] = {}
    for task_id, task in tasks.items():
        if task.kind is TaskKind.INGEST:
            for uid in task.nodes:
                fillers.setdefault(uid, set()).add(task_id)
        elif not stands_apart(task):
            task_of |= dict.fromkeys(task.nodes, task_id)
    # A task that dbt does not know in this run waits for nothing.
    above: dict[str, set[str]] = {task_id: set() for task_id, task in tasks.items() if not stands_apart(task)}
    for task_id, task in tasks.items():
        if task.kind is TaskKind.INGEST:
            above[task_id] = {other for other in task.upstream if tasks[other].kind is TaskKind.INGEST}
    nearest: dict[str, set[str]] = {}
    for uid in TopologicalSorter(parents).static_order():
        found = set(fillers.get(uid, ()))
        for parent in parents.get(uid, ()):
            found |= {task_of[parent]} if parent in task_of else nearest[parent]
        nearest[uid] = found
        if uid in task_of:
            above[task_of[uid]] |= found - {task_of[uid]}
    return RunGraph(above)


def _node_parents(
    manifest: Manifest, invocation: Invocation, *, gate: bool, free: Iterable[str]
) -> dict[str, set[str]]:
    """What each node of dbt waits for directly.

    :param free: tests that hold nothing back
    """
    from dbt.compilation import Linker
    from networkx import ancestors, has_path

    linker = Linker()
    with invocation.in_order(manifest):
        linker.link_graph(manifest)
        # The quicker of dbt's two ways; they give the same order.
        linker.add_test_edges_2(manifest)
    graph: Any = linker.graph
    adapter = str(manifest.metadata.adapter_type)
    for source, maker in source_makers(manifest.nodes, manifest.sources, adapter).items():
        # A node may read its own earlier table.
        if not has_path(graph, source, maker):
            graph.add_edge(maker, source)
            # dbt lets tests hold back nodes only; here a source comes after the tests of what makes it, too.
            above = ancestors(graph, source)
            for uid in [uid for each in above for uid in graph.successors(each)]:
                if uid not in above and _holds_back(manifest.nodes.get(uid), above):
                    graph.add_edge(uid, source)
    graph.remove_edges_from([edge for uid in free if uid in graph for edge in graph.out_edges(uid)])
    parents = {uid: set(graph.predecessors(uid)) for uid in graph}
    if gate:
        # dbt runs the unit tests of a model just before the model, when its parents are there.
        for uid, test in manifest.unit_tests.items():
            models = test.depends_on.nodes[:1]
            parents[uid] = {parent for model in models for parent in parents[model] if parent != uid}
        for uid, test in manifest.unit_tests.items():
            for model in test.depends_on.nodes[:1]:
                parents[model].add(uid)
    return parents


def _holds_back(node: Any, nodes: set[str]) -> bool:
    """Whether a node is a test that reads nothing but these, and so holds back what descends from them."""
    return (
        node is not None and type_of(node.unique_id) in TEST_TYPES and nodes.issuperset(node.depends_on_nodes)
    )


def _free_tests(tasks: Mapping[str, TaskPlan]) -> set[str]:
    return {uid for task in tasks.values() if task.stage == TESTS for uid in task.nodes}
