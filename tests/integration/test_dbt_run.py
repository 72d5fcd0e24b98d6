"""What a build tells is what dbt did: a real dbt on a real PostgreSQL, without Airflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import WriteProject
from support.builds import Builder, Make, maker
from support.warehouse import query

pytestmark = pytest.mark.integration

SCHEMA = "builds"
TODAY = "(now() at time zone 'utc')::date"
BEGIN = "(modules.datetime.datetime.utcnow() - modules.datetime.timedelta({})).strftime('%Y-%m-%d')"


@pytest.fixture
def make(postgres_uri: str, write_project: WriteProject) -> Iterator[Make]:
    yield maker(postgres_uri, write_project, SCHEMA)
    query(postgres_uri, f"drop schema if exists {SCHEMA} cascade")


def events(days: int, bad: str) -> str:
    """A row for each of the last days; those that are `bad` break the model that reads them."""
    return (
        "{{ config(event_time='at') }} "
        f"select n as id, {TODAY} - n + time '00:00:01' as at, case when {bad} then 0 else 1 end as d"
        f" from generate_series(0, {days - 1}) n"
    )


def leaf(days: int, sql: str = "select id, at, 10 / d as x from {{ ref('events') }}") -> str:
    """A microbatch model of the last days."""
    return (
        "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='at',"
        f" batch_size='day', begin={BEGIN.format(days - 1)}, unique_key='id') }}}} {sql}"
    )


def test_a_microbatch_model_ends_with_its_last_batch_and_with_dbts_final_word(make: Make) -> None:
    builder = make(
        {"events": events(3, "n = 1"), "leaf": leaf(3), "child": "select id from {{ ref('leaf') }}"}
    )
    build = builder.build()
    assert build.states == {
        "core.events": "success",
        "core.leaf": "failed",
        "core.child": "upstream_failed",
    }
    message = build.message("core.leaf")
    assert message.startswith("PARTIAL SUCCESS (2/3)\nbatch ")
    assert "division by zero" in message
    failure = build.of("core.leaf").failure
    assert failure is not None
    # The model's own last line, after those of its batches.
    assert "PARTIAL SUCCESS (2/3)" in failure["lines"][-1][2]
    assert build.message("core.child") == "core.leaf failed."


# Each run of a batch adds its day to `ran`. The third of the last days breaks until it is mended.
NOTING = (
    '{% if execute and model.batch %}{% do run_query("insert into builds.ran values (\'"'
    " ~ model.batch.event_time_start.strftime('%Y-%m-%d') ~ \"'); commit\") %}{% endif %}"
    "select id, at, 10 / (case when {{ var('mended', false) }} then 1 else d end) as x"
    " from {{ ref('events') }}"
)


@pytest.fixture
def batches(make: Make) -> Builder:
    """A model with a batch for each of five days."""
    builder = make({"events": events(5, "n = 2"), "leaf": leaf(5, NOTING)})
    query(builder.uri, "create schema builds; create table builds.ran (day date)")
    return builder


@pytest.mark.parametrize("choices", [{}, {"full_refresh": True}])
def test_failed_batches_run_again_and_no_others(batches: Builder, choices: Any) -> None:
    assert batches.build(**choices).states["core.leaf"] == "failed"
    assert len(batches.batches["model.tiny.leaf"]["failed"]) == 1
    batches.query("truncate ran")
    again = batches.build(["core.leaf"], vars={"mended": True}, **choices)
    assert again.states == {"core.leaf": "success"}
    assert batches.query("select distinct day from ran") == batches.query(f"select {TODAY} - 2")
    assert batches.query("select count(*) from leaf") == [(5,)]
    assert batches.batches == {}
    # A model that has no failed batches runs as always, within the same process, too.
    batches.query("truncate ran")
    build = batches.build(["core.leaf"], vars={"mended": True}, **choices)
    assert build.states == {"core.leaf": "success"}
    assert batches.query("select count(distinct day) from ran") == [(5 if choices else 2,)]


def test_batches_of_data_from_before_run_again(batches: Builder) -> None:
    assert batches.build().states["core.leaf"] == "failed"
    batches.query("truncate ran")
    # Somebody has cleared the run.
    assert batches.build(["core.events", "core.leaf"], vars={"mended": True}).states["core.leaf"] == "success"
    assert batches.query("select count(distinct day) from ran") == [(5,)]
    assert batches.query("select count(*) from leaf") == [(5,)]


def test_batches_are_known_before_their_command_is_over(batches: Builder) -> None:
    """The build may be killed at any time; then what has not been done is done by the next one."""
    batches.build()
    known = [each["model.tiny.leaf"] for each in batches.remembered if each]
    assert [len(each["failed"]) for each in known] == sorted(
        (len(each["failed"]) for each in known), reverse=True
    )
    begun = known[0]
    assert len(begun["successful"]) + len(begun["failed"]) == 5
    assert len(begun["failed"]) > 1
    batches.batches = {"model.tiny.leaf": begun}
    batches.query("truncate ran")
    assert batches.build(["core.leaf"], vars={"mended": True}).states == {"core.leaf": "success"}
    assert batches.query("select count(distinct day) from ran") == [(len(begun["failed"]),)]


def test_what_dbt_skips_does_not_run_on_what_was_there_before(make: Make) -> None:
    builder = make(
        {
            "v_x": "select 1 as id",
            "v_y": "select 1 / {{ 0 if var('g', 1) == 2 else 1 }} as id",
            "v_m": "select id from {{ ref('v_x') if var('g', 1) == 1 else ref('v_y') }}",
        }
    )
    assert set(builder.build().states.values()) == {"success"}
    states = builder.build(vars={"g": 2}).states
    assert {tid: states[tid] for tid in ("core.v_x", "core.v_y", "core.v_m")} == {
        "core.v_x": "success",
        "core.v_y": "failed",
        "core.v_m": "upstream_failed",
    }


def test_what_is_tried_again_holds_back_what_waits_for_it_without_an_end(make: Make) -> None:
    builder = make({"a": "select 1 / 0 as id", "b": "select id from {{ ref('a') }}"})
    assert builder.build(again=["core.a"]).states == {"core.a": "failed"}


def test_a_seed_that_makes_a_source_comes_before_whoever_reads_it(make: Make) -> None:
    sources = (
        'sources: [{name: app, schema: "{{ target.schema }}", tables: [{name: raw, columns: '
        "[{name: id, data_tests: [unique]}]}]}]"
    )
    rows = "".join(f"{n}\n" for n in range(3000))
    builder = make(
        {"a": "select id from {{ source('app', 'raw') }}", "b": "select id from {{ source('app', 'raw') }}"},
        **{"models/sources.yml": sources, "seeds/raw.csv": f"id\n{rows}"},
    )
    build = builder.build()
    assert set(build.states.values()) == {"success"}
    assert build.order[0] == "seed.raw"
    assert builder.query("select count(*) from a") == [(3000,)]
    # A failed seed holds its readers back, as if they had named it.
    (builder.project.dbt_dir / "seeds/raw.csv").write_text("id\n1\n1,2\n")
    states = builder.build().states
    assert (states["seed.raw"], states["core.a"]) == ("failed", "upstream_failed")


HOOKS = """
on-run-start: ["{{ tiny.note('start') }}"]
on-run-end:
- "{{ tiny.note('end ' ~ results | map(attribute='node.name') | sort | join(' ')) }}"
- "select {{ var('end', '1') }}"
"""
NOTE = (
    "{% macro note(what) %}create schema if not exists noted; create table if not exists noted.hooks"
    " (id serial, what text); insert into noted.hooks (what) values ('{{ what }}'){% endmacro %}"
)
FRESH = """
sources:
- name: app
  schema: "{{ target.schema }}"
  tables:
  - {name: raw, loaded_at_field: "at::timestamp", config: {freshness: {warn_after: {count: 9, period: day}}}}
"""


@pytest.fixture
def noted(postgres_uri: str) -> Iterator[list[str]]:
    """What hooks have noted, after a test has asked for it."""
    query(postgres_uri, "drop schema if exists noted cascade")
    yield []
    query(postgres_uri, "drop schema if exists noted cascade")


def notes(uri: str) -> list[str]:
    return [what for (what,) in query(uri, "select what from noted.hooks order by id")]


@pytest.mark.usefixtures("noted")
def test_hooks_run_once_around_several_commands_and_see_what_all_of_them_did(make: Make) -> None:
    builder = make(
        {"a": "select at from {{ source('app', 'raw') }}"},
        project=HOOKS,
        **{
            "macros/note.sql": NOTE,
            "models/sources.yml": FRESH,
            "seeds/raw.csv": "at\n2999-01-01\n",
        },
    )
    build = builder.build()
    assert set(build.states.values()) == {"success"}
    assert notes(builder.uri) == ["start", "end a raw"]
    # Also when nothing was left to do after the first command.
    query(builder.uri, "truncate noted.hooks")
    builder.build(["seed.raw", "hooks.on_run_start", "hooks.on_run_end"])
    assert notes(builder.uri) == ["start", "end raw"]
    # And alone, when they are to run again, but not where there was nothing to build.
    query(builder.uri, "truncate noted.hooks")
    assert builder.build(["hooks.on_run_end"]).states == {"hooks.on_run_end": "skipped"}
    assert notes(builder.uri) == []
    assert builder.build(["hooks.on_run_end"], 2).states == {"hooks.on_run_end": "success"}
    assert notes(builder.uri) == ["end "]


@pytest.mark.usefixtures("noted")
def test_a_hook_that_fails_at_the_end_fails_its_task_and_no_node(make: Make) -> None:
    builder = make({"a": "select 1 as id"}, project=HOOKS, **{"macros/note.sql": NOTE})
    build = builder.build(vars={"end": "1 / 0"})
    assert build.states == {
        "core.a": "success",
        "hooks.on_run_start": "success",
        "hooks.on_run_end": "failed",
    }
    assert "tiny.on-run-end.1 failed, error:" in build.message("hooks.on_run_end")
    assert "division by zero" in build.message("hooks.on_run_end")
    failure = build.of("hooks.on_run_end").failure
    assert failure is not None
    assert "select 1 / 0" in failure["compiled_sql"]


@pytest.mark.parametrize("when", ["on-run-start", "on-run-end"])
def test_a_hook_that_does_not_compile_fails_its_task(make: Make, when: str) -> None:
    code = "{% if execute %}{{ exceptions.raise_compiler_error('no such thing') }}{% endif %}"
    hook = f'{when}: ["{code}"]'
    build = make({"a": "select 1 as id"}, project=hook).build()
    task = f"hooks.{when.replace('-', '_')}"
    node = "upstream_failed" if when == "on-run-start" else "success"
    assert build.states == {task: "failed", "core.a": node}
    assert "no such thing" in build.message(task)


def test_a_failing_hook_at_the_start_lets_the_nodes_run_as_dbt_does(make: Make) -> None:
    build = make({"a": "select 1 as id"}, project='on-run-start: ["select 1 / 0"]').build()
    assert build.states == {"hooks.on_run_start": "failed", "core.a": "success"}


def test_fail_fast_ends_the_run_as_dbt_does(make: Make) -> None:
    models = {f"w{n}": "select pg_sleep(1)::text as s" for n in range(6)}
    builder = make(
        {**models, "bad": "select 1 / 0 as x from pg_sleep(0.2)", "after": "select s from {{ ref('w0') }}"},
        project="flags: {fail_fast: true}",
    )
    build = builder.build()
    assert [tid for tid, state in build.states.items() if state == "failed"] == ["core.bad"]
    assert build.states["core.after"] == "upstream_failed"
    held_back = {build.message(tid) for tid, state in build.states.items() if state == "upstream_failed"}
    assert held_back == {"Skipping due to fail_fast"}
    assert set(build.states) == set(builder.plan.tasks)
    # What is tried again is not the failure that ends a run.
    again = builder.build(again=["core.bad"])
    assert again.states["core.bad"] == "failed"
    assert "upstream_failed" not in again.states.values()


def test_fail_fast_holds_for_all_commands_of_a_build(make: Make) -> None:
    source = (
        "sources: [{name: app, schema: '{{ target.schema }}', tables: [{name: raw, loaded_at_field: at,"
        " config: {freshness: {error_after: {count: 1, period: day}}}}]}]"
    )
    seed = {
        "raw.csv": "id,at\n1,2026-01-01 00:00:00\n",
        "raw.yml": "seeds: [{name: raw, config: {column_types: {id: date}}}]",
    }
    tests = "models: [{name: other, columns: [{name: id, data_tests: [not_null]}]}]"
    build = make(
        {"other": "select 1 as id", "reader": "select id from {{ source('app', 'raw') }}"},
        project="flags: {fail_fast: true}",
        pipeline="tests: end\n",
        **{"models/other.yml": tests, "models/app.yml": source},
        **{f"seeds/{name}": text for name, text in seed.items()},
    ).build()
    # dbt would have had one command, and would have begun with none of the others.
    known = {"seed.raw": "failed", "hooks.on_run_end": "success"}
    assert build.states == {**dict.fromkeys(build.states, "upstream_failed"), **known}
    assert build.message("core.other") == "Skipping due to fail_fast"


def test_a_failure_that_no_last_task_shows_is_shown_by_the_task_of_the_last_hooks(make: Make) -> None:
    tests = "models: [{name: a, columns: [{name: id, data_tests: [not_null]}]}]"
    builder = make({"a": "select 1 as id"}, pipeline="tests: end\n", **{"models/a.yml": tests})
    assert builder.build(hidden="core.x failed.").states["hooks.on_run_end"] == "upstream_failed"
    assert builder.build().states["hooks.on_run_end"] == "success"
