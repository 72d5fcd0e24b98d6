"""Makes the plan of a pipeline: which tasks there are, in which stage, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from graphlib import TopologicalSorter
from typing import Any

from orrery.config.loader import LoadedPipeline
from orrery.config.resources import FUNCTION, ON_RUN_END, ON_RUN_START, owner_name
from orrery.config.stages import HOOKS, HOOKS_END, HOOKS_START, SOURCE_TESTS, TESTS
from orrery.manifest.alerts import effective_alerts
from orrery.plan.beside import exposure_tasks, ingest_tasks, publish_tasks
from orrery.plan.doc import hooks_doc, node_doc, tests_doc
from orrery.plan.fitting import fitted
from orrery.plan.lineage import Lineage
from orrery.plan.model import PipelinePlan, TaskKind, TaskPlan
from orrery.plan.names import digest, unique_names
from orrery.plan.places import kind_of, stage_of
from orrery.plan.stages import first_tasks, tangled_stage

Resource = dict[str, Any]

# The first task of a stage that must not wait for other stages, the one that all tests wait for, and the one
# that holds only if no node has failed.
BEGIN_MARKER = "begin"
END_MARKER = "all_nodes_ended"
GOOD_MARKER = "all_nodes_succeeded"


def plan_pipeline(pipeline: LoadedPipeline, slim: Mapping[str, Any]) -> PipelinePlan:
    """The plan of `pipeline` over its slim manifest (see orrery.manifest.slim)."""
    return _Planner(pipeline, slim).plan()


class _Planner:
    def __init__(self, pipeline: LoadedPipeline, slim: Mapping[str, Any]) -> None:
        self.pipeline = pipeline
        self.config = pipeline.config
        self.resources: dict[str, Resource] = {**slim["sources"], **slim["nodes"]}
        self.tests: dict[str, Resource] = slim["tests"] if self.config.tests != "off" else {}
        self.names = unique_names([*self.resources.values(), *self.tests.values()])
        parents = {uid: resource["depends_on"]["nodes"] for uid, resource in self.resources.items()}
        self.parents = {uid: parents[uid] for uid in _parents_first(parents)}
        self.lineage = Lineage(self.parents)
        self.slim = slim
        self.made_by: dict[str, list[str]] = slim["made_by"]
        self.filled_by: dict[str, str] = {}
        self.tasks: dict[str, TaskPlan] = {}
        self.by_node: dict[str, str] = {}
        self.upstream: dict[str, set[str]] = {}

    def plan(self) -> PipelinePlan:
        self._add_ingestions()
        data_tests, unit_tests = self._grouped_tests()
        for uid, resource in self.resources.items():
            if resource["resource_type"] != "source" or resource.get("freshness"):
                self._add_resource(uid, resource)
        test_tasks = [self._add_tests(parents, tests) for parents, tests in data_tests.items()]
        for uid in self.parents:
            if uid in self.by_node:
                self._wait(self.by_node[uid], self._makers(uid))
        for task_id, parents in zip(test_tasks, data_tests, strict=True):
            self._wire_tests(task_id, parents)
        for model, tests in unit_tests.items():
            self._add_unit_tests(model, tests)
        if self.config.tests == "end":
            self._put_tests_last()
        if self.config.one_build:
            self._add_hooks()
        self._add_exposures(dict(zip(test_tasks, data_tests, strict=True)))
        self._untangle_stages()
        self._add_publish()
        tasks = {
            tid: replace(task, upstream=frozenset(self.upstream[tid])) for tid, task in self.tasks.items()
        }
        used = {task.stage for task in tasks.values()}
        stages = tuple(stage for stage in self.config.stage_names if stage in used)
        return PipelinePlan(
            self.pipeline.name,
            self.config,
            stages,
            fitted(tasks),
            self.by_node,
            self.pipeline.document.file,
            effective_alerts(self.config, self.slim),
        )

    def _add(self, task: TaskPlan) -> str:
        if task.task_id in self.tasks:
            # A test may be called like a model, and a seed like a model of another package.
            task = replace(task, task_id=f"{task.task_id}_{digest(''.join(task.nodes))}")
        self.tasks[task.task_id] = task
        self.upstream[task.task_id] = set(task.upstream)
        return task.task_id

    def _wait(self, task_id: str, upstream: Iterable[str]) -> None:
        self.upstream[task_id].update(other for other in upstream if other != task_id)

    def _tasks_of(self, uids: Iterable[str]) -> set[str]:
        """The tasks of `uids`; for a source that has none, the tasks of what makes its table."""
        tasks: set[str] = set()
        for uid in uids:
            tasks |= {self.by_node[uid]} if uid in self.by_node else self._makers(uid)
        return tasks

    def _makers(self, uid: str) -> set[str]:
        """The tasks that a node, or the check of a source, waits for."""
        filled = {self.filled_by[uid]} if uid in self.filled_by else set()
        return self._tasks_of(self.parents[uid]) | filled

    def _held_back(self, uids: Iterable[str]) -> set[str]:
        """The tasks of nodes that a test holds back.

        For a source that has none, those of what reads it; and, as in `dbt build`, for a function, too.
        """
        tasks: set[str] = set()
        for uid in uids:
            passed = uid not in self.by_node or self.resources[uid]["resource_type"] == FUNCTION
            tasks |= self._held_back(self.lineage.children[uid]) if passed else {self.by_node[uid]}
        return tasks

    def _add_ingestions(self) -> None:
        """The tasks that bring data into the sources."""
        tasks, self.filled_by = ingest_tasks(self.slim["ingest"], self.slim["sources"], self._owner)
        for task in tasks:
            self._add(task)

    def _add_exposures(self, tests: Mapping[str, Iterable[str]]) -> None:
        """The tasks of what exposures run, after the models that they depend on and the tests of these.

        :param tests: what each task of tests reads
        """
        tasks = exposure_tasks(self.slim["runs"], self._owner())
        for entry in self.slim["runs"]:
            parents = set(entry["depends_on"]["nodes"])
            task_id = self._add(tasks[entry["unique_id"]])
            self._wait(task_id, self._tasks_of([*parents, *self._read(entry)]))
            above = self._with_ancestors(parents)
            for test, key in tests.items():
                read = [uid for uid in key if uid in self.resources]
                if not parents.isdisjoint(read) and above.issuperset(read):
                    self._wait(task_id, [test])

    def _add_publish(self) -> None:
        """The tasks that publish, after all others."""
        if self.config.publish is None:
            return
        last = self.tasks.keys() - set().union(*self.upstream.values())
        owner, elementary = self._owner(), self.slim["elementary"]
        for task in publish_tasks(self.config.publish, last, owner, elementary=elementary):
            self._add(task)

    def _with_ancestors(self, uids: Iterable[str]) -> set[str]:
        found: set[str] = set()
        waiting = list(uids)
        while waiting:
            uid = waiting.pop()
            if uid not in found:
                found.add(uid)
                waiting += self.parents[uid]
        return found

    def _add_resource(self, uid: str, resource: Resource) -> None:
        """The task that builds a node, or that checks how fresh a source is."""
        stage = stage_of(resource)
        self.by_node[uid] = self._add(
            TaskPlan(
                task_id=f"{stage}.{self.names[uid]}",
                stage=stage,
                kind=kind_of(resource),
                nodes=(uid,),
                upstream=frozenset(),
                owner=self._owner(resource),
                doc=node_doc(resource),
            )
        )

    def _grouped_tests(self) -> tuple[dict[tuple[str, ...], list[str]], dict[str, list[str]]]:
        """Data tests by the nodes that they read (those of one node share a task), unit tests by model."""
        data: dict[tuple[str, ...], list[str]] = {}
        unit: dict[str, list[str]] = {}
        for uid, test in self.tests.items():
            parents = tuple(sorted(set(test["depends_on"]["nodes"])))
            if test["resource_type"] == "unit_test":
                for model in parents:
                    unit.setdefault(model, []).append(uid)
            else:
                # A test of several nodes, or of none, gets a task of its own.
                alone = len(parents) == 1 and not self._read(test)
                key = parents if alone else (*parents, uid)
                data.setdefault(key, []).append(uid)
        # Those of one node come first, for it is their task that keeps the node's name.
        return dict(sorted(data.items(), key=lambda item: item[0][-1] in self.tests)), unit

    def _add_tests(self, key: tuple[str, ...], tests: list[str]) -> str:
        parents = [uid for uid in key if uid in self.resources]
        on_sources = bool(parents) and all(self.resources[p]["resource_type"] == "source" for p in parents)
        stage = SOURCE_TESTS if on_sources else TESTS
        subject = parents[0] if key == tuple(parents) else tests[0]
        return self._add_test_task(stage, self.names[subject], TaskKind.TEST, tests, parents)

    def _add_test_task(self, stage: str, name: str, kind: TaskKind, tests: list[str], on: list[str]) -> str:
        resources = [self.tests[uid] for uid in tests]
        return self._add(
            TaskPlan(
                task_id=f"{stage}.{name}",
                stage=stage,
                kind=kind,
                nodes=tuple(tests),
                upstream=frozenset(),
                owner=self._owner(self.resources[on[0]] if on else None),
                doc=tests_doc(resources),
            )
        )

    def _wire_tests(self, task_id: str, key: tuple[str, ...]) -> None:
        parents = [uid for uid in key if uid in self.resources]
        parents += [maker for uid in key if uid in self.tests for maker in self._read(self.tests[uid])]
        self._wait(task_id, self._tasks_of(parents))
        if self.config.tests == "gate" or self.tasks[task_id].stage == SOURCE_TESTS:
            for task in self._held_back(self.lineage.gated_by(parents)):
                self._wait(task, [task_id])

    def _read(self, reader: Resource) -> list[str]:
        """The nodes that make the sources that a test or an exposure reads, and that have no tasks."""
        sources = reader.get("reads", ())
        kept = [uid for uid in sources if uid in self.resources]
        return [*kept, *(maker for uid in sources for maker in self.made_by.get(uid, ()))]

    def _add_unit_tests(self, model: str, tests: list[str]) -> None:
        """dbt runs the unit tests of a model before the model, once its parents exist."""
        task_id = self._add_test_task(TESTS, f"{self.names[model]}__unit", TaskKind.UNIT_TEST, tests, [model])
        if self.config.tests == "end":
            self._wait(task_id, [self.by_node[model]])
        else:
            self._wait(task_id, self.upstream[self.by_node[model]])
            self._wait(self.by_node[model], [task_id])

    def _put_tests_last(self) -> None:
        waited_for = {other for task_id in self.by_node.values() for other in self.upstream[task_id]}
        last = {task_id for task_id in self.by_node.values() if task_id not in waited_for}
        tests = [task_id for task_id, task in self.tasks.items() if task.stage == TESTS]
        if not tests:
            return
        # Every test waiting for every last node would be thousands of edges.
        marker = self._add_marker(TESTS, END_MARKER, last, "All nodes have ended; the tests begin.")
        for task_id in tests:
            self._wait(task_id, [marker])
        if not self.config.one_build:
            # Airflow judges a run by its last tasks, and tests may succeed after a failed node.
            told = "Does nothing. It waits for all nodes to succeed, so that the run fails with any of them."
            self._add_marker(TESTS, GOOD_MARKER, last, told, always=False)

    def _add_hooks(self) -> None:
        """The tasks of dbt's hooks, which the build ends; they wait for no other task.

        The one at the end is there too where a failure may hide: Airflow judges a run by its last tasks, and
        with `tests: end`, or when variables decide what a model reads, something may run after a failed node.
        """
        hooks = self.slim["hooks"]
        variable = any(_reads_variables(node) for node in self.slim["nodes"].values())
        tested_last = self.config.tests == "end" and any(t.stage == TESTS for t in self.tasks.values())
        hiding = variable or tested_last
        for task_id, when, needed in ((HOOKS_START, ON_RUN_START, False), (HOOKS_END, ON_RUN_END, hiding)):
            if hooks[when] or needed:
                self._add(
                    TaskPlan(
                        task_id=task_id,
                        stage=HOOKS,
                        kind=TaskKind.HOOK,
                        nodes=tuple(hooks[when]),
                        upstream=frozenset(),
                        owner=self._owner(),
                        doc=hooks_doc(when, hooks[when]),
                    )
                )

    def _untangle_stages(self) -> None:
        """Give stages that wait for each other a first task, as Airflow cannot draw them otherwise."""
        while True:
            stage_of = {task_id: task.stage for task_id, task in self.tasks.items()}
            tangled = tangled_stage(self.config.stage_names, stage_of, self.upstream)
            if tangled is None:
                return
            first = [task for task in first_tasks(stage_of, self.upstream) if stage_of[task] == tangled]
            marker = self._add_marker(
                tangled,
                BEGIN_MARKER,
                set(),
                f"Does nothing. Stages before and after {tangled!r} wait for each other's tasks; Airflow can "
                "draw that when the first task of the stage waits for none.",
            )
            for task_id in first:
                self._wait(task_id, [marker])

    def _add_marker(self, stage: str, name: str, upstream: set[str], doc: str, *, always: bool = True) -> str:
        """A point that only waits; `always`: what failed before does not matter to it."""
        return self._add(
            TaskPlan(
                task_id=f"{stage}.{name}",
                stage=stage,
                kind=TaskKind.MARKER,
                nodes=(),
                upstream=frozenset(upstream),
                owner=self._owner(),
                doc=doc,
                always=always and bool(upstream),
            )
        )

    def _owner(self, resource: Resource | None = None) -> str | None:
        """Who owns a resource, or else the pipeline, by name."""
        group = (resource["config"].get("group") if resource else None) or self.config.owner
        return owner_name(self.slim["groups"].get(group, {}).get("owner"), group)


def _reads_variables(resource: Resource) -> bool:
    return "var(" in resource.get("raw_code", "")


def _parents_first(parents: Mapping[str, list[str]]) -> list[str]:
    """The nodes, every one after its parents; the slim manifest has them so but for sources."""
    return list(TopologicalSorter(parents).static_order())
