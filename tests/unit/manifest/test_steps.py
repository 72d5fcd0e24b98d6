"""Ingestion in several steps, blocks for all tables of a source, and those of a full refresh."""

from __future__ import annotations

import pytest

from conftest import WriteProject
from orrery.config.errors import ConfigError
from orrery.manifest.ingest import ingestions
from unit.manifest.resources import Resource
from unit.manifest.test_ingest import FILE, SOURCE, TABLE, block, sources_of

COPY = 'transfer: "s3://inbox/{}*.jsonl"\n  to: gs://lake/raw'
ORDERS, REFUNDS = "source.tiny.shop.orders", "source.tiny.shop.refunds"


def read(write_project: WriteProject, text: str, *, full_refresh: bool = False) -> list[Resource]:
    project = write_project({f"dbt/{FILE}": text})
    sources = sources_of(text)
    return ingestions(project, sources, sources, full_refresh=full_refresh)


def steps(found: list[Resource]) -> list[tuple[str, str, list[str], list[str]]]:
    return [(entry["name"], entry["kind"], entry["sources"], entry["after"]) for entry in found]


def test_steps_run_one_after_the_other(write_project: WriteProject) -> None:
    first, second = COPY.format("a"), COPY.format("b")
    text = block(TABLE, f"- {first}\n- {second}\n- files: '*.jsonl'\n  landing_zone: file:///lake")
    assert steps(read(write_project, text)) == [
        ("shop__orders__transfer", "transfer", [ORDERS], []),
        ("shop__orders_2__transfer", "transfer", [ORDERS], ["shop__orders__transfer"]),
        ("shop__orders", "files", [ORDERS], ["shop__orders_2__transfer"]),
    ]


def test_a_block_on_a_source_is_one_for_all_tables_but_for_files(write_project: WriteProject) -> None:
    text = block(SOURCE, f"- {COPY.format('')}\n- files: '{{table}}/*.jsonl'")
    both = [ORDERS, REFUNDS]
    assert steps(read(write_project, text)) == [
        ("shop__transfer", "transfer", both, []),
        ("shop__orders", "files", [ORDERS], ["shop__transfer"]),
        ("shop__refunds", "files", [REFUNDS], ["shop__transfer"]),
    ]


def test_a_full_refresh_may_have_steps_of_its_own(write_project: WriteProject) -> None:
    text = block(TABLE, "files: a.csv") + (
        "\n              ingest_full_refresh: {files: history.csv, load: replace}\n"
    )
    assert [entry["block"] for entry in read(write_project, text)] == [{"files": "a.csv"}]
    (entry,) = read(write_project, text, full_refresh=True)
    assert entry["block"] == {"files": "history.csv", "load": "replace"}
    # Without one, a full refresh reads what every run reads.
    (entry,) = read(write_project, block(TABLE, "files: a.csv"), full_refresh=True)
    assert entry["block"] == {"files": "a.csv"}


MISTAKES = {
    "- files: a.csv\n- fils: b.csv": "_sources.yml:10:19: the ingest block does not say what it is",
    "- files: a.csv\n  keys: [id]": "_sources.yml:10:19: unknown key 'keys'",
    "- files: a.csv\n- transfer: 's3://aa/*'": "_sources.yml:10:19: the key 'to' is missing",
    "transfer: a/*\nto: s3://bb": "'a' is no URI of a folder or a bucket",
    "transfer: s3://aa/*\nto: s3://bb/*": "'s3://bb/*' is no place for files",
    "files: a.csv\ntransfer: s3://a/*": "the ingest block is files and transfer at once",
}


@pytest.mark.parametrize("text", MISTAKES, ids=lambda text: text.splitlines()[-1])
def test_a_mistake_in_a_step_is_shown_with_its_place(write_project: WriteProject, text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(write_project, block(TABLE, text))
    assert MISTAKES[text] in str(caught.value)


def test_a_mistake_in_the_steps_of_another_day_is_shown_now(write_project: WriteProject) -> None:
    text = block(TABLE, "files: a.csv") + "\n              ingest_full_refresh: {files: a.csv, sttle: 1s}\n"
    with pytest.raises(ConfigError, match="unknown key 'sttle'"):
        read(write_project, text)
