"""dbt itself, on small projects."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from conftest import BASE, write_files
from orrery.config.project import Project
from orrery.manifest.dbt import Dbt

# `orders` is a model, a folder of models, and the beginning of another model's name.
FILES = {
    "dbt/models/orders.sql": "select 1 as id",
    "dbt/models/orders/lines.sql": "select * from {{ ref('orders') }}",
    "dbt/models/orders/orders_by_day.sql": "select * from {{ ref('lines') }}",
    "dbt/models/tiny.sql": "select * from {{ ref('numbers') }}",
    "dbt/models/ephemeral.sql": "{{ config(materialized='ephemeral') }} select 1 as id",
    "dbt/models/models.yml": (
        "models:\n"
        "- {name: orders, columns: [{name: id, data_tests: [not_null, unique]}]}\n"
        "- {name: lines, columns: [{name: id, data_tests: [not_null]}]}\n"
        "sources: [{name: orders, tables: [{name: orders, columns: [{name: id, data_tests: [unique]}]}]}]\n"
        "unit_tests:\n"
        "- {name: counts, model: lines, given: [], expect: {rows: [{id: 1}]}}\n"
        "- {name: orders, model: orders, given: [], expect: {rows: [{id: 1}]}}\n"
    ),
    "dbt/seeds/numbers.csv": "id\n1\n",
    "dbt/snapshots/kept.yml": (
        "snapshots: [{name: kept, relation: ref('orders'),"
        " config: {unique_key: id, strategy: check, check_cols: all}}]"
    ),
    "dbt/tests/orders_match.sql": "select * from {{ ref('orders') }} join {{ ref('lines') }} using (id)",
}


@pytest.fixture(scope="module")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    """dbt in the small project; it is parsed when it is first asked."""
    root = tmp_path_factory.mktemp("exactly")
    write_files(root, {**BASE, **FILES})
    return Dbt(Project(root), target_dir=root / "target")


def selected(dbt: Dbt, uids: Iterable[str]) -> set[str]:
    """What dbt selects with the arguments that mean exactly `uids`."""
    assert dbt.manifest
    arguments = dbt.exactly(uids)
    lines = dbt._invoke(["ls"], **arguments, output="json", output_keys=("unique_id",))
    return {json.loads(line)["unique_id"] for line in lines}


def everything(dbt: Dbt) -> set[str]:
    manifest = dbt.manifest
    return {*manifest.nodes, *manifest.unit_tests}


def test_the_project_has_all_kinds_of_nodes(dbt: Dbt) -> None:
    kinds = [uid.split(".")[0] for uid in everything(dbt)]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "model": 5,
        "test": 5,
        "unit_test": 2,
        "seed": 1,
        "snapshot": 1,
    }


def test_each_node_alone(dbt: Dbt) -> None:
    for uid in everything(dbt):
        assert selected(dbt, [uid]) == {uid}


def test_several_nodes(dbt: Dbt) -> None:
    everyone = everything(dbt)
    assert selected(dbt, everyone) == everyone
    models = {uid for uid in everyone if uid.startswith("model.")}
    # Without the tests that dbt would select along.
    assert selected(dbt, models) == models
    mixed = {
        "model.tiny.orders",
        "unit_test.tiny.lines.counts",
        "seed.tiny.numbers",
        "test.tiny.orders_match",
        "snapshot.tiny.kept",
    }
    assert selected(dbt, iter(mixed)) == mixed
    # What an earlier command has selected is forgotten.
    assert selected(dbt, ["model.tiny.orders"]) == {"model.tiny.orders"}


def test_a_selector_by_name_would_not_do(dbt: Dbt) -> None:
    found = {uid for uid in dbt.select(("orders",)) if uid.startswith("model.")}
    assert found == {"model.tiny.orders", "model.tiny.lines", "model.tiny.orders_by_day"}


def test_no_nodes(dbt: Dbt) -> None:
    assert selected(dbt, []) == set()


def test_what_the_project_does_not_have_is_not_selected(dbt: Dbt) -> None:
    assert selected(dbt, ["model.tiny.gone", "model.tiny.orders"]) == {"model.tiny.orders"}


def test_the_parsed_project_is_kept(dbt: Dbt) -> None:
    assert dbt.manifest is dbt.manifest
    before = dbt.manifest
    selected(dbt, ["model.tiny.orders"])
    assert dbt.manifest is before


def test_vars_reach_parsing_and_commands(tmp_path: Path) -> None:
    write_files(
        tmp_path,
        {
            **BASE,
            "dbt/models/a.sql": "{{ config(tags=var('tag', 'plain')) }} select 1 as id",
            "dbt/models/b.sql": "{{ config(enabled=var('wanted', false)) }} select 1 as id",
        },
    )
    project = Project(tmp_path)
    plain = Dbt(project, target_dir=tmp_path / "plain")
    chosen = Dbt(project, target_dir=tmp_path / "chosen", variables={"tag": "mine", "wanted": True})
    assert (plain.select(("tag:mine",)), plain.select(("*",))) == (set(), {"model.tiny.a"})
    assert chosen.select(("tag:mine",)) == {"model.tiny.a"}
    assert chosen.manifest.nodes["model.tiny.a"].tags == ["mine"]
    assert selected(chosen, ["model.tiny.a", "model.tiny.b"]) == {"model.tiny.a", "model.tiny.b"}
    assert not project.target_dir.exists()
