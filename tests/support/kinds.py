"""A dbt project with every kind of resource that dbt 1.11 knows, and with names that collide."""

from __future__ import annotations

from typing import Any

import psycopg2.extensions
import yaml

# What `--vars '{more: true}'` enables.
ENABLED = ("model.kinds.with_vars", "test.kinds.of_with_vars")

SEEDS = """
seeds:
  - {name: raw, columns: [{name: id, data_tests: [unique]}]}
"""

FUNCTIONS = """
functions:
  - name: is_even
    description: Whether a number is even.
    arguments: [{name: n, data_type: integer, description: Any number.}]
    returns: {data_type: boolean}
  - name: above
    arguments: [{name: n, data_type: integer}]
    returns: {data_type: bigint}
"""

SOURCES = """
sources:
  - name: app
    schema: "{{ target.schema }}"
    tables:
      # Made by a seed, in four ways: tested, checked, neither, and written in another way.
      - {name: raw, columns: [{name: id, data_tests: [not_null]}]}
      - name: fresh
        identifier: raw
        loaded_at_field: "at::timestamp"
        freshness: {warn_after: {count: 36500, period: day}}
      - {name: plain, identifier: raw}
      - {name: bare, identifier: RAW, quoting: {identifier: false}}
      # Made by a model with an alias, and by a snapshot.
      - {name: aliased, identifier: other_name}
      - {name: kept, identifier: snap}
      - {name: unread}
      - name: old
        identifier: raw
        loaded_at_field: "at::timestamp"
        freshness: {error_after: {count: 1, period: day}}
      # PostgreSQL does not tell when a table has changed.
      - {name: unknown_age, identifier: raw, freshness: {error_after: {count: 1, period: day}}}
"""

MODELS = """
models:
  - name: dim
    columns:
      - name: id
        data_tests: [unique, {relationships: {arguments: {to: ref('raw'), field: id}}}]
  - name: ver
    latest_version: 2
    columns: [{name: id, data_tests: [unique]}, {name: more}]
    versions:
      - {v: 1, columns: [{include: all, exclude: [more]}]}
      - {v: 2, data_tests: [{unique: {name: own_test_of_v2, arguments: {column_name: id}}}]}
  - {name: eph, columns: [{name: id, data_tests: [not_null]}]}
  - {name: micro, columns: [{name: id, data_tests: [not_null]}]}
  - name: time_spine
    time_spine: {standard_granularity_column: date_day}
    columns: [{name: date_day, granularity: day}]
snapshots:
  - name: snap
    relation: ref('dim')
    config: {strategy: check, unique_key: id, check_cols: all}
    columns: [{name: id, data_tests: [not_null]}]
unit_tests:
  - name: of_dim
    model: dim
    given: [{input: ref('stg'), rows: [{id: 1}]}]
    expect: {rows: [{id: 1}]}
  - name: of_inc
    model: inc
    overrides: {macros: {is_incremental: false}}
    given: [{input: ref('dim'), rows: [{id: 3}]}]
    expect: {rows: [{id: 3}]}
  - name: of_eph
    model: eph
    given: [{input: ref('dim'), rows: [{id: 1}]}]
    expect: {rows: [{id: 1}]}
  - name: of_ver
    model: ver
    given: [{input: ref('dim'), rows: [{id: 1}]}]
    expect: {rows: [{id: 1}]}
  - name: of_micro
    model: micro
    given: [{input: ref('events'), rows: [{id: 1}]}]
    expect: {rows: [{id: 1}]}
  - name: of_stg
    model: stg
    given: [{input: "source('app', 'raw')", rows: [{id: 2}]}]
    expect: {rows: [{id: 2, even: true}]}
exposures:
  - {name: board, type: dashboard, owner: {name: Ann}, depends_on: [ref('dim')]}
  - name: refresh
    type: application
    owner: {name: Ann}
    depends_on: [ref('dim'), "source('app', 'aliased')"]
    config: {meta: {orrery: {run: {http: {connection: boards, endpoint: /refresh}}}}}
semantic_models:
  - name: sem
    model: ref('events')
    defaults: {agg_time_dimension: at}
    entities: [{name: id, type: primary}]
    dimensions: [{name: at, type: time, type_params: {time_granularity: day}}]
    measures: [{name: how_many, agg: count, expr: id}]
metrics:
  - {name: how_many, label: How many, type: simple, type_params: {measure: how_many}}
saved_queries:
  - name: saved
    query_params: {metrics: [how_many], group_by: ["TimeDimension('id__at', 'day')"]}
    exports: [{name: saved, config: {export_as: table}}]
groups: [{name: team, owner: {name: Team}}]
"""

_BEGIN = "(modules.datetime.datetime.now() - modules.datetime.timedelta(1)).strftime('%Y-%m-%d')"

FILES = {
    "dbt/dbt_project.yml": (
        "name: kinds\nversion: '1.0'\nprofile: tiny\non-run-start: [select 1]\non-run-end: [select 1]\n"
        "models: {+materialized: table}\n"
    ),
    "dbt/seeds/raw.csv": "id,at\n1,2026-01-01\n2,2026-01-02\n",
    "dbt/seeds/seeds.yml": SEEDS,
    "dbt/functions/is_even.sql": "select n % 2 = 0",
    # A function that reads a model, which reads a function.
    "dbt/functions/above.sql": "select count(*) from {{ ref('dim') }} where id > n",
    "dbt/functions/functions.yml": FUNCTIONS,
    "dbt/models/sources.yml": SOURCES,
    "dbt/models/models.yml": MODELS,
    "dbt/models/staging/stg.sql": (
        "{{ config(materialized='view') }} select id, {{ function('is_even') }}(id) as even"
        " from {{ source('app', 'raw') }}"
    ),
    "dbt/models/dim.sql": "select id from {{ ref('stg') }}",
    "dbt/models/eph.sql": "{{ config(materialized='ephemeral') }} select id from {{ ref('dim') }}",
    "dbt/models/after_eph.sql": "select id from {{ ref('eph') }}",
    "dbt/models/inc.sql": (
        "{{ config(materialized='incremental', unique_key='id') }} select id from {{ ref('dim') }}"
        " {% if is_incremental() %} where id > (select max(id) from {{ this }}) {% endif %}"
    ),
    "dbt/models/events.sql": (
        "{{ config(event_time='at') }} select id, at::timestamp as at from {{ source('app', 'fresh') }}"
    ),
    "dbt/models/micro.sql": (
        "{{ config(materialized='incremental', incremental_strategy='microbatch', event_time='at',"
        f" batch_size='day', begin={_BEGIN}, unique_key='id') }}}} select id, at from {{{{ ref('events') }}}}"
    ),
    "dbt/models/view_kept.sql": (
        "{{ config(materialized='materialized_view') }} select id from {{ ref('dim') }}"
    ),
    "dbt/models/reads_function.sql": "select {{ function('above') }}(1) as n",
    "dbt/models/reads_plain.sql": "select id from {{ source('app', 'plain') }}",
    "dbt/models/reads_bare.sql": "select id from {{ source('app', 'bare') }}",
    "dbt/models/alias.sql": "{{ config(alias='other_name') }} select id from {{ ref('dim') }}",
    "dbt/models/reads_aliased.sql": "select id from {{ source('app', 'aliased') }}",
    "dbt/models/reads_kept.sql": "select id from {{ source('app', 'kept') }}",
    "dbt/models/reads_old.sql": "select id from {{ source('app', 'old') }}",
    "dbt/models/reads_unknown_age.sql": "select id from {{ source('app', 'unknown_age') }}",
    "dbt/models/off.sql": "{{ config(enabled=false) }} select 1 as id",
    "dbt/models/with_vars.sql": "{{ config(enabled=var('more', false)) }} select 1 as id",
    "dbt/models/ver_v1.sql": "select id from {{ ref('dim') }}",
    "dbt/models/ver_v2.sql": "select id, 1 as more from {{ ref('dim') }}",
    "dbt/models/reads_ver.sql": (
        "select id from {{ ref('ver') }} union all select id from {{ ref('ver', v=1) }}"
    ),
    "dbt/models/time_spine.sql": "select '2026-01-01'::date as date_day",
    # Names that select more than one node: a folder, the package, a tag, a version, a wildcard, a dot.
    "dbt/models/folder.sql": "{{ config(tags=['nightly']) }} select 1 as id",
    "dbt/models/folder/inside.sql": "select 1 as id",
    "dbt/models/kinds.sql": "select 1 as id",
    "dbt/models/nightly.sql": "select 1 as id",
    "dbt/models/v2.sql": "select 1 as id",
    "dbt/models/dotted.name.sql": "select 1 as id",
    "dbt/models/dotted/name.sql": "{{ config(alias='not_dotted') }} select 1 as id",
    "dbt/models/unread.sql": "select 1 as id",
    "dbt/snapshots/old_style.sql": (
        "{% snapshot old_style %}{{ config(strategy='check', unique_key='id', check_cols='all') }}"
        " select id from {{ ref('dim') }}{% endsnapshot %}"
    ),
    "dbt/tests/evens.sql": "select 1 where {{ function('is_even') }}(1)",
    "dbt/tests/dim_and_function.sql": (
        "select id from {{ ref('dim') }} where not {{ function('is_even') }}(2)"
    ),
    "dbt/tests/dim_and_aliased.sql": (
        "select id from {{ source('app', 'aliased') }} except select id from {{ ref('dim') }}"
    ),
    "dbt/tests/of_nothing.sql": "select 1 as id where false",
    "dbt/tests/of_with_vars.sql": (
        "{{ config(enabled=var('more', false)) }} select 1 as id from {{ ref('with_vars') }} where false"
    ),
    "dbt/analyses/look.sql": "select * from {{ ref('dim') }}",
    "dbt/dbt_packages/lib/dbt_project.yml": "name: lib\nversion: '1.0'\n",
    "dbt/dbt_packages/lib/models/twin.sql": "{{ config(alias='lib_twin') }} select 1 as id",
    "dbt/dbt_packages/lib/models/only_lib.sql": "select id from {{ ref('lib', 'twin') }}",
    "dbt/dbt_packages/lib/functions/is_odd.sql": "select n % 2 = 1",
    "dbt/dbt_packages/lib/functions/functions.yml": (
        "functions:\n  - name: is_odd\n    arguments: [{name: n, data_type: integer}]\n"
        "    returns: {data_type: boolean}\n"
    ),
    "dbt/models/twin.sql": "select 1 as id",
}
# For a parse only: dbt does not build models whose names differ by case, as it takes one for the other.
CASED = {
    "dbt/models/Cased.sql": "select 1 as id",
    "dbt/models/cased.sql": "select 1 as id",
}


def files(uri: str = "", schema: str = "s") -> dict[str, str]:
    """The files of the project; with the URI of a PostgreSQL its models can be built there."""
    if not uri:
        return FILES
    settings: dict[str, Any] = psycopg2.extensions.parse_dsn(uri)
    output = {
        "type": "postgres",
        "host": settings["host"],
        "port": int(settings.get("port", 5432)),
        "user": settings["user"],
        "password": settings.get("password", ""),
        "dbname": settings["dbname"],
        "schema": schema,
        "threads": 4,
    }
    profile = yaml.safe_dump({"tiny": {"target": "dev", "outputs": {"dev": output}}})
    return {**FILES, "dbt/profiles.yml": profile}
