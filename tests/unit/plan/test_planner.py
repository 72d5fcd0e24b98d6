"""The plan of a pipeline: its tasks, their stages and their edges."""

from __future__ import annotations

from typing import Any

import pytest

from orrery.manifest.makers import source_makers
from orrery.manifest.slim import slim_manifest
from orrery.plan.model import PipelinePlan, Step, TaskKind
from unit.manifest.resources import Resource, full_manifest, resource
from unit.plan.projects import FRESH, edges, plan, random_resources
from unit.plan.test_lineage import first_common_descendants


def model(name: str, *parents: str, **more: Any) -> Resource:
    return resource("model", name, [p if "." in p else f"model.shop.{p}" for p in parents], **more)


def check(name: str, *parents: str, **more: Any) -> Resource:
    return resource("test", name, [p if "." in p else f"model.shop.{p}" for p in parents], **more)


CHAIN = [model("a"), model("b", "a"), model("c", "b"), check("not_null_b", "b"), check("unique_b", "b")]


def test_gate() -> None:
    assert edges(plan(*CHAIN)) == {
        "core.a": set(),
        "core.b": {"core.a"},
        "core.c": {"core.b", "tests.b"},
        "tests.b": {"core.b"},
    }


def test_end() -> None:
    made = plan(*CHAIN, resource("unit_test", "counts_c", ["model.shop.c"]), model("d", "a"), tests="end")
    assert edges(made) == {
        "core.a": set(),
        "core.b": {"core.a"},
        "core.c": {"core.b"},
        "core.d": {"core.a"},
        "tests.all_nodes_ended": {"core.c", "core.d"},
        "tests.b": {"core.b", "tests.all_nodes_ended"},
        "tests.c__unit": {"core.c", "tests.all_nodes_ended"},
        # It shows failures that tests hide which come after them.
        "hooks.on_run_end": set(),
    }
    marker = made.tasks["tests.all_nodes_ended"]
    assert (marker.kind, marker.always) == (TaskKind.MARKER, True)
    assert not any(task.always for task in made.tasks.values() if task is not marker)


def test_a_failed_node_fails_the_run_also_without_a_build() -> None:
    """Airflow judges a run by its last tasks, which are the tests."""
    made = plan(*CHAIN, model("d", "a"), tests="end", execute="per_model")
    assert edges(made)["tests.all_nodes_succeeded"] == {"core.c", "core.d"}
    assert not made.tasks["tests.all_nodes_succeeded"].always
    assert "hooks.on_run_end" not in made.tasks


def test_end_without_tests() -> None:
    assert edges(plan(model("a"), tests="end")) == {"core.a": set()}


HOOK = {"operation.shop.shop-on-run-end-0": "select 1"}


def test_hooks_are_tasks_that_the_build_ends() -> None:
    made = plan(model("a"), hooks={"on-run-start": HOOK, "on-run-end": {}})
    assert edges(made) == {"core.a": set(), "hooks.on_run_start": set()}
    task = made.tasks["hooks.on_run_start"]
    assert (task.kind, task.nodes) == (TaskKind.HOOK, tuple(HOOK))
    assert "```sql\nselect 1\n```" in task.doc
    alone = plan(model("a"), hooks={"on-run-start": HOOK, "on-run-end": HOOK}, execute="per_model")
    assert edges(alone) == {"core.a": set()}


def test_a_failure_that_variables_may_hide_has_a_task_to_show_it() -> None:
    made = plan(model("a", raw_code="select 1 from {{ ref('x' if var('g') else 'y') }}"))
    assert edges(made) == {"core.a": set(), "hooks.on_run_end": set()}


def test_off() -> None:
    made = plan(*CHAIN, resource("unit_test", "counts_c", ["model.shop.c"]), tests="off")
    assert edges(made) == {"core.a": set(), "core.b": {"core.a"}, "core.c": {"core.b"}}
    assert made.stages == ("core",)


def test_a_test_of_several_nodes_holds_back_what_descends_from_all_of_them() -> None:
    # The test reads both ends of a chain: gating all children of a would be a circle.
    made = plan(model("a"), model("b", "a"), model("c", "b"), check("sums_match", "a", "b"))
    assert edges(made) == {
        "core.a": set(),
        "core.b": {"core.a"},
        "core.c": {"core.b", "tests.sums_match"},
        "tests.sums_match": {"core.a", "core.b"},
    }


def test_a_test_of_several_nodes_without_common_descendants_holds_back_nothing() -> None:
    made = edges(plan(model("a"), model("b"), model("c", "a"), model("d", "b"), check("match", "a", "b")))
    assert made["core.c"] == {"core.a"}
    assert made["core.d"] == {"core.b"}


def test_a_test_that_reads_nothing_waits_for_nothing() -> None:
    made = edges(plan(model("a"), model("b", "a"), check("one", package="shop"), check("two")))
    assert made["tests.one"] == made["tests.two"] == set()
    assert made["core.b"] == {"core.a"}


def test_a_test_that_names_a_node_twice_is_a_test_of_one_node() -> None:
    made = plan(model("a"), check("self_join", "a", "a"), check("not_null_a", "a"))
    assert made.tasks["tests.a"].nodes == ("test.shop.not_null_a", "test.shop.self_join")


def test_unit_tests_run_after_the_parents_and_before_the_model() -> None:
    made = edges(
        plan(
            *CHAIN,
            resource("unit_test", "u1", ["model.shop.c"]),
            resource("unit_test", "u2", ["model.shop.c"]),
        )
    )
    assert made["tests.c__unit"] == {"core.b", "tests.b"}
    assert made["core.c"] == {"core.b", "tests.b", "tests.c__unit"}


def test_sources() -> None:
    made = plan(
        resource("seed", "raw_orders", relation_name="orders"),
        resource("source", "app.orders", relation_name="orders", freshness=FRESH),
        resource("source", "app.payments", freshness=FRESH),
        resource("source", "app.refunds", freshness=None),
        model("staging.stg_orders", "source.shop.app.orders"),
        model("staging.stg_payments", "source.shop.app.payments"),
        model("staging.stg_refunds", "source.shop.app.refunds"),
        check("unique_orders", "source.shop.app.orders"),
        check("unique_refunds", "source.shop.app.refunds"),
        check("orders_are_paid", "source.shop.app.orders", "source.shop.app.payments"),
        check("staged", "source.shop.app.orders", "model.shop.staging.stg_payments"),
    )
    assert edges(made) == {
        "seed.raw_orders": set(),
        "source_freshness.app__orders": {"seed.raw_orders"},
        "source_freshness.app__payments": set(),
        "source_tests.app__orders": {"source_freshness.app__orders"},
        # There is no freshness task to wait for.
        "source_tests.app__refunds": set(),
        "source_tests.orders_are_paid": {"source_freshness.app__orders", "source_freshness.app__payments"},
        "staging.staging_stg_orders": {"source_freshness.app__orders", "source_tests.app__orders"},
        "staging.staging_stg_payments": {"source_freshness.app__payments"},
        "staging.staging_stg_refunds": {"source_tests.app__refunds"},
        "tests.staged": {"source_freshness.app__orders", "staging.staging_stg_payments"},
    }
    assert made.stages == ("seed", "source_freshness", "source_tests", "staging", "tests")
    nodes = {tid: task.nodes for tid, task in made.tasks.items()}
    assert nodes["source_freshness.app__orders"] == ("source.shop.app.orders",)
    assert nodes["source_tests.app__orders"] == ("test.shop.unique_orders",)


def test_what_reads_a_source_waits_for_its_data() -> None:
    loaded = {"meta": {"orrery": {"ingest": {"files": "a.csv"}}}}
    made = plan(
        resource("source", "app.orders", freshness=FRESH, config=loaded, schema="landing", identifier="o"),
        resource("source", "app.refunds", freshness=None, config=loaded, schema="landing", identifier="r"),
        model("a", "source.shop.app.orders"),
        model("b", "source.shop.app.refunds"),
        check("unique_refunds", "source.shop.app.refunds"),
        ingest=["source.shop.app.orders", "source.shop.app.refunds"],
    )
    assert edges(made) == {
        "ingest.app__orders": set(),
        "ingest.app__refunds": set(),
        "source_freshness.app__orders": {"ingest.app__orders"},
        "source_tests.app__refunds": {"ingest.app__refunds"},
        "core.a": {"source_freshness.app__orders"},
        "core.b": {"ingest.app__refunds", "source_tests.app__refunds"},
    }
    assert made.stages[0] == "ingest"
    task = made.tasks["ingest.app__refunds"]
    assert task.kind is TaskKind.INGEST
    assert task.work
    assert (task.work.schema, task.work.table) == ("landing", "r")
    assert task.work.of == "app.refunds"


def test_an_ingestion_in_chunks_has_steps_of_its_own() -> None:
    loaded = {
        "freshness": None,
        "config": {"meta": {"orrery": {"ingest": {"files": "a.csv", "chunk_size": 1000}}}},
        "schema": "landing",
    }
    made = plan(
        resource("source", "app.orders", identifier="o", **loaded),
        # A table that is called like a step of another.
        resource("source", "app.orders__chunks", identifier="r", **loaded),
        model("a", "source.shop.app.orders"),
        model("b", "source.shop.app.orders__chunks"),
        ingest=["source.shop.app.orders", "source.shop.app.orders__chunks"],
        chunk_size=1000,
    )
    waits = edges(made)
    assert waits["core.a"] == {"ingest.app__orders"}
    (chunks,) = waits["ingest.app__orders"]
    assert chunks.startswith("ingest.app__orders__chunks_")
    assert waits[chunks] == {"ingest.app__orders__split"}
    assert waits["ingest.app__orders__split"] == set()
    assert waits["core.b"] == {"ingest.app__orders__chunks"}
    assert waits["ingest.app__orders__chunks"] == {"ingest.app__orders__chunks__chunks"}
    tasks = [task for task in made.tasks.values() if task.stage == "ingest"]
    assert len(tasks) == 6
    assert {task.kind for task in tasks} == {TaskKind.INGEST}
    steps = {task.task_id: task.step for task in tasks[:3]}
    assert steps == {
        "ingest.app__orders__split": Step.SPLIT,
        chunks: Step.CHUNKS,
        "ingest.app__orders": None,
    }


def test_source_tests_gate_even_when_the_others_come_last() -> None:
    made = edges(
        plan(
            resource("source", "app.orders", freshness=None),
            model("a", "source.shop.app.orders"),
            check("unique_orders", "source.shop.app.orders"),
            check("unique_a", "a"),
            tests="end",
        )
    )
    assert made["core.a"] == {"source_tests.app__orders"}


def test_a_model_waits_for_the_seed_behind_a_source_without_a_task() -> None:
    made = edges(
        plan(
            resource("seed", "raw_orders", relation_name="orders"),
            resource("source", "app.orders", relation_name="orders", freshness=None),
            model("a", "source.shop.app.orders"),
        )
    )
    assert made == {"seed.raw_orders": set(), "core.a": {"seed.raw_orders"}}


def test_the_test_of_a_seed_holds_back_what_reads_it_through_a_source_without_a_task() -> None:
    made = edges(
        plan(
            resource("seed", "raw_orders", relation_name="orders"),
            resource("source", "app.orders", relation_name="orders", freshness=None),
            model("a", "source.shop.app.orders"),
            check("unique_raw_orders", "seed.shop.raw_orders"),
        )
    )
    assert made["core.a"] == {"seed.raw_orders", "tests.raw_orders"}


def test_stages_by_type_folder_and_choice() -> None:
    made = plan(
        resource("seed", "s"),
        resource("snapshot", "snap"),
        model("product.staging.x"),
        model("product.core.y"),
        model("staging"),
        model("product.bronze.z"),
        resource("seed", "own"),
        stages={"bronze": {"model.shop.product.bronze.z"}, "landing": {"seed.shop.own"}},
    )
    assert {task.nodes[0]: task.stage for task in made.tasks.values()} == {
        "seed.shop.s": "seed",
        "snapshot.shop.snap": "snapshot",
        "model.shop.product.staging.x": "staging",
        "model.shop.product.core.y": "core",
        # A folder is meant, not the name of a model.
        "model.shop.staging": "core",
        "model.shop.product.bronze.z": "bronze",
        "seed.shop.own": "landing",
    }
    assert made.stages == ("seed", "bronze", "landing", "staging", "snapshot", "core")
    assert all(task.task_id == f"{task.stage}.{task.name}" for task in made.tasks.values())


def test_the_same_name_in_two_packages() -> None:
    made = plan(
        model("orders"),
        model("orders", package="other"),
        model("lines"),
        check("valid", "orders"),
        check("valid", "orders", package="other"),
        check("unique", "model.other.orders"),
        check("both", "orders", "model.other.orders"),
    )
    assert set(made.tasks) == {
        "core.shop__orders",
        "core.other__orders",
        "core.lines",
        "tests.shop__orders",
        "tests.other__orders",
        "tests.both",
    }
    assert made.tasks["core.other__orders"].nodes == ("model.other.orders",)


def test_a_seed_and_a_model_may_share_a_name() -> None:
    made = plan(resource("seed", "orders"), model("orders", "seed.shop.orders"))
    assert edges(made) == {"seed.orders": set(), "core.orders": {"seed.orders"}}


def in_stage_tests(made: PipelinePlan) -> dict[str, tuple[str, ...]]:
    """What each task of the stage `tests` runs."""
    return {task_id: task.nodes for task_id, task in made.tasks.items() if task.stage == "tests"}


def test_a_seed_and_a_model_of_one_name_have_tests_of_their_own() -> None:
    made = in_stage_tests(
        plan(
            resource("seed", "orders", package="other"),
            model("orders"),
            check("unique_seed", "seed.other.orders"),
            check("unique_model", "orders"),
        )
    )
    assert sorted(made.values()) == [("test.shop.unique_model",), ("test.shop.unique_seed",)]


def test_a_test_may_be_called_like_a_model() -> None:
    made = in_stage_tests(
        plan(model("b"), model("z"), check("unique_b", "b"), check("b", "b", "z"), check("z"))
    )
    assert made.pop("tests.b") == ("test.shop.unique_b",)
    assert made.pop("tests.z") == ("test.shop.z",)
    ((task_id, nodes),) = made.items()
    assert task_id.startswith("tests.b_")
    assert nodes == ("test.shop.b",)


@pytest.mark.parametrize("name", ["a__unit", "all_nodes_ended"])
def test_a_test_may_be_called_like_a_task(name: str) -> None:
    unit = resource("unit_test", "u", ["model.shop.a"])
    made = plan(model("a"), model("b"), check(name, "a", "b"), unit, tests="end")
    assert sorted(in_stage_tests(made).values()) == [(), (f"test.shop.{name}",), ("unit_test.shop.u",)]


def test_versions_of_a_model() -> None:
    made = plan(model("orders.v1"), model("orders.v2", "model.shop.orders.v1"))
    assert edges(made) == {"core.orders_v1": set(), "core.orders_v2": {"core.orders_v1"}}


def test_very_long_test_names_fit_into_airflow_and_stay_apart() -> None:
    first, second = "accepted_values_" + "x" * 300 + "_1", "accepted_values_" + "x" * 300 + "_2"
    made = plan(model("a"), model("b"), check(first, "a", "b"), check(second, "a", "b"))
    tests = [task for task in made.tasks.values() if task.stage == "tests"]
    assert len(tests) == 2
    assert all(len(task.task_id) <= 250 for task in tests)
    assert {task.nodes for task in tests} == {(f"test.shop.{first}",), (f"test.shop.{second}",)}
    # The names do not change from one parse to the next.
    again = plan(model("a"), model("b"), check(first, "a", "b"), check(second, "a", "b"))
    assert set(again.tasks) == set(made.tasks)


def test_characters_that_airflow_refuses() -> None:
    made = plan(model("a"), model("b"), check("is it 100%?", "a", "b"))
    assert "tests.is_it_100__" in made.tasks


GROUPS = [
    {"name": "named", "owner": {"name": "The Team", "email": "team@example.com"}},
    {"name": "mailed", "owner": {"name": None, "email": "mail@example.com"}},
    {"name": "listed", "owner": {"email": ["a@example.com", "b@example.com"]}},
    {"name": "both", "owner": {"name": "Pipeline Team"}},
]


@pytest.mark.parametrize(
    ("group", "pipeline", "owner"),
    [
        ("named", None, "The Team"),
        ("mailed", None, "mail@example.com"),
        # Airflow stores an owner as one word: with a list, it could read no DAG of the file.
        ("listed", None, "a@example.com, b@example.com"),
        ("named", "both", "The Team"),
        (None, "both", "Pipeline Team"),
        (None, None, None),
    ],
)
def test_owner(group: str | None, pipeline: str | None, owner: str | None) -> None:
    made = plan(
        model("a", group=group),
        check("unique_a", "a"),
        resource("unit_test", "u", ["model.shop.a"]),
        groups=GROUPS,
        owner=pipeline,
    )
    assert {task.task_id: task.owner for task in made.tasks.values() if task.nodes} == {
        "core.a": owner,
        "tests.a": owner,
        "tests.a__unit": owner,
    }


def test_an_ephemeral_model_is_a_marker() -> None:
    made = plan(model("a"), model("b", "a", config={"materialized": "ephemeral"}), model("c", "b"))
    assert made.tasks["core.b"].kind is TaskKind.MARKER
    assert edges(made)["core.c"] == {"core.b"}


def test_kinds() -> None:
    made = plan(
        resource("seed", "s"),
        resource("snapshot", "snap"),
        resource("source", "app.o", freshness=FRESH),
        model("m"),
        check("t", "m"),
        resource("unit_test", "u", ["model.shop.m"]),
    )
    assert {task_id: str(task.kind) for task_id, task in made.tasks.items()} == {
        "seed.s": "seed",
        "snapshot.snap": "snapshot",
        "source_freshness.app__o": "source freshness",
        "core.m": "model",
        "tests.m": "test",
        "tests.m__unit": "unit test",
        "tests.begin": "marker",
    }
    assert made.by_node == {
        "seed.shop.s": "seed.s",
        "snapshot.shop.snap": "snapshot.snap",
        "source.shop.app.o": "source_freshness.app__o",
        "model.shop.m": "core.m",
    }


@pytest.mark.parametrize("mode", ["gate", "end", "off"])
@pytest.mark.parametrize("seed", range(60))
def test_random_projects(seed: int, mode: str) -> None:
    resources = random_resources(seed)
    made = plan(*resources, tests=mode)
    graph = edges(made)

    # No edge leads out of the graph, and nothing waits for itself.
    assert set().union(*graph.values()) <= set(graph)
    ordered: set[str] = set()
    while len(ordered) < len(graph):
        ready = {task for task, upstream in graph.items() if task not in ordered and upstream <= ordered}
        assert ready, "a circle"
        ordered |= ready

    assert not tangled(made)

    # Every node, source with thresholds and test has exactly one task, but for tests that are off.
    expected = {r["unique_id"] for r in resources if r["resource_type"] != "source" or r["freshness"]}
    if mode == "off":
        expected = {uid for uid in expected if "test" not in uid.partition(".")[0]}
    ran = [node for task in made.tasks.values() for node in task.nodes]
    assert sorted(ran) == sorted(expected)
    check_waits(resources, made.by_node, graph)
    check_makers(resources, graph, {node: tid for tid, task in made.tasks.items() for node in task.nodes})
    if mode == "gate":
        check_gates(resources, made, graph)


def tangled(made: Any) -> bool:
    """Whether stages wait for each other, counting for a stage what its first tasks wait for."""
    waits: dict[str, set[str]] = {stage: set() for stage in made.stages}
    for task in made.tasks.values():
        others = {made.tasks[other].stage for other in task.upstream}
        if task.stage not in others:
            waits[task.stage] |= others
    while ready := [stage for stage, others in waits.items() if not others & waits.keys()]:
        for stage in ready:
            del waits[stage]
    return bool(waits)


def test_stages_that_wait_for_each_other_get_a_first_task() -> None:
    made = plan(
        model("a"),
        model("b", "a", fqn=["shop", "staging", "b"]),
        model("c", "b"),
        model("d", fqn=["shop", "staging", "d"]),
        model("e", "d"),
        check("not_null_b", "b"),
    )
    assert made.tasks["core.begin"].kind is TaskKind.MARKER
    graph = edges(made)
    assert graph["core.begin"] == set()
    assert {task for task, upstream in graph.items() if "core.begin" in upstream} == {
        "core.a",
        "core.c",
        "core.e",
    }
    assert graph["core.c"] == {"core.begin", "staging.b", "tests.b"}
    assert not tangled(made)


def check_waits(resources: list[Resource], by_node: Any, graph: dict[str, set[str]]) -> None:
    """Every node comes after the nodes that it reads, directly or through sources without a task."""
    for item in resources:
        for parent in item.get("depends_on", {}).get("nodes", []):
            if item["unique_id"] in by_node and parent in by_node:
                assert by_node[parent] in graph[by_node[item["unique_id"]]]


def check_makers(resources: list[Resource], graph: dict[str, set[str]], task_of: dict[str, str]) -> None:
    """What reads a source comes after the node that makes its table, if it does not come before it."""
    manifest = full_manifest(*resources)
    lineage = {r["unique_id"]: set(r.get("depends_on", {}).get("nodes", [])) for r in resources}
    for source, maker in source_makers(manifest["nodes"], manifest["sources"]).items():
        # Tests of a source that its own maker reads see the table as it was or as it is.
        own = source in above(maker, lineage)
        for item in resources:
            uid = item["unique_id"]
            if uid == maker or uid not in task_of or (own and item["resource_type"] == "test"):
                continue
            if source in lineage[uid]:
                reader, made = task_of[uid], task_of[maker]
                assert made in above(reader, graph) or reader in above(made, graph), (source, uid)


def above(task_id: str, graph: dict[str, set[str]]) -> set[str]:
    """All that a task waits for, directly or not."""
    found: set[str] = set()
    waiting = [task_id]
    while waiting:
        new = graph[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def check_gates(resources: list[Resource], made: Any, graph: dict[str, set[str]]) -> None:
    """A test is waited for by the first nodes that descend from all that it reads, and by no others."""
    slim = slim_manifest(full_manifest(*resources), {r["unique_id"] for r in resources}, {})
    lineage = {
        r["unique_id"]: r.get("depends_on", {}).get("nodes", [])
        for r in resources
        if r["resource_type"] not in ("test", "unit_test")
    }
    # What makes a source's table counts as a parent.
    for section in ("sources", "nodes"):
        lineage.update({uid: item["depends_on"]["nodes"] for uid, item in slim[section].items()})
    waiting: dict[str, set[str]] = {}
    for node, task in made.by_node.items():
        for other in graph[task]:
            waiting.setdefault(other, set()).add(node)
    for task_id, task in made.tasks.items():
        if task.kind is not TaskKind.TEST:
            continue
        tested = {p for r in resources if r["unique_id"] in task.nodes for p in r["depends_on"]["nodes"]}
        gated = first_common_descendants(lineage, sorted(tested))
        # In place of a source without a task, or of a function, what reads it.
        while passed := {uid for uid in gated if uid not in made.by_node or uid.startswith("function.")}:
            gated -= passed
            gated |= {uid for uid, parents in lineage.items() if passed & set(parents)}
        assert waiting.get(task_id, set()) == gated, task_id
