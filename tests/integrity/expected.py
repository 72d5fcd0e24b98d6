"""The graph that a dbt manifest asks for, told from dbt's own manifest.json and the documented rules.

Nothing here comes from orrery.plan or orrery.manifest: it is a second opinion about them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Graph = dict[str, set[str]]
Manifest = Mapping[str, Any]


def expected_graph(
    manifest: Manifest, tag: str, tests: str, execute: str = "build", published: tuple[str, ...] = ()
) -> Graph:
    """Task ids, and what each waits for, of a pipeline with `select: tag:<tag>` and `tests: <tests>`.

    :param published: what it publishes, in this order
    """
    expected = _Expected(manifest, tag)
    graph = expected.graph(tests)
    if execute == "build" and (
        expected.read_variables() or (tests == "end" and any(task.startswith("tests.") for task in graph))
    ):
        # Something may succeed after a failure, and then be all that Airflow judges the run by.
        graph["hooks.on_run_end"] = set()
    elif execute == "per_model" and "tests.all_nodes_ended" in graph:
        graph["tests.all_nodes_succeeded"] = graph["tests.all_nodes_ended"]
    # Whatever becomes of the others, and one after the other.
    before = graph.keys() - set().union(*graph.values())
    for name in published:
        graph[f"publish.{name}"] = before
        before = {f"publish.{name}"}
    if execute == "build":
        # One task runs dbt, so no other may begin before it: those that would are made to wait for it.
        # Only data comes in before.
        ingests = {task for task in graph if task.startswith("ingest.")}
        beginnings = {task for task, parents in graph.items() if parents <= ingests} - ingests
        # What is held back by a failure ends before the build does.
        beginnings |= {f"publish.{name}" for name in published[:1]}
        graph = {
            task: parents | ({"build"} if task in beginnings else set()) for task, parents in graph.items()
        }
        graph["build"] = ingests - set().union(*(graph[task] for task in ingests))
    return graph


def differences(expected: Graph, actual: Graph) -> list[str]:
    """What two graphs differ in, in words."""
    found = [f"no task {task}" for task in expected.keys() - actual.keys()]
    found += [f"unexpected task {task}" for task in actual.keys() - expected.keys()]
    for task in expected.keys() & actual.keys():
        found += [f"no edge {parent} -> {task}" for parent in expected[task] - actual[task]]
        found += [f"unexpected edge {parent} -> {task}" for parent in actual[task] - expected[task]]
    return sorted(found)


class _Expected:
    def __init__(self, manifest: Manifest, tag: str) -> None:
        everything = {**manifest["nodes"], **manifest["sources"]}
        # What carries the tag, and the tests of that: dbt selects them along.
        self.nodes = {
            uid: node
            for uid, node in everything.items()
            if tag in node["tags"] and node["resource_type"] in ("seed", "model", "snapshot", "source")
        }
        self.tests = {
            uid: sorted(set(node["depends_on"]["nodes"]))
            for uid, node in manifest["nodes"].items()
            if node["resource_type"] == "test"
            and (tag in node["tags"] or self.nodes.keys() & set(node["depends_on"]["nodes"]))
        }
        self.unit_tested = {
            model
            for test in manifest["unit_tests"].values()
            for model in test["depends_on"]["nodes"]
            if model in self.nodes
        }
        self.exposures = {
            uid: set(exposure["depends_on"]["nodes"])
            for uid, exposure in manifest["exposures"].items()
            if exposure["config"].get("meta", {}).get("orrery")
            and self.nodes.keys() >= set(exposure["depends_on"]["nodes"])
        }
        self.parents = {uid: self._parents(uid) for uid in self.nodes}

    def read_variables(self) -> bool:
        """Whether variables may decide what a node reads."""
        return any("var(" in (node.get("raw_code") or "") for node in self.nodes.values())

    def _parents(self, uid: str) -> set[str]:
        node = self.nodes[uid]
        if node["resource_type"] == "source":
            # dbt knows no link between a source and the seed that is its table.
            return {
                other
                for other, maker in self.nodes.items()
                if maker["resource_type"] == "seed" and maker["relation_name"] == node["relation_name"]
            }
        parents = set(node.get("depends_on", {}).get("nodes", []))
        assert parents <= self.nodes.keys(), "the rules below are for pipelines that select all they read"
        return parents

    def task(self, uid: str) -> str | None:
        """The task of a node; a source without thresholds has none."""
        node = self.nodes[uid]
        kind = node["resource_type"]
        if kind == "source":
            thresholds = [(node["freshness"] or {}).get(key) or {} for key in ("warn_after", "error_after")]
            if all(threshold.get("count") is None for threshold in thresholds):
                return None
            return f"source_freshness.{node['source_name']}__{node['name']}"
        folders = node["original_file_path"].split("/")[:-1]
        stage = kind if kind != "model" else "staging" if "staging" in folders else "core"
        return f"{stage}.{node['name']}"

    def ingest(self, uid: str) -> set[str]:
        """The task that brings data into a source, if one is asked for."""
        node = self.nodes[uid]
        meta = node["config"]["meta"].get("orrery", {}) if node["resource_type"] == "source" else {}
        if not meta.get("ingest"):
            return set()
        # What is said of the source as a whole is one task, but each table has files of its own.
        shared = meta == node.get("source_meta", {}).get("orrery")
        table = "" if shared and "files" not in self.steps(uid)[-1] else f"__{node['name']}"
        return {f"ingest.{node['source_name']}{table}"}

    def steps(self, uid: str) -> list[dict[str, Any]]:
        """The blocks that fill a source."""
        block = self.nodes[uid]["config"]["meta"]["orrery"]["ingest"]
        return block if isinstance(block, list) else [block]

    def ingestion(self, uid: str) -> Graph:
        """The tasks of an ingestion: other steps, and those that cut and stage big files, come first."""
        graph: Graph = {task: set() for task in self.ingest(uid)}
        for task in list(graph):
            *others, last = self.steps(uid)
            before: set[str] = set()
            for step in others:
                (kind,) = step.keys() & {"transfer"}
                graph[f"{task}__{kind}"] = before
                before = {f"{task}__{kind}"}
            graph[task] = before
            if "chunk_size" in last:
                split, chunks = f"{task}__split", f"{task}__chunks"
                graph |= {split: before, chunks: {split}, task: {chunks}}
        return graph

    def add_exposures(self, graph: Graph) -> None:
        """What an exposure runs comes after its models and the tests of nothing but these and above."""
        for uid, models in self.exposures.items():
            above = models.union(*(self.ancestors(model) for model in models))
            tests = {
                self.test_task(test)
                for test, tested in self.tests.items()
                if models & set(tested) and above >= set(tested)
            }
            graph[f"exposures.{uid.split('.')[2]}"] = self.tasks(models) | (tests & graph.keys())

    def ancestors(self, uid: str) -> set[str]:
        return self.parents[uid].union(*(self.ancestors(parent) for parent in self.parents[uid]))

    def before(self, uid: str) -> set[str]:
        """The tasks that the task of a node waits for, but for tests."""
        return self.tasks(self.parents[uid]) | self.ingest(uid)

    def tasks(self, uids: set[str]) -> set[str]:
        """The tasks of nodes; behind a source without a task stands what makes it."""
        found: set[str] = set()
        for uid in uids:
            task = self.task(uid)
            found |= {task} if task else self.before(uid)
        return found

    def first_tasks(self, uids: set[str]) -> set[str]:
        """The tasks of nodes; behind a source without a task stand the nodes that read it."""
        found: set[str] = set()
        for uid in uids:
            readers = {other for other, parents in self.parents.items() if uid in parents}
            task = self.task(uid)
            found |= {task} if task else self.first_tasks(readers)
        return found

    def descendants(self, uid: str) -> set[str]:
        children = {other for other, parents in self.parents.items() if uid in parents}
        return children.union(*(self.descendants(child) for child in children))

    def gated(self, tested: list[str]) -> set[str]:
        """The first nodes that descend from everything that a test reads."""
        if not tested:
            return set()
        common = set.intersection(*(self.descendants(uid) for uid in tested))
        return {uid for uid in common if not self.parents[uid] & common}

    def test_task(self, test: str) -> str:
        tested = self.tests[test]
        on_sources = bool(tested) and all(uid.startswith("source.") for uid in tested)
        stage = "source_tests" if on_sources else "tests"
        if len(tested) != 1:
            return f"{stage}.{test.split('.')[2]}"
        node = self.nodes[tested[0]]
        return f"{stage}.{node['source_name']}__{node['name']}" if on_sources else f"{stage}.{node['name']}"

    def graph(self, mode: str) -> Graph:
        graph = {task: self.before(uid) for uid in self.nodes if (task := self.task(uid))}
        for uid in self.nodes:
            graph |= self.ingestion(uid)
        if mode == "off":
            self.add_exposures(graph)
            return graph
        last = graph.keys() - set().union(*graph.values())
        for test, tested in self.tests.items():
            task = self.test_task(test)
            graph[task] = self.tasks(set(tested))
            if mode == "gate" or task.startswith("source_tests."):
                for node_task in self.first_tasks(self.gated(tested)):
                    graph[node_task] |= {task}
        self.add_exposures(graph)
        self.add_unit_tests(graph, mode)
        if mode == "end":
            for task in graph:
                if task.startswith("tests."):
                    graph[task] |= {"tests.all_nodes_ended"}
            graph["tests.all_nodes_ended"] = set(last)
        else:
            self.add_begin(graph)
        return graph

    @staticmethod
    def add_begin(graph: Graph) -> None:
        """Tests that gate make their stage and those of the models wait for each other."""
        tests = {task for task in graph if task.startswith("tests.")}
        for task in tests:
            if not graph[task] & tests:
                graph[task] |= {"tests.begin"}
        graph["tests.begin"] = set()

    def add_unit_tests(self, graph: Graph, mode: str) -> None:
        for model in self.unit_tested:
            (task,) = self.tasks({model})
            unit = f"tests.{self.nodes[model]['name']}__unit"
            # dbt runs them before the model; at the end they follow it as all tests do.
            graph[unit] = set(graph[task]) if mode == "gate" else {task}
            if mode == "gate":
                graph[task] |= {unit}
