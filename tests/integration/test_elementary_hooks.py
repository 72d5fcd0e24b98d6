"""The hooks of a package called elementary, over a real dbt and a real PostgreSQL, without Airflow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest
from psycopg2.extensions import parse_dsn

from conftest import BASE, WriteProject
from orrery.execute.elementary import end_hooks, make_tables, run_environment
from orrery.execute.hooks import Hooks
from orrery.manifest.dbt import Dbt
from support.warehouse import query

pytestmark = pytest.mark.integration

MACROS = """\
{% macro note(what) %}
  {% do run_query("create table if not exists public.hooks (id serial, what text); "
                  ~ "insert into public.hooks (what) values ('" ~ what ~ "'); commit") if execute %}
{% endmacro %}
"""
PROJECT = f"""{BASE["dbt/dbt_project.yml"]}
packages-install-path: "{{{{ env_var('ORRERY_DBT_PACKAGES', 'dbt_packages') }}}}"
on-run-start: "{{{{ note('start') }}}}"
on-run-end: "{{{{ note('end') }}}}"
"""
PACKAGE = """\
name: elementary
version: '1.0'
on-run-start: "{{ tiny.note('elementary start') }}"
on-run-end: "{{ elementary.on_run_end() }}"
"""
FILES = {
    "dbt/dbt_project.yml": PROJECT,
    "dbt/macros/note.sql": MACROS,
    "dbt/models/first.sql": "select 1 as id",
    "dbt/models/second.sql": "select id from {{ ref('first') }}",
    "dbt/dbt_packages/elementary/dbt_project.yml": PACKAGE,
    "dbt/dbt_packages/elementary/macros/hooks.sql": (
        "{% macro on_run_end() %}{{ tiny.note('elementary end') }}{% endmacro %}"
    ),
    "dbt/dbt_packages/elementary/models/dbt_models.sql": (
        "{{ config(materialized='table') }} select 1 as id"
    ),
    "dbt/dbt_packages/elementary/models/dbt_tests.sql": "select id from {{ ref('dbt_models') }}",
}
BROKEN = "{% macro on_run_end() %}{% if execute %}{% do run_query('select 1 / 0') %}{% endif %}{% endmacro %}"
FIRST, SECOND = "model.tiny.first", "model.tiny.second"
Make = Callable[..., Dbt]


@pytest.fixture
def make(postgres_uri: str, write_project: WriteProject) -> Iterator[Make]:
    """A function: dbt for a project with these files, too."""
    address = parse_dsn(postgres_uri)

    def make(**files: str) -> Dbt:
        profile = (
            "tiny:\n  target: dev\n  outputs:\n    dev:\n      type: postgres\n      password: ''\n"
            f"      host: {address['host']}\n      port: {address.get('port', 5432)}\n"
            f"      user: {address['user']}\n      dbname: {address['dbname']}\n      schema: hooked\n"
        )
        project = write_project({**FILES, "dbt/profiles.yml": profile, **files})
        return Dbt(project, environment={"ORRERY_ELEMENTARY_RESULTS": "1"})

    yield make
    query(postgres_uri, "drop schema if exists hooked cascade; drop table if exists public.hooks")


def build(dbt: Dbt, *nodes: str) -> BaseException | None:
    return dbt.run(["build"], lambda event: None, **dbt.exactly(nodes)).exception


def noted(uri: str) -> list[str]:
    """Which hooks have run, in their order."""
    return [what for (what,) in query(uri, "select what from public.hooks order by id")]


def test_each_command_has_elementarys_hooks_and_the_build_has_the_others(
    make: Make, postgres_uri: str
) -> None:
    dbt = make()
    hooks = Hooks(dbt, elementary=True)
    hooks.choose(first=True)
    assert build(dbt, FIRST) is None
    hooks.choose(builds=False)
    assert build(dbt, FIRST) is None
    hooks.choose(last=True)
    assert build(dbt, SECOND) is None
    begin = ["start", "elementary start", "elementary end"]
    end = ["elementary start", "end", "elementary end"]
    assert noted(postgres_uri) == begin + end


def test_a_pipeline_that_does_not_ask_for_them_has_no_hooks_of_elementary(
    make: Make, postgres_uri: str
) -> None:
    dbt = make()
    Hooks(dbt, elementary=False).choose(first=True, last=True)
    assert build(dbt, FIRST) is None
    assert noted(postgres_uri) == ["start", "end"]


@pytest.mark.parametrize("when", ["on-run-start", "on-run-end"])
def test_a_hook_of_elementary_that_fails_is_a_warning(
    make: Make, postgres_uri: str, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    project = (
        PACKAGE
        if when == "on-run-end"
        else f"{PACKAGE}\n".replace("on-run-start", "x")
        .replace("on-run-end", "on-run-start")
        .replace("x: \"{{ tiny.note('elementary start') }}\"\n", "")
    )
    dbt = make(
        **{
            "dbt/dbt_packages/elementary/dbt_project.yml": project,
            "dbt/dbt_packages/elementary/macros/hooks.sql": BROKEN,
        }
    )
    hooks = Hooks(dbt, elementary=True)
    hooks.choose(first=True, last=True)
    error = build(dbt, FIRST)
    assert "division by zero" in str(error)
    assert error is not None
    begun = when == "on-run-end"
    assert begun == bool(query(postgres_uri, "select 1 from pg_views where schemaname = 'hooked'"))
    with caplog.at_level(logging.WARNING, logger="orrery.execute.elementary"):
        assert hooks.forgive(error, begun=begun, ended=begun)
    (record,) = caplog.records
    assert "The run goes on without it." in record.getMessage()
    # It is forgiven once: there are no more of its hooks, and so no more of its errors.
    hooks.choose(first=True, last=True)
    assert build(dbt, FIRST) is None
    assert not hooks.forgive(error, begun=begun, ended=begun)


def test_a_hook_of_the_project_that_fails_is_not_forgiven(make: Make) -> None:
    dbt = make(**{"dbt/dbt_project.yml": PROJECT.replace("note('end')", "run_query('select 1 / 0')")})
    hooks = Hooks(dbt, elementary=True)
    hooks.choose(first=True, last=True)
    error = build(dbt, FIRST)
    assert "division by zero" in str(error)
    assert error is not None
    assert not hooks.forgive(error, begun=True, ended=True)
    # What the tasks with a dbt of their own know of the hooks, is what dbt's manifest has.
    manifest = dbt.manifest
    ends = {uid for uid, node in manifest.nodes.items() if "on-run-end" in node.tags}
    assert set(end_hooks(dbt.project)) == ends


def test_a_build_that_breaks_off_is_not_forgiven(make: Make) -> None:
    hooks = Hooks(make(), elementary=True)
    assert not hooks.forgive(RuntimeError("no more memory"), begun=True, ended=False)


def test_tables_are_made_where_they_are_missing(
    make: Make, postgres_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    dbt = make()
    Hooks(dbt, elementary=True).choose(builds=False)
    models = {"model.elementary.dbt_models", "model.elementary.dbt_tests"}
    assert set(dbt.missing_tables("elementary")) == models
    make_tables(dbt)
    assert dbt.missing_tables("elementary") == []
    # The others stay as they are.
    query(postgres_uri, "drop view hooked.dbt_tests; update hooked.dbt_models set id = 2")
    make_tables(dbt)
    assert query(postgres_uri, "select id from hooked.dbt_tests") == [(2,)]

    query(postgres_uri, "drop schema hooked cascade; create schema hooked; create table hooked.dbt_models ()")
    query(postgres_uri, "create view hooked.dbt_tests_ as select 1")
    with caplog.at_level(logging.WARNING, logger="orrery.execute.elementary"):
        make_tables(dbt)
    assert "Elementary's tables are not there, so it collects nothing" in caplog.text


def test_what_elementary_learns_of_a_run() -> None:
    class Ti:
        dag_id, run_id = "shop", "manual__1"
        log_url = "https://airflow/dags/shop/runs/manual__1/tasks/build?try_number=1"

    assert run_environment(Ti(), results=True) == {
        "ORRERY_ELEMENTARY_RESULTS": "1",
        "ORCHESTRATOR": "airflow",
        "JOB_ID": "shop",
        "JOB_NAME": "shop",
        "JOB_RUN_ID": "manual__1",
        "JOB_URL": "https://airflow/dags/shop",
        "JOB_RUN_URL": "https://airflow/dags/shop/runs/manual__1",
    }
    assert run_environment(Ti(), results=False) == {"ORRERY_ELEMENTARY_RESULTS": "0"}
