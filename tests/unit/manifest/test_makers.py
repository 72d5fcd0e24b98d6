"""Which node makes the table of a source, and who waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Any

import pytest

from conftest import WriteProject
from orrery.manifest.dbt import Dbt
from orrery.manifest.makers import parents_by_makers, source_makers
from unit.manifest.resources import full_manifest, resource

SOURCES = """
sources:
  - name: app
    schema: s
    tables:
      - name: plain
      - {name: bare, quoting: {identifier: false}}
      - {name: upper_bare, identifier: LOUD, quoting: {schema: false, identifier: false}}
      - {name: upper_quoted, identifier: LOUD}
      - {name: aliased, identifier: orders_v1}
      - {name: cased, identifier: Cased}
      - {name: nobodys}
      - {name: kept, identifier: kept_orders}
      - {name: passing}
  - {name: away, schema: elsewhere, tables: [{name: plain}]}
"""

FILES = {
    "dbt/models/sources.yml": SOURCES,
    "dbt/models/orders.sql": "{{ config(alias='orders_v1') }} select 1 as id",
    "dbt/models/cased_model.sql": "{{ config(alias='Cased') }} select 1 as id",
    "dbt/models/passing.sql": "{{ config(materialized='ephemeral') }} select 1 as id",
    "dbt/models/reads_plain.sql": "select * from {{ source('app', 'plain') }}",
    "dbt/models/reads_more.sql": (
        "select 1 from {{ source('app', 'bare') }}, {{ source('app', 'aliased') }}, {{ ref('plain') }}"
    ),
    "dbt/seeds/plain.csv": "id\n1\n",
    "dbt/seeds/bare.csv": "id\n1\n",
    "dbt/seeds/loud.csv": "id\n1\n",
    "dbt/snapshots/kept.yml": (
        "snapshots: [{name: kept_orders, relation: ref('orders'),"
        " config: {strategy: check, unique_key: id, check_cols: all}}]"
    ),
    "dbt/tests/reads_plain.sql": "select * from {{ source('app', 'plain') }} where id is null",
}

MAKERS = {
    "source.tiny.app.plain": "seed.tiny.plain",
    "source.tiny.app.bare": "seed.tiny.bare",
    # PostgreSQL folds what has no quotes to lower case, and nothing else.
    "source.tiny.app.upper_bare": "seed.tiny.loud",
    "source.tiny.app.aliased": "model.tiny.orders",
    "source.tiny.app.cased": "model.tiny.cased_model",
    "source.tiny.app.kept": "snapshot.tiny.kept_orders",
}


def test_makers_are_found_by_the_tables_that_dbt_writes_and_reads(write_project: WriteProject) -> None:
    dbt = Dbt(write_project(FILES))
    document = dbt.parse()
    assert source_makers(document["nodes"], document["sources"], "postgres") == MAKERS
    added = parents_by_makers(document["nodes"], document["sources"], "postgres")
    # dbt keeps no order among the parents of a node.
    assert {uid: sorted(makers) for uid, makers in added.items()} == {
        "model.tiny.reads_plain": ["seed.tiny.plain"],
        # What dbt knows already is not added.
        "model.tiny.reads_more": ["model.tiny.orders", "seed.tiny.bare"],
        "test.tiny.reads_plain": ["seed.tiny.plain"],
    }
    # dbt's own objects say the same as their document.
    manifest: Any = dbt.manifest
    assert source_makers(manifest.nodes, manifest.sources, "postgres") == MAKERS
    objects = parents_by_makers(manifest.nodes, manifest.sources, "postgres")
    assert {uid: sorted(makers) for uid, makers in objects.items()} == {
        uid: sorted(makers) for uid, makers in added.items()
    }


@pytest.mark.parametrize(
    ("adapter", "made", "read", "same"),
    [
        ("postgres", '"d"."s"."raw"', "d.s.RAW", True),
        ("postgres", '"d"."s"."RAW"', "d.s.RAW", False),
        ("postgres", '"d"."s"."RAW"', '"d"."s"."raw"', False),
        ("snowflake", "d.s.raw", '"D"."S"."RAW"', True),
        ("snowflake", "d.s.raw", '"d"."s"."raw"', False),
        ("bigquery", "`d`.`s`.`raw`", "d.s.raw", True),
        ("bigquery", "`d`.`s`.`raw`", "`d`.`s`.`RAW`", False),
        ("duckdb", '"d"."s"."Raw"', "d.s.raw", True),
        ("sqlserver", '"d"."s"."raw"', "[d].[s].[RAW]", True),
        ("postgres", '"d"."s"."a.b"', '"d"."s.a"."b"', False),
        ("postgres", '"d"."s"."raw"', '"s"."raw"', False),
    ],
)
def test_names_are_compared_as_the_warehouse_does(adapter: str, made: str, read: str, same: bool) -> None:
    seed = resource("seed", "raw", relation_name=made)
    source = resource("source", "app.raw", relation_name=read)
    found = source_makers({"seed.shop.raw": seed}, {"source.shop.app.raw": source}, adapter)
    assert found == ({"source.shop.app.raw": "seed.shop.raw"} if same else {})


def test_of_two_tables_whose_names_differ_by_case_only_the_exact_one_is_read() -> None:
    seeds = {
        f"seed.shop.{name}": resource("seed", name, relation_name=f'"{name}"') for name in ("Raw", "raw")
    }
    sources = {
        f"source.shop.app.{name}": resource("source", f"app.{name}", relation_name=f'"{name}"')
        for name in ("Raw", "raw")
    }
    expected = {"source.shop.app.Raw": "seed.shop.Raw", "source.shop.app.raw": "seed.shop.raw"}
    assert source_makers(seeds, sources, "postgres") == expected
    assert source_makers(seeds, sources, "duckdb") == expected


def test_others_wait_for_a_node_that_reads_its_own_table_as_a_source() -> None:
    source = "source.shop.own.state"
    manifest = full_manifest(
        resource("source", "own.state", relation_name="state"),
        resource("model", "first", [source]),
        resource("model", "state", ["model.shop.first"], relation_name="state"),
        resource("model", "reader", [source]),
        # It comes before the nodes that read the source, so it sees the table as it was.
        resource("test", "of_the_source", [source]),
    )
    assert parents_by_makers(manifest["nodes"], manifest["sources"]) == {
        "model.shop.reader": ["model.shop.state"]
    }


def test_makers_make_no_circle() -> None:
    manifest = full_manifest(
        resource("source", "own.one", relation_name="one"),
        resource("source", "own.two", relation_name="two"),
        resource("model", "one", ["source.shop.own.two"], relation_name="one"),
        resource("model", "two", ["source.shop.own.one"], relation_name="two"),
    )
    added: Mapping[str, list[str]] = parents_by_makers(manifest["nodes"], manifest["sources"])
    assert list(added) == ["model.shop.two"]
    TopologicalSorter(added).prepare()
