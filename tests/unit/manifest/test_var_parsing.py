"""After a change of vars, dbt parses what reads them, and knows the same as if it had parsed everything."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from conftest import BASE, write_files
from orrery.config.project import Project
from orrery.manifest.dbt import Dbt, DbtError
from orrery.manifest.store import PARTIAL_PARSE
from orrery.manifest.var_parsing import READS
from unit.manifest import noted

# Wherever dbt renders anything, there is a variable; most files have one of their own.
FILES = {
    "dbt/dbt_project.yml": """\
name: tiny
version: '1.0'
profile: tiny
vars:
  from_project: project
  tiny: {of_package: mine}
on-run-start: ["select '{{ var('hooked', 'none') }}'"]
models:
  tiny:
    +docs: {node_color: "{{ var('color', 'red') }}"}
    configured:
      +enabled: "{{ var('load', false) }}"
""",
    "dbt/macros/macros.sql": """\
{% macro day() %}{{ return(var('in_macro', '2026-01-01')) }}{% endmacro %}
{% macro indirect() %}{{ return(day()) }}{% endmacro %}
{% macro generate_alias_name(custom_alias_name=none, node=none) -%}
  {{ (custom_alias_name or node.name) ~ ('_v' ~ node.version if node.version else '') }}
  {{- var('suffix', '') if node.name == 'suffixed' else '' }}
{%- endmacro %}
{% test rarely(model, column_name) %}
  {{ config(severity=var('severity', 'error')) }}
  select * from {{ model }} where {{ column_name }} is null
{% endtest %}
""",
    "dbt/models/plain.sql": "select 1 as id",
    "dbt/models/child.sql": "select * from {{ ref('plain') }}",
    "dbt/models/text.sql": "select '{{ var('in_model', 'x') }}' as id, * from {{ ref('plain') }}",
    "dbt/models/run_time.sql": "select 1 as id {% if execute %}{{ var('at_run_time', '') }}{% endif %}",
    "dbt/models/called.sql": "{{ config(tags=[indirect()]) }} select 1 as id",
    "dbt/models/tagged.sql": "{{ config(meta={'m': var('in_config', 1)}) }} select 1 as id",
    "dbt/models/project_var.sql": "{{ config(tags=[var('from_project')]) }} select 1 as id",
    "dbt/models/switched.sql": "{{ config(enabled=var('enabled', true)) }} select 1 as id",
    "dbt/models/after_switched.sql": (
        "select 1 as id {% if var('enabled', true) %} from {{ ref('switched') }}{% endif %}"
    ),
    "dbt/models/chooses.sql": "select * from {{ ref('plain' if var('chosen', 1) == 1 else 'child') }}",
    "dbt/models/placed.sql": "{{ config(schema=var('in_schema', 'here')) }} select 1 as id",
    "dbt/models/suffixed.sql": "select 1 as id",
    "dbt/models/after_suffixed.sql": "select * from {{ ref('suffixed') }}",
    "dbt/models/has.sql": "{{ config(tags=['a' if var.has_var('is_there') else 'b']) }} select 1 as id",
    "dbt/models/ephemeral.sql": (
        "{{ config(materialized=var('materialized', 'ephemeral')) }} select 1 as id from {{ ref('plain') }}"
    ),
    "dbt/models/configured/loaded.sql": "select 1 as id",
    "dbt/models/all_of_them.sql": (
        "{{ config(tags=(invocation_args_dict.vars or {}).keys() | list) }} select 1 as id"
    ),
    "dbt/models/models.yml": """\
models:
  - name: plain
    description: "{{ var('described', 'plain') }}"
    columns: [{name: id, data_tests: [not_null, rarely]}]
  - name: text
    description: Text.
    columns: [{name: id, data_tests: [unique, {accepted_values: {arguments: {values: [1]}}}]}]
  - name: tagged
    config: {tags: ["{{ var('in_yaml', 'y') }}"]}
    columns: [{name: id, data_tests: [not_null: {config: {where: "id > {{ var('at_least', 0) }}"}}]}]
  - name: called
    columns: [{name: id, data_tests: [{accepted_values: {arguments: {values: ["{{ var('value', 'v') }}"]}}}]}]
  - name: versioned
    latest_version: 1
    versions: [{v: 1}, {v: 2}]
  - name: switched
    columns: [{name: id, data_tests: [unique]}]
unit_tests:
  - name: counts
    model: text
    given: [{input: "ref('plain')", rows: [{id: 1}]}]
    expect: {rows: [{id: x}]}
""",
    "dbt/models/versioned_v1.sql": "select 1 as id -- {{ var('in_version', 1) }}",
    "dbt/models/versioned_v2.sql": "select * from {{ ref('versioned', v=1) }}",
    "dbt/models/sources.yml": """\
sources:
  - name: app
    schema: "{{ var('raw_schema', 'raw') }}"
    tables:
      - name: orders
        columns: [{name: id, data_tests: [rarely]}]
  - name: other
    tables:
      - name: items
        config: {meta: {x: "{{ var('in_source', 1) }}"}}
""",
    "dbt/models/reads_source.sql": (
        "select * from {{ source('app', 'orders') }}, {{ source('other', 'items') }}"
    ),
    "dbt/models/exposures.yml": """\
exposures:
  - name: board
    type: dashboard
    owner: {name: Ann}
    depends_on: ["ref('text')", "source('app', 'orders')"]
    config: {meta: {url: "{{ var('url', 'u') }}"}}
""",
    "dbt/models/groups.yml": "groups: [{name: sales, owner: {name: \"{{ var('owner', 'Ann') }}\"}}]",
    "dbt/models/named.yml": (
        "sources: [{name: \"{{ var('source_name', 'named') }}\", tables: [{name: t}]}]\n"
    ),
    "dbt/seeds/numbers.csv": "id\n1\n",
    "dbt/seeds/seeds.yml": "seeds: [{name: numbers, config: {tags: [\"{{ var('in_seed', 's') }}\"]}}]",
    "dbt/snapshots/kept.yml": (
        "snapshots: [{name: kept, relation: ref('text'), config: {unique_key: id, strategy: check,"
        " check_cols: all, meta: {x: \"{{ var('in_snapshot', 1) }}\"}}}]"
    ),
    "dbt/snapshots/old.sql": (
        "{% snapshot old %}{{ config(unique_key='id', strategy='check', check_cols='all',"
        " target_schema='s', meta={'x': var('in_old_snapshot', 1)}) }} select * from {{ ref('plain') }}"
        "{% endsnapshot %}"
    ),
    "dbt/tests/single.sql": (
        "{{ config(severity=var('severity', 'error')) }}"
        " select * from {{ ref('text') }} where {{ var('w', 1) }} = 0"
    ),
    "dbt/analyses/a.sql": "select {{ var('in_analysis', 1) }}",
    "dbt/functions/even.sql": "select {{ var('in_function', 2) }}",
    "dbt/functions/functions.yml": (
        "functions: [{name: even, returns: {data_type: int}, arguments: [{name: x, data_type: int}]}]"
    ),
    "dbt/models/breaks.sql": "select * from {{ ref('nothing' if var('broken', false) else 'plain') }}",
}
# What only the files read that are named; they are parsed again, and nothing else.
OF_FILES = {
    "unused": (1, []),
    # When it runs, not when it is parsed.
    "at_run_time": ("x", []),
    "in_model": ("y", ["models/text.sql"]),
    "in_macro": ("2026-02-02", ["models/called.sql"]),
    "in_config": (2, ["models/tagged.sql"]),
    "from_project": ("mine", ["models/project_var.sql"]),
    "chosen": (2, ["models/chooses.sql"]),
    "is_there": (1, ["models/has.sql"]),
    "in_yaml": ("z", ["models/models.yml"]),
    "at_least": (5, ["models/models.yml"]),
    "value": ("w", ["models/models.yml"]),
    "in_version": (2, ["models/versioned_v1.sql"]),
    "in_source": (2, ["models/sources.yml"]),
    "raw_schema": ("new", ["models/sources.yml"]),
    "url": ("v", ["models/exposures.yml"]),
    "in_seed": ("t", ["seeds/seeds.yml"]),
    "in_snapshot": (2, ["snapshots/kept.yml"]),
    "in_old_snapshot": (2, ["snapshots/old.sql"]),
    "severity": ("warn", ["models/models.yml", "models/sources.yml", "tests/single.sql"]),
    "w": (2, ["tests/single.sql"]),
    "in_analysis": (2, ["analyses/a.sql"]),
}
# It reads all of them.
ALWAYS = "models/all_of_them.sql"
# What dbt_project.yml, a hook or a description reads, or what changes a node for those that refer to it.
OF_ALL = {
    "described": "anew",
    "color": "blue",
    "load": True,
    "hooked": "h",
    "enabled": False,
    "in_schema": "there",
    "suffix": "_x",
    "materialized": "view",
    "owner": "Bob",
    "source_name": "renamed",
    "in_function": 3,
}


class Parses:
    """A project that is parsed without vars; `parse` begins from that, or from nothing."""

    def __init__(self, root: Path) -> None:
        self._project = Project(root)
        self._number = 0
        Dbt(self._project).parse()

    def parse(self, variables: Mapping[str, Any], *, anew: bool = False) -> dict[str, Any]:
        """What is in manifest.json, without times and without the order of relatives."""
        self._number += 1
        target = self._project.root / str(self._number)
        target.mkdir()
        if not anew:
            shutil.copy(self._project.target_dir / PARTIAL_PARSE, target)
        manifest = Dbt(self._project, target_dir=target, variables=variables).parse()
        del manifest["metadata"]
        for key in ("parent_map", "child_map", "group_map"):
            manifest[key] = {uid: sorted(uids) for uid, uids in manifest[key].items()}
        for nodes in manifest["disabled"].values():
            nodes.sort(key=lambda node: str(node["original_file_path"]))
        return dict(json.loads(json.dumps(manifest), object_hook=without_times))

    def outcome(self, variables: Mapping[str, Any], *, anew: bool = False) -> Any:
        """What `parse` returns, or what dbt says instead."""
        try:
            return self.parse(variables, anew=anew)
        except DbtError as error:
            return str(error)

    def forget(self) -> None:
        """Let the parse be one of which nobody has noted who read its vars."""
        path = self._project.target_dir / PARTIAL_PARSE
        parse = msgpack.unpackb(path.read_bytes())
        del parse["env_vars"][READS]
        path.write_bytes(msgpack.packb(parse))

    def edit(self, name: str, text: str) -> None:
        """Change a file, and parse the project again without vars."""
        (self._project.dbt_dir / name).write_text(text)
        Dbt(self._project).parse()


def without_times(value: dict[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if key != "created_at"}


@pytest.fixture(scope="module")
def parses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parses]:
    root = tmp_path_factory.mktemp("vars")
    profiles = BASE["dbt/profiles.yml"]
    profiles += profiles[profiles.index("    dev:") :].replace("dev:", "also:")
    profiles = profiles.replace("target: dev", "target: \"{{ env_var('TARGET', 'dev') }}\"")
    write_files(root, {**BASE, **FILES, "dbt/profiles.yml": profiles})
    with noted.noting():
        yield Parses(root)


def test_files_that_read_a_changed_variable_are_parsed_again(parses: Parses) -> None:
    changes = {name: value for name, (value, _) in OF_FILES.items()}
    manifest = parses.parse(changes)
    assert noted.for_vars() == {ALWAYS, *(file for _, files in OF_FILES.values() for file in files)}
    assert manifest == parses.parse(changes, anew=True)


@pytest.mark.parametrize("name", ["unused", "in_macro", "severity"])
def test_only_those_are(parses: Parses, name: str) -> None:
    value, files = OF_FILES[name]
    manifest = parses.parse({name: value})
    assert noted.for_vars() == {ALWAYS, *files}
    assert manifest["nodes"]["model.tiny.all_of_them"]["tags"] == [name]


@pytest.mark.parametrize("name", OF_ALL)
def test_what_counts_for_more_than_a_file_is_parsed_as_by_dbt(parses: Parses, name: str) -> None:
    changes = {name: OF_ALL[name], "in_model": "y"}
    manifest = parses.parse(changes)
    assert noted.for_vars() is None
    if name == "enabled":
        assert manifest == parses.parse(changes, anew=True)


# Those of single files mostly, and others among them.
@settings(max_examples=6, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(
    variables=st.dictionaries(
        st.sampled_from([*OF_FILES, *OF_FILES, *OF_FILES, *OF_ALL]),
        st.sampled_from(["", "a", "2", 3, True, False]),
        min_size=1,
        max_size=4,
    )
)
@example(variables={"severity": "warn", "raw_schema": "new", "chosen": 2})
@example(variables={"switched": 1, "in_yaml": "", "enabled": True})
def test_the_project_is_the_one_that_dbt_would_parse(parses: Parses, variables: dict[str, Any]) -> None:
    assert parses.outcome(variables) == parses.outcome(variables, anew=True)


def test_files_that_are_edited_are_known_anew(parses: Parses) -> None:
    parses.edit("models/run_time.sql", "select '{{ var('new', 1) }}' as id")
    parses.edit("models/tagged.sql", "select 1 as id")
    changes = {"new": 2, "in_config": 3, "in_yaml": "z"}
    manifest = parses.parse(changes)
    assert noted.for_vars() == {ALWAYS, "models/run_time.sql", "models/models.yml"}
    assert manifest == parses.parse(changes, anew=True)


def test_the_order_of_vars_is_no_change(parses: Parses, tmp_path: Path) -> None:
    variables = {"color": "blue", "in_model": "y"}
    for each in (variables, dict(reversed(variables.items()))):
        Dbt(parses._project, target_dir=tmp_path / "same", variables=each).parse()
    assert noted.parsed() == set()


def test_what_dbt_passes_over_in_a_properties_file_is_no_error(parses: Parses) -> None:
    parses.edit("models/odd.yml", "x_version: 5\nanchors:\nmodels: [{name: child}]\ndata_tests:\n")
    assert parses.parse({"in_model": "y"}) == parses.parse({"in_model": "y"}, anew=True)


def test_an_error_is_told_as_by_dbt(parses: Parses) -> None:
    told = [parses.outcome({"broken": True}, anew=anew) for anew in (False, True)]
    assert "which was not found" in told[0]
    assert told[0] == told[1]


def test_of_another_target_nothing_is_known(parses: Parses, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TARGET", "also")
    parses.parse({"in_model": "y"})
    assert noted.for_vars() is None


def test_what_was_not_noted_is_not_known(parses: Parses) -> None:
    """As of a parse of an earlier version of Orrery."""
    parses.forget()
    # dbt parses this file only, so that of all others still nobody knows.
    parses.edit("models/run_time.sql", "select '{{ var('new', 2) }}' as id")
    manifest = parses.parse({"in_model": "z"})
    assert noted.for_vars() is None
    assert "models/plain.sql" in noted.parsed()
    assert manifest["nodes"]["model.tiny.text"]["raw_code"] == FILES["dbt/models/text.sql"]


def test_a_macro_that_is_called_has_its_vars(parses: Parses, tmp_path: Path) -> None:
    """`dbt run-operation` wants them, and writes only what is a `dict` and nothing like it."""
    dbt = Dbt(parses._project, target_dir=tmp_path, variables={"in_model": "y"})
    # There is no database: dbt has written what it was to do.
    with pytest.raises(DbtError, match="Connection refused"):
        dbt.call("day")
    assert json.loads((tmp_path / "run_results.json").read_bytes())["args"]["vars"] == {"in_model": "y"}
