"""Every resource of a dbt project has a task, or the build says why it has none."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import own_environment, write_files
from integrity.conftest import ROOT, load
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.config.resources import type_of
from orrery.manifest.build import build_manifests
from orrery.manifest.dbt import Dbt
from orrery.manifest.exactly import exactly
from orrery.manifest.left_out import left_out
from orrery.manifest.store import ManifestStore
from orrery.plan.model import PipelinePlan, TaskKind
from orrery.plan.planner import plan_pipeline
from support import kinds

EVERYTHING = '["*", "source:*"]'
PIPELINES = {
    "all": f"select: {EVERYTHING}\n",
    "tests_at_the_end": f"select: {EVERYTHING}\ntests: end\n",
    "tests_off": f"select: {EVERYTHING}\ntests: off\nfreshness: off\n",
    "more": f"select: {EVERYTHING}\nvars: {{more: true}}\n",
    "models": "select: resource_type:model\n",
    "lonely_unit_test": "select: [of_dim, unread]\n",
    "per_model": f"select: {EVERYTHING}\nexecute: per_model\nstale: skip\n",
    "pods": f"select: {EVERYTHING}\nexecute: kubernetes\n",
    "single_pods": f"select: {EVERYTHING}\nexecute: kubernetes\nkubernetes: {{pods: per_model}}\n",
}


class Built:
    """The project after a build: what dbt lists, and the plans of its pipelines."""

    def __init__(self, project: Project, said: list[str]) -> None:
        self.project, self.said = project, said
        self.manifest: dict[str, Any] = json.loads(
            (ManifestStore(project).parse_dir / "manifest.json").read_bytes()
        )
        self.store = ManifestStore(project)
        self.pipelines = load_pipelines(project).valid
        self.dbt = Dbt(project)
        self.dbt.parse()

    def plan(self, name: str) -> PipelinePlan:
        return plan_pipeline(self.pipelines[name], self.store.read(name))

    def planned(self, name: str) -> set[str]:
        """What the tasks of a pipeline run, and the sources that they check."""
        tasks = [task for task in self.plan(name).tasks.values() if task.kind is not TaskKind.HOOK]
        nodes = [node for task in tasks for node in task.nodes]
        assert len(nodes) == len(set(nodes))
        return {*nodes, *self.store.read(name)["sources"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    root = tmp_path_factory.mktemp("kinds") / "project"
    pipelines = {f"dbt/pipelines/{name}.yml": text for name, text in PIPELINES.items()}
    profile = (
        "tiny:\n  target: dev\n  outputs:\n"
        "    dev: {type: postgres, host: 127.0.0.1, port: 1, user: u, password: p, dbname: d, schema: s}\n"
    )
    shutil.copytree(ROOT / "dags", root / "dags")
    write_files(root, {**kinds.FILES, **kinds.CASED, **pipelines, "dbt/profiles.yml": profile})
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        own_environment(patch)
        patch.setenv("ORRERY_PROJECT_DIR", str(root))
        made = build_manifests(Project(root), said.append)
        assert made.errors == {}
        yield Built(Project(root), said)


@pytest.mark.parametrize("name", ["all", "tests_at_the_end", "tests_off", "models"])
def test_every_resource_is_in_the_plan_or_named_with_the_reason(built: Built, name: str) -> None:
    config = built.pipelines[name].config
    listed = built.dbt.select(config.select or ())
    planned = built.planned(name)
    left = left_out(listed, built.manifest, built.store.read(name), tests=config.tests != "off")
    assert listed == (planned & listed) | left.keys()
    assert planned.isdisjoint(left)
    # Every type of resource that dbt lists is in the project, or this test says nothing about it.
    if name == "all":
        from dbt.node_types import NodeType
        from dbt.task.list import ListTask

        assert {type_of(uid) for uid in listed} == {
            str(NodeType(kind)) for kind in ListTask.ALL_RESOURCE_VALUES
        }


def test_what_is_left_out_is_said_in_one_line(built: Built) -> None:
    (line,) = [line for line in built.said if line.startswith("Left out")]
    assert line == (
        "Left out: 1 metric: how_many, 1 saved query: saved, 1 semantic model: sem (dbt build does nothing"
        " for these); 1 analysis: look (dbt only compiles analyses); 1 exposure: board (without a run block,"
        " or not all that they depend on is in one pipeline); 5 sources (without ingestion, freshness and"
        " tests)."
    )


def test_a_unit_test_without_its_model_is_left_out(built: Built) -> None:
    left = left_out(
        {"unit_test.kinds.dim.of_dim", "model.kinds.unread"},
        built.manifest,
        built.store.read("lonely_unit_test"),
        tests=True,
    )
    reason = "dbt build runs unit tests with their models only, which are not selected"
    assert left == {"unit_test.kinds.dim.of_dim": reason}
    tasks = built.plan("lonely_unit_test").tasks.items()
    assert [task_id for task_id, task in tasks if task.kind is not TaskKind.HOOK] == ["core.unread"]


def test_functions_have_tasks_in_the_order_of_dbt(built: Built) -> None:
    made = built.plan("all")
    tasks = made.tasks
    assert made.stages[:4] == ("seed", "function", "source_freshness", "source_tests")
    assert {task_id for task_id, task in tasks.items() if task.kind is TaskKind.FUNCTION} == {
        "function.is_even",
        "function.above",
        "function.is_odd",
    }
    assert "function.is_even" in tasks["staging.stg"].upstream
    assert "core.dim" in tasks["function.above"].upstream
    assert "function.above" in tasks["core.reads_function"].upstream
    # dbt's rule for tests: they hold back no function, but what comes after it.
    assert "tests.dim" not in tasks["function.above"].upstream
    assert "tests.dim" in tasks["core.reads_function"].upstream
    assert "function.is_even" in tasks["tests.is_even"].upstream
    doc = tasks["function.is_even"].doc
    assert "| n | integer | Any number. |" in doc
    assert "Returns `boolean`" in doc
    assert "Whether a number is even." in doc
    assert "select n % 2 = 0" in doc


def test_readers_of_a_source_wait_for_what_makes_it_however_it_is_written(built: Built) -> None:
    tasks = built.plan("all").tasks
    upstream = {task_id: set(task.upstream) for task_id, task in tasks.items()}
    assert "seed.raw" in upstream["core.reads_plain"]
    assert "seed.raw" in upstream["core.reads_bare"]
    assert "core.alias" in upstream["core.reads_aliased"]
    assert "snapshot.snap" in upstream["core.reads_kept"]
    assert "seed.raw" in upstream["source_freshness.app__fresh"]
    assert "seed.raw" in upstream["source_tests.app__raw"]
    # A test and an exposure read it, too.
    assert upstream["tests.dim_and_aliased"] >= {"core.dim", "core.alias"}
    assert upstream["exposures.refresh"] >= {"core.dim", "core.alias"}


def test_the_age_of_a_source_that_dbt_cannot_tell_is_not_checked(built: Built) -> None:
    assert "source_freshness.app__unknown_age" not in built.plan("all").tasks
    (line,) = [line for line in built.said if "unknown_age" in line and not line.startswith("Left out")]
    number = next(at for at, text in enumerate(kinds.SOURCES.splitlines(), start=1) if "unknown_age" in text)
    assert line == (
        f"dbt/models/sources.yml:{number}: the age of the source app.unknown_age is not checked: it has"
        " neither loaded_at_field nor loaded_at_query, and this warehouse does not tell when a table has"
        " changed. Add loaded_at_field or loaded_at_query, remove freshness, or write freshness: off in the"
        " pipeline."
    )


def test_vars_of_a_pipeline_choose_its_nodes(built: Built) -> None:
    assert built.planned("more") - built.planned("all") == set(kinds.ENABLED)
    assert built.plan("more").config.vars == {"more": True}


def test_given_nodes_are_selected_and_no_others_whatever_their_names(built: Built, tmp_path: Path) -> None:
    nodes = sorted(built.planned("all") | {"source.kinds.app.unread"})
    generator = random.Random(1)
    chosen = [set(generator.sample(nodes, len(nodes) // 2)) for _ in range(6)]
    # By its name, each of these is another one, too.
    names = ("folder", "kinds", "nightly", "v2", "dotted.name", "ver.v2", "Cased", "twin")
    chosen += [{f"model.kinds.{name}"} for name in names]
    assert len(built.dbt.select(("fqn:kinds.folder",))) > 1, "names are not enough"
    assert len(built.dbt.select(("fqn:kinds.dotted.name",))) > 1
    for uids in chosen:
        arguments = exactly(uids, tmp_path / "selected")
        lines = built.dbt._invoke(
            ["ls"], resource_types=("all",), output="json", output_keys=("unique_id",), **arguments
        )
        assert {json.loads(line)["unique_id"] for line in lines} == uids


def test_no_two_tasks_share_a_name(built: Built) -> None:
    # Airflow would refuse them; in file systems and on pages, case may not count.
    tasks = [task_id.lower() for task_id in built.plan("all").tasks]
    assert len(tasks) == len(set(tasks)) + 1, "but for Cased and cased"


def test_every_task_and_edge_is_in_airflow_wherever_dbt_runs(built: Built) -> None:
    dags = load(built.project.root).dags
    for name in ("all", "per_model", "pods", "single_pods"):
        graph = {task.task_id: set(task.upstream_task_ids) for task in dags[name].tasks}
        build = {"build"} & graph.keys()
        assert build == (set() if name in ("per_model", "single_pods") else {"build"})
        tasks = built.plan(name).tasks
        assert {task_id: parents - build for task_id, parents in graph.items() if task_id not in build} == {
            task_id: set(task.upstream) for task_id, task in tasks.items()
        }
        shown = dags[name].get_task("function.is_even")
        assert (shown.custom_operator_name, shown.nodes) == ("dbt function", ("function.kinds.is_even",))
        assert "Returns `boolean`" in shown.doc_md


def test_the_graph_holds_the_order_of_dbt_build(built: Built) -> None:
    from dbt.compilation import Linker
    from networkx import DiGraph, ancestors

    linker = Linker()
    linker.link_graph(built.dbt.manifest)
    linker.add_test_edges(built.dbt.manifest)
    made = built.plan("all")
    task_of = {uid: task_id for task_id, task in made.tasks.items() for uid in task.nodes}
    planned = DiGraph({task_id: task.upstream for task_id, task in made.tasks.items()}).reverse()
    before = {task_id: ancestors(planned, task_id) for task_id in made.tasks}
    for uid in task_of.keys() & linker.graph.nodes:
        # In dbt's graph unit tests come after their model; it runs them before it all the same.
        if type_of(uid) == "unit_test":
            continue
        first = {task_of[other] for other in ancestors(linker.graph, uid) & task_of.keys()} - {task_of[uid]}
        assert first <= before[task_of[uid]], uid
    assert "tests.dim" not in before["function.above"]
