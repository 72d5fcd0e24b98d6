"""The tasks, groups and edges of the shipped pipeline are those of dbt's lineage, exactly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.exceptions import AirflowDagCycleException
from airflow.serialization.serialized_objects import DagSerialization

from conftest import write_files
from integrity.conftest import ROOT, copy_project, load, silent
from integrity.expected import Graph, differences, expected_graph
from orrery.config.project import Project
from orrery.manifest.build import build_manifests

# Their pipelines select all that carries the tag.
TAGS = ("booking_analytics", "forex", "sales_marketing", "events")
TAG = TAGS[0]
TESTS = ("gate", "end", "off")
# The ways to run nodes, each with the tasks outside of all groups.
EXECUTE: dict[str, set[str]] = {
    "build": {"build"},
    "per_model": set(),
    "pods_build": {"build"},
    "pods_per_model": set(),
}


def way(execute: str) -> str:
    """What the pipeline's file says of it."""
    pods = execute.removeprefix("pods_")
    # `stale: skip` changes nothing of the graph.
    return (
        f"execute: {execute}\nstale: skip\n"
        if pods == execute
        else f"execute: kubernetes\nkubernetes: {{pods: {pods}}}\nstale: skip\n"
    )


def graph_of(dag: Any) -> Graph:
    """Task ids, and what each waits for."""
    return {task.task_id: set(task.upstream_task_ids) for task in dag.tasks}


def groups_of(dag: Any) -> dict[str, set[str]]:
    """The task groups of a DAG with the ids of their tasks; none lies in another."""
    groups = {
        label: child for label, child in dag.task_group.children.items() if isinstance(child, TaskGroup)
    }
    return {name: {child.node_id for child in group.children.values()} for name, group in groups.items()}


@pytest.fixture(scope="module")
def manifest(shipped_target: Path) -> dict[str, Any]:
    """dbt's own manifest of the shipped project."""
    return dict(json.loads((shipped_target / "orrery/dbt/manifest.json").read_bytes()))


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory, shipped_target: Path) -> Iterator[Any]:
    """A copy of the project with one pipeline per way to run tests, and per way to run nodes."""
    project = copy_project(tmp_path_factory.mktemp("modes"), shipped_target)
    files = {
        f"dbt/pipelines/{tag}_{mode}_{execute}.yml": (f"select: tag:{tag}\ntests: {mode}\n{way(execute)}")
        for tag in TAGS
        for mode in TESTS
        for execute in EXECUTE
    }
    write_files(project.root, files)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ORRERY_PROJECT_DIR", str(project.root))
        patch.delenv("ORRERY_TARGET_PATH", raising=False)
        assert build_manifests(project, silent).errors == {}
        yield load(project.root)


def test_the_expected_graph_is_worth_comparing_with(manifest: dict[str, Any]) -> None:
    graphs = [expected_graph(manifest, tag, "gate") for tag in TAGS]
    assert {task.partition(".")[0] for graph in graphs for task in graph} == {
        "ingest",
        "seed",
        "source_freshness",
        "source_tests",
        "staging",
        "snapshot",
        "core",
        "tests",
        "exposures",
        "hooks",
        "build",
    }


def test_the_shipped_pipeline(shipped: Any, manifest: dict[str, Any]) -> None:
    settings = yaml.safe_load((ROOT / "dbt/pipelines/booking_analytics.yml").read_text())
    assert (settings["tests"], settings.get("execute", "build")) == ("gate", "build")
    dag = shipped.dags["booking_analytics"]
    expected = with_publish(expected_graph(manifest, TAG, "gate"), EXECUTE["build"], elementary=True)
    assert differences(expected, graph_of(dag)) == []


def with_publish(graph: Graph, build: set[str], *, elementary: bool) -> Graph:
    """The graph of a pipeline that publishes docs and artifacts, too."""
    last = graph.keys() - set().union(*graph.values())
    tasks = {"publish.docs": last | build, "publish.artifacts": {"publish.docs"}}
    return graph | tasks | ({"publish.elementary": last | build} if elementary else {})


@pytest.mark.parametrize(
    ("pipeline", "tag", "published"),
    [
        ("events_batch", "events", ("docs",)),
        ("sales_marketing", "sales_marketing", ("docs", "artifacts")),
    ],
)
def test_the_shipped_pipelines_that_publish(
    shipped: Any, manifest: dict[str, Any], pipeline: str, tag: str, published: tuple[str, ...]
) -> None:
    expected = expected_graph(manifest, tag, "gate", published=published)
    assert differences(expected, graph_of(shipped.dags[pipeline])) == []


@pytest.mark.parametrize("execute", EXECUTE)
@pytest.mark.parametrize("mode", TESTS)
@pytest.mark.parametrize("tag", TAGS)
def test_each_way_to_run_tests(
    modes: Any, manifest: dict[str, Any], tag: str, mode: str, execute: str
) -> None:
    dag = modes.dags[f"{tag}_{mode}_{execute}"]
    expected = expected_graph(manifest, tag, mode, execute.removeprefix("pods_"))
    assert differences(expected, graph_of(dag)) == []
    by_stage: dict[str, set[str]] = {}
    for task in expected.keys() - EXECUTE[execute]:
        by_stage.setdefault(task.partition(".")[0], set()).add(task)
    assert groups_of(dag) == by_stage
    # Groups only group: edges run from task to task.
    assert not any(group.upstream_group_ids or group.downstream_group_ids for group in groups(dag))


@pytest.mark.parametrize("mode", TESTS)
@pytest.mark.parametrize("tag", TAGS)
def test_a_build_has_the_edges_of_single_models(modes: Any, tag: str, mode: str) -> None:
    one, many = (graph_of(modes.dags[f"{tag}_{mode}_{execute}"]) for execute in ("build", "per_model"))
    # The tasks of hooks wait for nothing but the build, too.
    hooks = {task: one.pop(task) for task in one.keys() - many.keys() - {"build"}}
    assert all(task.startswith("hooks.") and parents == {"build"} for task, parents in hooks.items())
    # A failure that tests hide is shown by the hooks' task there, and by a point in the graph here.
    many.pop("tests.all_nodes_succeeded", None)
    assert {task: parents - {"build"} for task, parents in one.items() if task != "build"} == many
    # All that wait for nothing but the build and data, and no other: longer ways lead through these.
    ingests = {task for task in many if task.startswith("ingest.")}
    assert {task for task, parents in one.items() if "build" in parents} == {
        task for task, parents in many.items() if parents <= ingests
    } - ingests
    assert one["build"] == ingests - set().union(*(many[task] for task in ingests))
    assert "build" not in many


@pytest.mark.parametrize("execute", ["per_model", "pods_per_model"])
def test_a_task_for_itself_knows_the_checks_of_the_sources_that_it_reads(modes: Any, execute: str) -> None:
    dag = modes.dags[f"booking_analytics_gate_{execute}"]
    check = "source_freshness.bookings_app__payments"
    reading = {task.task_id for task in dag.tasks if check in getattr(task, "checks", ())}
    assert {"staging.stg_bookings_app__payments", "core.fct_payments", "tests.fct_payments"} <= reading
    assert reading == dag.get_task(check).get_flat_relative_ids(upstream=False) & {
        task.task_id for task in dag.tasks if hasattr(task, "checks")
    }
    assert {task.stale for task in dag.tasks if hasattr(task, "checks")} == {"skip"}


@pytest.mark.parametrize("execute", EXECUTE)
@pytest.mark.parametrize("mode", TESTS)
@pytest.mark.parametrize("tag", TAGS)
def test_airflow_can_order_the_groups(modes: Any, tag: str, mode: str, execute: str) -> None:
    # Its graph page does this, and stays empty where it cannot.
    dag = modes.dags[f"{tag}_{mode}_{execute}"]
    ordered = [child.node_id for child in dag.task_group.topological_sort()]
    assert set(ordered) == set(groups_of(dag)) | EXECUTE[execute]
    assert not EXECUTE[execute] or ordered.index("build") == ("ingest" in ordered)


def test_airflow_cannot_order_groups_that_wait_for_each_other() -> None:
    with DAG("tangled", schedule=None) as dag:
        with TaskGroup("a"):
            first, last = EmptyOperator(task_id="first"), EmptyOperator(task_id="last")
        with TaskGroup("b"):
            between = EmptyOperator(task_id="between")
        first >> between >> last
    with pytest.raises(AirflowDagCycleException):
        dag.task_group.topological_sort()


def groups(dag: Any) -> list[TaskGroup]:
    return [child for child in dag.task_group.children.values() if isinstance(child, TaskGroup)]


def test_a_few_edges_by_hand(shipped: Any) -> None:
    graph = graph_of(shipped.dags["booking_analytics"])
    assert graph["source_freshness.bookings_app__bookings"] == {
        "seed.raw_bookings",
        "tests.raw_bookings",
    } & set(graph)
    assert graph["build"] == set()
    assert graph["seed.raw_bookings"] == graph["tests.begin"] == {"build"}
    assert graph["core.fct_bookings"] >= {"core.int_bookings__converted_to_eur"}
    assert graph["tests.assert_monthly_revenue_reconciles"] == {
        "core.fct_bookings",
        "core.fct_monthly_revenue",
        "tests.begin",
    }
    assert graph["tests.assert_completed_bookings_are_paid"] >= {"core.fct_bookings", "core.fct_payments"}
    assert graph["tests.fct_bookings__unit"] == graph["core.fct_bookings"] - {"tests.fct_bookings__unit"}
    assert "tests.assert_completed_bookings_are_paid" in graph["core.fct_monthly_revenue"]


def test_an_ingestion_in_chunks(shipped: Any) -> None:
    dag = shipped.dags["forex"]
    graph, name = graph_of(dag), "ingest.forex__transactions"
    assert (graph[name], graph[f"{name}__chunks"]) == ({f"{name}__chunks"}, {f"{name}__split"})
    assert graph[f"{name}__split"] == set()
    # What reads the source waits for the last of them.
    assert {task for task, parents in graph.items() if parents & {f"{name}__chunks", f"{name}__split"}} == {
        name,
        f"{name}__chunks",
    }
    assert graph["build"] == {name, "ingest.forex__reference_rates"}
    chunks = dag.get_task(f"{name}__chunks")
    assert isinstance(chunks, MappedOperator)
    assert [task.task_id for task in chunks.iter_mapped_dependencies()] == [f"{name}__split"]
    settings = {(task.owner, task.retries, task.trigger_rule) for task in dag.tasks if name in task.task_id}
    assert settings == {("Treasury Team", 1, "none_failed")}
    assert all(dag.get_task(task).doc_md for task in (name, f"{name}__split", f"{name}__chunks"))
    # Airflow's scheduler works with this copy of it.
    restored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert restored.get_task(f"{name}__chunks").is_mapped


def test_the_comparison_reports_every_kind_of_difference() -> None:
    expected = {"a": set(), "b": {"a"}, "c": {"b"}}
    assert differences(expected, {"a": set(), "b": {"a"}, "c": {"b"}}) == []
    assert differences(expected, {"a": set(), "b": set(), "c": {"b"}}) == ["no edge a -> b"]
    assert differences(expected, {"a": set(), "b": {"a"}, "c": {"b", "a"}}) == ["unexpected edge a -> c"]
    assert differences(expected, {"a": set(), "b": {"a"}}) == ["no task c"]
    assert differences(expected, {**expected, "d": set()}) == ["unexpected task d"]


def test_the_comparison_notices_a_change_of_the_lineage(shipped: Any, manifest: dict[str, Any]) -> None:
    graph = graph_of(shipped.dags["booking_analytics"])
    changed = json.loads(json.dumps(manifest))
    nodes = changed["nodes"]
    nodes["model.orrery_demo.dim_properties"]["depends_on"]["nodes"].remove("model.orrery_demo.fct_bookings")
    del nodes["model.orrery_demo.dim_booking_history"]
    changed["nodes"] = {
        uid: node
        for uid, node in nodes.items()
        if "model.orrery_demo.dim_booking_history" not in node["depends_on"].get("nodes", [])
    }
    found = differences(expected_graph(changed, TAG, "gate"), graph)
    assert "unexpected edge core.fct_bookings -> core.dim_properties" in found
    assert "unexpected task core.dim_booking_history" in found


@pytest.mark.parametrize("execute", EXECUTE)
def test_what_is_published_decides_nothing_about_a_run(
    copy: Project, manifest: dict[str, Any], execute: str
) -> None:
    text = f"select: tag:forex\n{way(execute)}publish: {{elementary: true}}\n"
    after = "select: tag:events\nschedule: {after: [published]}\n"
    write_files(copy.root, {"dbt/pipelines/published.yml": text, "dbt/pipelines/after.yml": after})
    assert build_manifests(copy, silent).errors == {}
    dag = load(copy.root).dags["published"]
    expected = expected_graph(manifest, "forex", "gate", execute.removeprefix("pods_"))
    last = expected.keys() - set().union(*expected.values())
    expected = with_publish(expected, EXECUTE[execute], elementary=True)
    # What comes after the pipeline does not wait for it.
    expected["finished"] = last
    assert differences(expected, graph_of(dag)) == []
    teardowns = {task.task_id for task in dag.tasks if task.is_teardown and not task.on_failure_fail_dagrun}
    assert teardowns == {"publish.docs", "publish.artifacts", "publish.elementary"}
    # As the scheduler has it.
    scheduled = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert {task.task_id for task in scheduled.tasks if task.is_teardown} == teardowns
