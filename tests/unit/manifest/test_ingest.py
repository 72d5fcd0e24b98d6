"""The `ingest` block of a source: what it may say, and the message of every mistake in it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml

from conftest import WriteProject, write_files
from orrery.config.errors import ConfigError
from orrery.config.ingest import Csv, Files
from orrery.manifest.build import build_manifests
from orrery.manifest.ingest import ingestions
from orrery.manifest.store import ManifestStore
from unit.manifest.resources import Resource

FILE = "models/shop/_sources.yml"
TABLE = """\
sources:
  - name: shop
    tables:
      - name: orders
        config:
          meta:
            orrery:
              ingest:
{block}
"""
SOURCE = """\
sources:
  - name: shop
    meta:
      orrery:
        ingest:
{block}
    tables: [{{name: orders}}, {{name: refunds}}]
"""


def sources_of(text: str) -> dict[str, Resource]:
    """The sources of a file, with the meta as dbt inherits it."""
    found = {}
    for source in yaml.safe_load(text)["sources"]:
        shared = source.get("config", source).get("meta", {})
        for table in source["tables"]:
            own = table.get("config", {}).get("meta", {})
            found[f"source.tiny.{source['name']}.{table['name']}"] = {
                "source_name": source["name"],
                "name": table["name"],
                "original_file_path": FILE,
                "columns": {"id": {}, "amount": {}},
                "config": {"meta": {**shared, **own}},
                "source_meta": shared,
            }
    return found


def read(write_project: WriteProject, text: str) -> list[Resource]:
    project = write_project({f"dbt/{FILE}": text})
    sources = sources_of(text)
    return ingestions(project, sources, sources)


def block(template: str, text: str) -> str:
    lines = text.strip().splitlines()
    indent = " " * (16 if template == TABLE else 10)
    return template.format(block="\n".join(indent + line for line in lines))


def test_a_block_on_a_table(write_project: WriteProject) -> None:
    found = read(write_project, block(TABLE, "files: orders/*.csv\nkey: [id]\nsettle: 30s"))
    content = {"files": "orders/*.csv", "key": ["id"], "settle": "30s"}
    assert found == [
        {
            "name": "shop__orders",
            "kind": "files",
            "block": content,
            "sources": ["source.tiny.shop.orders"],
            "after": [],
        }
    ]


def test_a_block_on_a_source_is_for_each_of_its_tables(write_project: WriteProject) -> None:
    found = read(write_project, block(SOURCE, 'files: "{table}/*.csv"'))
    assert [(entry["name"], entry["block"]["files"]) for entry in found] == [
        ("shop__orders", "orders/*.csv"),
        ("shop__refunds", "refunds/*.csv"),
    ]


BIGQUERY = """\
tiny:
  target: "{{ env_var('ORRERY_TARGET', 'dev') }}"
  outputs:
    dev: {type: postgres}
    cloud: {type: bigquery}
    other: {type: duckdb}
"""


def test_files_go_into_postgresql_and_bigquery_only(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = block(TABLE, "files: orders/*.csv")
    project = write_project({"dbt/profiles.yml": BIGQUERY, f"dbt/{FILE}": text})
    sources = sources_of(text)
    assert len(ingestions(project, sources, sources)) == 1
    monkeypatch.setenv("ORRERY_TARGET", "cloud")
    assert len(ingestions(project, sources, sources)) == 1
    monkeypatch.setenv("ORRERY_TARGET", "other")
    with pytest.raises(ConfigError) as caught:
        ingestions(project, sources, sources)
    assert str(caught.value) == (
        "dbt/models/shop/_sources.yml:9:17: files are loaded into PostgreSQL and BigQuery only, and the"
        " target 'other' is of type duckdb\n"
        "    9 |                 files: orders/*.csv\n"
        "      |                 ^^^^^\n"
        "  Fill the table by other means and remove the block, or use a target of one of them."
    )


def test_chunks_are_for_postgresql(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    """The load of a file in one piece needs them nowhere: it is no mistake to ask for them."""
    text = block(TABLE, "files: orders/*.csv\nchunk_size: 64KB")
    project = write_project({"dbt/profiles.yml": BIGQUERY, f"dbt/{FILE}": text})
    sources = sources_of(text)
    (entry,) = ingestions(project, sources, sources)
    assert entry["block"]["chunk_size"] == "64KB"
    monkeypatch.setenv("ORRERY_TARGET", "cloud")
    (entry,) = ingestions(project, sources, sources)
    assert "chunk_size" not in entry["block"]


def test_other_ingestions_know_no_warehouse(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORRERY_TARGET", "cloud")
    text = block(SOURCE, "airbyte: shop")
    project = write_project({"dbt/profiles.yml": BIGQUERY, f"dbt/{FILE}": text})
    sources = sources_of(text)
    assert [entry["kind"] for entry in ingestions(project, sources, sources)] == ["airbyte"]


@pytest.mark.parametrize("meta", ["", "meta: {owner: me}", "meta: {orrery: {}}"])
def test_a_source_without_a_block(write_project: WriteProject, meta: str) -> None:
    text = f"sources:\n  - name: shop\n    {meta}\n    tables: [{{name: orders}}]\n"
    assert read(write_project, text) == []


MISTAKES = {
    "fils: orders/*.csv": (
        "dbt/models/shop/_sources.yml:8:15: the ingest block does not say what it is\n"
        "    8 |               ingest:\n"
        "      |               ^^^^^^\n"
        "  Did you mean 'files'?"
    ),
    "path: orders/*.csv": "  Write one of: files, airbyte, transfer, job, spark.",
    "files: orders/*.csv\nkeys: [id]": (
        "dbt/models/shop/_sources.yml:10:17: unknown key 'keys'\n"
        "   10 |                 keys: [id]\n"
        "      |                 ^^^^\n"
        "  Did you mean 'key'?"
    ),
    "files: orders/*.csv\ncsv: {delimeter: ';'}": "_sources.yml:10:23: unknown key 'delimeter'",
    "files: orders/*.csv\ncsv: {delimiter: ';;'}": "';;' cannot stand between or around fields",
    "files: orders/*.csv\ncsv: {quote: '1'}": "'1' cannot stand between or around fields",
    "files: orders/*.csv\ncsv: {encoding: base64}": "'base64' is no encoding",
    "files: orders/*.csv\ncsv: {delimiter: ';', quote: ';'}": "the quote or the escape character, too",
    "files: orders/*.csv\ncsv: {encoding: utf8000}": "'utf8000' is no encoding",
    "files: orders/*.csv\nif_missing: stop": "'stop' is no value of 'if_missing'",
    "files: orders/*.csv\nkey: [idd]": (
        "_sources.yml:10:22: the key column 'idd' is not among the columns of 'orders'"
    ),
    "files: orders/*.csv\nload: upsert": "upsert needs a key",
    "files: orders/*.csv\nload: append\nkey: id": "a key has no meaning with load: append",
    "files: orders/*": "the format of 'orders/*' is not known from its ending",
    "files: ../orders/*.csv": "'../orders/*.csv' is no pattern below the landing zone",
    "files: /orders/*.csv": "Write a path without a leading / and without ..",
    "files: orders/*.csv\nlanding_zone: /data": "'/data' is no URI of a folder or a bucket",
    "files: orders/*.csv\nsettle: 5 minutes": "'5 minutes' is no duration",
    "files: orders/*.csv\nmax_rejected: 120%": "'120%' is neither a number of rows nor a share",
    "files: orders/*.csv\nmax_rejected: -1": "-1 is neither a number of rows nor a share",
}


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: text.splitlines()[-1])
def test_a_mistake_is_shown_with_its_place(write_project: WriteProject, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write_project, block(TABLE, text))
    assert MISTAKES[text] in str(caught.value)
    assert str(caught.value).startswith("dbt/models/shop/_sources.yml:")


def test_a_mistake_in_what_tables_share_is_shown_once(write_project: WriteProject) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write_project, block(SOURCE, "files: all/*.csv"))
    message = str(caught.value)
    assert message.count("the pattern is the same for all tables of 'shop'") == 1
    assert "Write {table} in it, or move the block to a table." in message
    with pytest.raises(ConfigError) as caught:
        read(write_project, "sources: [{name: shop, meta: {orrery: {injest: {}}}, tables: [{name: a}]}]")
    assert "unknown key 'injest'" in str(caught.value)
    assert "Did you mean 'ingest'?" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("settle", "1.5m", timedelta(seconds=90)),
        ("settle", 10, timedelta(seconds=10)),
        ("timeout", "2d", timedelta(days=2)),
        ("max_rejected", "0.5%", 0.005),
        ("max_rejected", 7, 7),
        ("landing_zone", "file:///data", "file:///data"),
    ],
)
def test_values(key: str, value: Any, wanted: Any) -> None:
    assert getattr(Files.model_validate({"files": "a.csv", key: value}), key) == wanted


@pytest.mark.parametrize(
    ("pattern", "kind"),
    [
        ("a.CSV.GZ", "csv"),
        ("b/*.tsv", "csv"),
        ("c.ndjson", "jsonl"),
        ("d/**/*.jsonl.gz", "jsonl"),
        ("e.parquet", "parquet"),
    ],
)
def test_the_format_follows_from_the_ending(pattern: str, kind: str) -> None:
    assert Files.model_validate({"files": pattern}).file_format == kind


@pytest.mark.parametrize(
    ("pattern", "csv", "delimiter"),
    [
        ("*.csv", {}, ","),
        ("*.txt", {}, ","),
        ("*.tsv", {}, "\t"),
        ("*.TSV.gz", {"quote": "'"}, "\t"),
        ("*.tsv", {"delimiter": ";"}, ";"),
    ],
)
def test_the_delimiter_follows_from_the_ending(pattern: str, csv: dict[str, str], delimiter: str) -> None:
    block = Files.model_validate({"files": pattern, "csv": csv})
    assert block.csv == Csv(**{"delimiter": delimiter, **csv})
    assert csv or Files.model_validate({"files": pattern}) == block == Files(files=pattern)


def test_what_is_loaded_how() -> None:
    assert Files(files="a.csv", key=("id",)).load_mode == "upsert"
    assert Files(files="a.csv").load_mode == "append"
    assert Files(files="a.csv", load="replace").load_mode == "replace"


def test_a_mistake_in_a_template_names_the_block_that_uses_it(write_project: WriteProject) -> None:
    text = block(TABLE, "job:\n  image: load:1\n  template: own.yaml.j2")
    write_project({"include/templates/own.yaml.j2": "kind: Pod\nname: {{ nam }}\n"})
    with pytest.raises(ConfigError) as raised:
        read(write_project, text)
    assert str(raised.value).startswith("include/templates/own.yaml.j2:2:1: 'nam' is undefined\n")
    assert str(raised.value).endswith("\n  It is used in dbt/models/shop/_sources.yml:9")


def test_a_mistake_stops_the_pipelines_that_read_the_source_only(write_project: WriteProject) -> None:
    good, bad = "files: orders/*.csv", "files: orders/*.csv\nsetle: 5s"
    project = write_project(
        {
            f"dbt/{FILE}": block(TABLE, good).replace(
                "orders\n", "orders\n        columns: [{name: id}]\n", 1
            ),
            "dbt/models/read.sql": "select * from {{ source('shop', 'orders') }}",
            "dbt/models/apart.sql": "select 1 as id",
            "dbt/pipelines/reads.yml": "select: read",
            "dbt/pipelines/apart.yml": "select: apart",
        }
    )
    assert build_manifests(project, lambda line: None).errors == {}
    store = ManifestStore(project)
    (entry,) = store.read("reads")["ingest"]
    assert entry["name"] == "shop__orders"
    assert store.read("reads")["sources"]["source.tiny.shop.orders"]["schema"] == "shop"
    assert store.read("apart")["ingest"] == []

    write_files(project.root, {f"dbt/{FILE}": block(TABLE, bad)})
    built = build_manifests(project, lambda line: None)
    assert list(built.nodes) == ["apart"]
    # Files that start a pipeline have to be those of a source.
    write_files(project.root, {"dbt/pipelines/apart.yml": "select: apart\nschedule: {on: files}"})
    unfounded = str(build_manifests(project, lambda line: None).errors["apart"])
    assert "dbt/pipelines/apart.yml:2:12: no source of this pipeline says which files fill it" in unfounded
    assert "_sources.yml:10:17: unknown key 'setle'" in str(built.errors["reads"])
