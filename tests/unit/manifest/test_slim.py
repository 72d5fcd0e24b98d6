"""The slim manifest: what it keeps, and the order that it keeps."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orrery.manifest.slim import slim_manifest
from unit.manifest.resources import full_manifest, resource

FRESH = {"warn_after": {"count": 2, "period": "hour"}, "error_after": {"count": None, "period": None}}
NOT_FRESH = {"warn_after": {"count": None, "period": None}, "error_after": {"count": None, "period": None}}


def parents_in(slim: dict[str, Any]) -> dict[str, list[str]]:
    """The parents of every node and source of a slim manifest, sorted."""
    return {
        uid: sorted(item["depends_on"]["nodes"])
        for section in ("sources", "nodes")
        for uid, item in slim[section].items()
    }


def model(name: str, *parents: str, **more: Any) -> dict[str, Any]:
    return resource("model", name, [f"model.shop.{p}" if "." not in p else p for p in parents], **more)


def test_order_holds_across_nodes_that_are_not_selected() -> None:
    manifest = full_manifest(
        model("a"), model("b", "a"), model("c", "b"), model("d", "b", "a"), model("e", "c", "d")
    )
    slim = slim_manifest(manifest, {"model.shop.a", "model.shop.d", "model.shop.e"}, {})
    assert parents_in(slim) == {
        "model.shop.a": [],
        "model.shop.d": ["model.shop.a"],
        "model.shop.e": ["model.shop.a", "model.shop.d"],
    }


def random_manifest(seed: int) -> tuple[dict[str, Any], set[str]]:
    """A random lineage, and a random selection of it."""
    generator = random.Random(seed)
    count = generator.randint(2, 25)
    models = [model(f"m{i}", *(f"m{j}" for j in range(i) if generator.random() < 0.2)) for i in range(count)]
    chosen = {item["unique_id"] for item in models if generator.random() < 0.5}
    generator.shuffle(models)
    return full_manifest(*models), chosen


@pytest.mark.parametrize("seed", range(40))
def test_the_nearest_kept_ancestors_are_the_parents(seed: int) -> None:
    manifest, chosen = random_manifest(seed)

    def nearest(uid: str) -> set[str]:
        found: set[str] = set()
        for parent in manifest["nodes"][uid]["depends_on"]["nodes"]:
            found |= {parent} if parent in chosen else nearest(parent)
        return found

    slim = slim_manifest(manifest, chosen, {})
    assert parents_in(slim) == {uid: sorted(nearest(uid)) for uid in chosen}
    order = list(slim["nodes"])
    assert all(order.index(p) < order.index(uid) for uid in order for p in nearest(uid))


def test_sources_read_by_selected_nodes_come_along() -> None:
    manifest = full_manifest(
        resource("source", "app.read", freshness=FRESH),
        resource("source", "app.unread", freshness=FRESH),
        resource("source", "app.selected", freshness=FRESH),
        model("a", "source.shop.app.read"),
        model("other", "source.shop.app.unread"),
    )
    slim = slim_manifest(manifest, {"model.shop.a", "source.shop.app.selected"}, {})
    assert set(slim["sources"]) == {"source.shop.app.read", "source.shop.app.selected"}
    assert parents_in(slim)["model.shop.a"] == ["source.shop.app.read"]


@pytest.mark.parametrize(
    ("freshness", "tested", "kept"),
    [
        (None, False, False),
        (NOT_FRESH, False, False),
        (FRESH, False, True),
        (NOT_FRESH, True, True),
        ({"warn_after": {}, "error_after": {"count": 1, "period": "day"}}, False, True),
    ],
)
def test_a_source_has_an_entry_when_something_checks_it(
    freshness: dict[str, Any] | None, tested: bool, kept: bool
) -> None:
    source = resource("source", "app.orders", freshness=freshness)
    test = resource("test", "not_null_orders", [source["unique_id"]] if tested else [])
    slim = slim_manifest(full_manifest(source, test, model("a", source["unique_id"])), {"model.shop.a"}, {})
    assert set(slim["sources"]) == ({source["unique_id"]} if kept else set())
    assert parents_in(slim)["model.shop.a"] == ([source["unique_id"]] if kept else [])


def test_a_source_depends_on_the_seed_that_makes_its_table() -> None:
    manifest = full_manifest(
        resource("seed", "raw_orders", relation_name='"db"."raw"."orders"'),
        resource("source", "app.orders", relation_name='"db"."raw"."orders"', freshness=FRESH),
        resource("source", "app.others", relation_name='"db"."raw"."others"', freshness=FRESH),
        model("a", "source.shop.app.orders", "source.shop.app.others"),
    )
    slim = slim_manifest(manifest, {"model.shop.a", "seed.shop.raw_orders"}, {})
    assert parents_in(slim)["source.shop.app.orders"] == ["seed.shop.raw_orders"]
    assert parents_in(slim)["source.shop.app.others"] == []
    # A seed that is not selected is loaded by somebody else.
    alone = slim_manifest(manifest, {"model.shop.a"}, {})
    assert parents_in(alone)["source.shop.app.orders"] == []


def test_a_model_waits_for_the_seed_of_a_source_that_nothing_checks() -> None:
    source = resource("source", "app.orders", relation_name="orders", freshness=None)
    seed = resource("seed", "raw_orders", relation_name="orders")
    manifest = full_manifest(seed, source, model("a", source["unique_id"]))
    slim = slim_manifest(manifest, {"model.shop.a", "seed.shop.raw_orders"}, {})
    assert parents_in(slim) == {"seed.shop.raw_orders": [], "model.shop.a": ["seed.shop.raw_orders"]}
    assert slim["made_by"] == {source["unique_id"]: ["seed.shop.raw_orders"]}


def test_order_holds_across_a_maker_that_is_not_selected() -> None:
    manifest = full_manifest(
        model("first"),
        model("maker", "first", relation_name="made"),
        resource("source", "app.made", relation_name="made"),
        model("reader", "source.shop.app.made"),
    )
    slim = slim_manifest(manifest, {"model.shop.first", "model.shop.reader"}, {})
    assert parents_in(slim)["model.shop.reader"] == ["model.shop.first"]


def test_a_node_that_reads_its_own_table_as_a_source_does_not_wait_for_itself() -> None:
    table = '"db"."s"."state"'
    manifest = full_manifest(
        resource("source", "own.state", relation_name=table, freshness=FRESH),
        model("first", "source.shop.own.state"),
        model("state", "first", relation_name=table),
    )
    slim = slim_manifest(manifest, {"model.shop.first", "model.shop.state"}, {})
    assert parents_in(slim) == {
        "source.shop.own.state": [],
        "model.shop.first": ["source.shop.own.state"],
        "model.shop.state": ["model.shop.first"],
    }


def test_two_sources_that_read_each_others_makers_do_not_wait_in_a_circle() -> None:
    manifest = full_manifest(
        resource("source", "own.one", relation_name="one", freshness=FRESH),
        resource("source", "own.two", relation_name="two", freshness=FRESH),
        model("one", "source.shop.own.two", relation_name="one"),
        model("two", "source.shop.own.one", relation_name="two"),
    )
    slim = slim_manifest(manifest, {"model.shop.one", "model.shop.two"}, {})
    assert set(parents_in(slim)) == set(manifest["sources"]) | set(manifest["nodes"])


def test_tests_follow_what_they_test() -> None:
    source = resource("source", "app.orders", freshness=None)
    unread = resource("source", "app.unread", freshness=FRESH)
    manifest = full_manifest(
        source,
        unread,
        model("a", source["unique_id"]),
        model("b"),
        # Not selected by a tag of the models, but on a source that a selected model reads.
        resource("test", "on_read_source", [source["unique_id"]]),
        resource("test", "on_unread_source", [unread["unique_id"]]),
        resource("test", "on_source_and_model", [source["unique_id"], "model.shop.b"]),
        resource("test", "selected", ["model.shop.a", "model.shop.b"]),
        resource("test", "not_selected", ["model.shop.a"]),
        resource("unit_test", "unit_of_a", ["model.shop.a"]),
        resource("unit_test", "unit_of_b", ["model.shop.b"]),
    )
    selected = {"model.shop.a", "test.shop.selected", "unit_test.shop.unit_of_a"}
    slim = slim_manifest(manifest, selected, {})
    tested = {uid: test["depends_on"]["nodes"] for uid, test in slim["tests"].items()}
    assert tested == {
        "test.shop.on_read_source": [source["unique_id"]],
        # Only the nodes of the pipeline count.
        "test.shop.selected": ["model.shop.a"],
        "unit_test.shop.unit_of_a": ["model.shop.a"],
    }


def test_a_selected_test_of_an_unselected_source_brings_the_source_along() -> None:
    source = resource("source", "app.orders", freshness=None)
    test = resource("test", "on_source", [source["unique_id"]])
    slim = slim_manifest(full_manifest(source, test, model("a")), {"model.shop.a", test["unique_id"]}, {})
    assert set(slim["tests"]) == {test["unique_id"]}
    # The test waits for nothing: its source is not the pipeline's.
    assert slim["tests"][test["unique_id"]]["depends_on"]["nodes"] == []


def test_what_is_no_node_of_a_graph_is_left_out() -> None:
    manifest = full_manifest(
        resource("analysis", "looked_at"),
        resource("operation", "hook"),
        model("a"),
        resource("snapshot", "s"),
    )
    slim = slim_manifest(manifest, {*manifest["nodes"], "exposure.shop.dashboard"}, {})
    assert set(slim["nodes"]) == {"model.shop.a", "snapshot.shop.s"}


def test_groups_stages_and_what_a_task_shows() -> None:
    manifest = full_manifest(
        model(
            "a",
            description="One row per order.",
            raw_code="select 1",
            compiled_code="never stored",
            tags=["core"],
            group="sales",
            config={"materialized": "table", "severity": None, "pre-hook": ["never stored"]},
            columns={"id": {"name": "id", "data_type": "int", "description": "Key.", "tags": []}},
        ),
        groups=[{"name": "sales", "owner": {"name": "Sales Team", "email": None}}],
    )
    slim = slim_manifest(manifest, {"model.shop.a"}, {"bronze": {"model.shop.a"}})
    assert slim["groups"] == {"sales": {"owner": {"name": "Sales Team", "email": None}}}
    entry = slim["nodes"]["model.shop.a"]
    assert entry["stage"] == "bronze"
    assert entry["config"] == {"materialized": "table", "group": "sales"}
    assert entry["columns"] == {"id": {"data_type": "int", "description": "Key."}}
    assert (entry["raw_code"], entry["tags"]) == ("select 1", ["core"])
    assert "never stored" not in str(slim)
