"""A copy of this project with a small data product, `trial`, whose pipelines take seconds."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from support import leaky

ROOT = Path(__file__).resolve().parents[2]
# The key of the lock that the model trial_held waits for.
LOCK = 4711
# How many chains the pipeline trial_hands has; the one with the number n waits for the lock LOCK + 1 + n.
CHAINS = 8

_FILES = {
    "seeds/trial/trial_numbers.csv": "id,number\n1,10\n2,21\n3,32\n",
    "models/trial/staging/stg_trial__numbers.sql": "select id, number from {{ ref('trial_numbers') }}\n",
    "models/trial/staging/stg_trial__numbers.yml": """\
models:
  - name: stg_trial__numbers
    columns:
      - name: id
        data_tests: [not_null]
""",
    "models/trial/core/trial_totals.sql": (
        "{{ config(materialized='table') }}\n"
        "select count(*) as numbers, sum(number) as total from {{ ref('stg_trial__numbers') }}\n"
    ),
    "models/trial/core/trial_report.sql": (
        "{{ config(materialized='table') }}\nselect total from {{ ref('trial_totals') }}\n"
    ),
    # Its task runs for as long as a test holds the lock.
    "models/trial/core/trial_held.sql": (
        "{{ config(materialized='table') }}\n"
        f"select 1 as id from pg_advisory_xact_lock_shared({LOCK}) as held\n"
    ),
    "models/trial/core/trial_released.sql": (
        "{{ config(materialized='table') }}\nselect id from {{ ref('trial_held') }}\n"
    ),
    # What tests/pipelines/test_report.py needs: vars make the model slow, big and wrong.
    "models/trial/report/report_rows.sql": (
        "{{ config(materialized='table') }}\n"
        "select id from generate_series(1, {{ var('rows', 10) }}) as id,\n"
        "    pg_sleep({{ var('pause', 0) }}) as paused\n"
    ),
    "models/trial/report/report_after.sql": "select id from {{ ref('report_rows') }}\n",
    "tests/trial/assert_report_rows_are_few.sql": ("select id from {{ ref('report_rows') }} where id > 20\n"),
    # A source that waits for its file.
    "models/trial/landed/trial_landed.yml": """\
sources:
  - name: trial_landing
    schema: landing
    tables:
      - name: arrivals
        identifier: trial_arrivals
        config:
          meta:
            orrery:
              ingest: {files: "trial/*.jsonl", if_missing: wait, timeout: 5m, settle: 1s}
        columns:
          - name: id
            data_type: bigint
""",
    "models/trial/landed/trial_landed.sql": "select id from {{ source('trial_landing', 'arrivals') }}\n",
    "models/trial/watched/trial_watched.yml": """\
sources:
  - name: trial_watching
    schema: landing
    tables:
      - name: watched
        config:
          meta:
            orrery:
              ingest: {files: "watched/*.csv", settle: 1s}
        columns:
          - name: id
            data_type: bigint
""",
    "models/trial/watched/trial_watched.sql": "select id from {{ source('trial_watching', 'watched') }}\n",
    "models/trial/objects/trial_objects.yml": """\
sources:
  - name: trial_objects
    schema: landing
    tables:
      - name: objects
        identifier: trial_objects_landed
        config:
          meta:
            orrery:
              ingest: {files: "objects/*.jsonl", settle: 0s}
        columns:
          - name: id
            data_type: bigint
""",
    "models/trial/objects/trial_objects.sql": "select id from {{ source('trial_objects', 'objects') }}\n",
    # A model that a run can make fail, what it holds back, and a slow one beside them.
    "models/trial/published/trial_divided.sql": (
        "{{ config(materialized='table') }}\nselect 1 / {{ var('divisor', 1) }} as id\n"
    ),
    "models/trial/published/trial_quotients.sql": "select id from {{ ref('trial_divided') }}\n",
    "models/trial/published/trial_slow.sql": (
        "{{ config(materialized='table') }}\nselect 1 as id, pg_sleep({{ var('pause', 0) }})::text as p\n"
    ),
    "models/trial/published/trial_both.sql": (
        "select id from {{ ref('trial_divided') }} join {{ ref('trial_slow') }} using (id)\n"
    ),
    "models/trial/published/trial_sourced.sql": (
        "select id from {{ source('trial_phases', 'trial_phase_seed') }}\n"
    ),
    # What the pages in Airflow show: row counts, a source, and a test that a run can make fail.
    "models/trial/pages/page_orders.sql": (
        "{{ config(materialized='table') }}\nselect id from generate_series(1, 1200) as id\n"
    ),
    "models/trial/pages/page_customers.sql": (
        "{{ config(materialized='table') }}\nselect id from {{ ref('page_orders') }} where id % 7 = 0\n"
    ),
    "models/trial/pages/page_sourced.sql": (
        "select id from {{ source('trial_phases', 'trial_phase_seed') }}\n"
    ),
    "models/trial/pages/pages.yml": """\
models:
  - name: page_orders
    columns:
      - name: id
        data_tests: [not_null, unique]
  - name: page_customers
    columns:
      - name: id
        data_tests: [not_null]
""",
    "tests/trial/assert_page_customers_are_few.sql": (
        "select id from {{ ref('page_customers') }} where id > {{ var('limit', 2000) }}\n"
    ),
    # What runs after a model: a call, which needs a connection of Airflow, and another pipeline.
    "models/trial/exposed/trial_exposed.sql": "select 1 as id\n",
    "models/trial/exposed/trial_exposed.yml": """\
models:
  - name: trial_exposed
    columns:
      - name: id
        data_tests: [not_null]
exposures:
  - name: trial_call
    type: dashboard
    owner: {name: Ann}
    depends_on: [ref('trial_exposed')]
    config:
      meta:
        orrery:
          run:
            http: {connection: trial_service, endpoint: /refresh, json: {board: 7}}
  - name: trial_next
    type: application
    owner: {name: Ann}
    depends_on: [ref('trial_exposed')]
    config:
      meta: {orrery: {run: {pipeline: trial_bookings}}}
""",
    # What tests/pipelines/test_alerts.py needs: a model that the table alerted_switch makes fail, thirty
    # that wait for it, and a warning.
    "models/trial/alerted/alerted_root.sql": (
        "{{ config(materialized='table') }}\n"
        "select 1 / (select divisor from {{ target.schema }}.alerted_switch) as id\n"
    ),
    **{
        f"models/trial/alerted/alerted_{number:02}.sql": "select id from {{ ref('alerted_root') }}\n"
        for number in range(30)
    },
    "models/trial/alerted/alerted_beside.sql": "select 1 as id, pg_sleep(0.1)::text as p\n",
    "tests/trial/assert_alerted_beside_is_empty.sql": (
        "{{ config(severity='warn') }}\nselect id from {{ ref('alerted_beside') }}\n"
    ),
    # Rows that fail a test; one of their columns is private.
    "models/trial/rowed/rowed.sql": (
        "{{ config(materialized='table') }}\n"
        "select id, 'private-' || id as email from generate_series(1, 3) as id\n"
    ),
    "models/trial/rowed/rowed.yml": """\
models:
  - name: rowed
    columns:
      - name: id
      - name: email
        config: {tags: [pii]}
""",
    "tests/trial/assert_rowed_is_empty.sql": (
        "{{ config(meta={'orrery': {'samples': 2}}) }}\n"
        "select id, email from {{ ref('rowed') }} order by id\n"
    ),
    "tests/trial/assert_numbers_are_even.sql": (
        "select id from {{ ref('stg_trial__numbers') }} where number % 2 = 1\n"
    ),
}


def _logged(sql: str, materialized: str = "table") -> str:
    """A model that writes a line to trial_build_log whenever it has been built."""
    hook = "{{ trial_log(this.name) }}"
    return f"{{{{ config(materialized='{materialized}', post_hook=\"{hook}\") }}}}\n{sql}\n"


def _source(name: str, table: str, hours: int) -> str:
    return f"""\
sources:
  - name: {name}
    schema: "{{{{ target.schema }}}}"
    config:
      loaded_at_field: loaded_at::timestamptz
      freshness:
        error_after: {{count: {hours}, period: hour}}
    tables:
      - name: {table}
"""


# What tests/integration/test_build.py needs; it makes the tables trial_build_log, trial_switch and
# trial_arrivals itself.
_FAULTS = {
    "macros/trial.sql": (
        "{% macro trial_log(name) -%}\n"
        "insert into {{ target.schema }}.trial_build_log (model, invocation)\n"
        "values ('{{ name }}', '{{ invocation_id }}')\n"
        "{%- endmacro %}\n\n"
        "{% macro trial_log_hook(name) -%}\n"
        "do $$ begin\n"
        "  if to_regclass('{{ target.schema }}.trial_build_log') is not null then\n"
        "    {{ trial_log(name) }};\n"
        "  end if;\n"
        "end $$\n"
        "{%- endmacro %}\n"
    ),
    # Two branches: one of them waits for the lock in the middle and divides by what the test has set.
    "models/trial/faults/fault_root.sql": _logged(
        "select 1 as id, pg_sleep({{ var('pause', 0) }})::text as p"
    ),
    "models/trial/faults/fault_other.sql": _logged(
        "select 1 as id, pg_sleep({{ var('pause', 0) }})::text as p"
    ),
    "models/trial/faults/fault_left.sql": _logged("select id from {{ ref('fault_root') }}"),
    "models/trial/faults/fault_right.sql": _logged("select id from {{ ref('fault_root') }}"),
    "models/trial/faults/fault_lone.sql": _logged("select id from {{ ref('fault_other') }}"),
    "models/trial/faults/fault_held.sql": _logged(
        "select id / (select divisor from {{ target.schema }}.trial_switch) as id\n"
        f"from {{{{ ref('fault_left') }}}}, pg_advisory_xact_lock_shared({LOCK}) as held"
    ),
    "models/trial/faults/fault_beside.sql": _logged(
        "select id from {{ ref('fault_right') }} join {{ ref('fault_lone') }} using (id)"
    ),
    "models/trial/faults/fault_after.sql": _logged("select id from {{ ref('fault_held') }}"),
    "models/trial/faults/fault_joined.sql": _logged(
        "select id from {{ ref('fault_held') }} join {{ ref('fault_beside') }} using (id)"
    ),
    "models/trial/faults/fault_last.sql": _logged(
        "select id from {{ ref('fault_after') }} join {{ ref('fault_joined') }} using (id)"
    ),
    "models/trial/faults/faults.yml": """\
models:
  - name: fault_left
    columns:
      - name: id
        data_tests: [not_null]
  - name: fault_held
    columns:
      - name: id
        data_tests: [not_null]
""",
    "tests/trial/assert_fault_right_is_empty.sql": (
        "{{ config(severity='warn') }}\nselect id from {{ ref('fault_right') }}\n"
    ),
    # Chains of four, whose second one waits for a lock of its own: a run selects one of them.
    **{
        f"models/trial/hands/hand_{chain}_{number}.sql": _logged(
            (f"select id from {{{{ ref('hand_{chain}_{number - 1}') }}}}" if number > 1 else "select 1 as id")
            + (f", pg_advisory_xact_lock_shared({LOCK + 1 + chain}) as held" if number == 2 else "")
        )
        for chain in range(CHAINS)
        for number in range(1, 5)
    },
    # One row for each run that names a marker of its own; runs at the same time do not meet.
    "models/trial/marks/trial_mark.sql": (
        "{{ config(materialized='incremental', incremental_strategy='append') }}\n"
        "select '{{ var('marker', 'none') }}' as marker, '{{ invocation_id }}' as invocation\n"
    ),
    "models/trial/marks/trial_mark.yml": """\
models:
  - name: trial_mark
    columns:
      - name: marker
        data_tests: [not_null]
""",
    # A source that a test makes stale, and one that is a seed.
    "models/trial/stale/trial_stale.yml": _source("trial_stale", "trial_arrivals", 1),
    "models/trial/stale/trial_arrived.sql": _logged(
        "select id from {{ source('trial_stale', 'trial_arrivals') }}"
    ),
    "models/trial/stale/trial_arrived_again.sql": _logged("select id from {{ ref('trial_arrived') }}"),
    "models/trial/stale/trial_apart.sql": _logged("select {{ function('trial_half') }}(2) as id"),
    "functions/trial/trial_half.sql": "select n / 2\n",
    "functions/trial/trial_half.yml": """\
functions:
  - name: trial_half
    description: Half of a number.
    arguments: [{name: n, data_type: integer}]
    returns: {data_type: integer}
""",
    "models/trial/phases/trial_phases.yml": _source("trial_phases", "trial_phase_seed", 1_000_000),
    "models/trial/phases/trial_phase_last.sql": _logged(
        "select id from {{ source('trial_phases', 'trial_phase_seed') }}"
    ),
    # What tests/pipelines/test_pods.py needs; it makes the table trial_pod_switch. A pod's connections to
    # the warehouse tell that they are a pod's; the second model waits for the lock of the test.
    "models/trial/pods/pod_place.sql": (
        "{{ config(materialized='table') }}\n"
        "select current_setting('orrery.place', true) as place, '{{ invocation_id }}' as invocation\n"
    ),
    "models/trial/pods/pod_divided.sql": (
        "{{ config(materialized='table') }}\n"
        "select 1 / (select divisor from {{ target.schema }}.trial_pod_switch) as id\n"
        f"from {{{{ ref('pod_place') }}}}, pg_advisory_xact_lock_shared({LOCK}) as held\n"
    ),
    "models/trial/pods/pod_after.sql": "select id from {{ ref('pod_divided') }}\n",
    "models/trial/pods/pods.yml": """\
models:
  - name: pod_place
    columns:
      - name: place
        data_tests:
          - not_null
          - accepted_values: {arguments: {values: [elsewhere]}, config: {severity: warn}}
""",
    "seeds/trial/trial_phase_seed.csv": "id,loaded_at\n1,2026-01-01 00:00:00\n",
}
_HOOKS = """
on-run-start: "{{ trial_log_hook('on-run-start') }}"
on-run-end: "{{ trial_log_hook('on-run-end') }}"
"""

_PODS = "execute: kubernetes\nkubernetes: {{image: example/orrery:1, pods: {}}}\n"
_GATED = "select: stg_trial__numbers trial_totals\n"
PIPELINES = {
    "trial": (
        "select: trial_numbers stg_trial__numbers trial_totals trial_report\n"
        "exclude: assert_numbers_are_even\n"
    ),
    "trial_per_model": (
        "select: trial_numbers stg_trial__numbers trial_totals trial_report\n"
        "exclude: assert_numbers_are_even\nexecute: per_model\n"
    ),
    "trial_unseeded": "select: trial_numbers stg_trial__numbers\ntests: off\nskip_stages: seed\n",
    "trial_gate": f"{_GATED}tests: gate\n",
    "trial_end": f"{_GATED}tests: end\n",
    "trial_off": f"{_GATED}tests: off\n",
    "trial_bookings": "select: fct_bookings\ntests: off\n",
    "trial_held": "select: trial_held trial_released\n",
    "trial_faults": "select: path:models/trial/faults\n",
    "trial_hands": "select: path:models/trial/hands\ntests: off\nmax_active_runs: 20\n",
    "trial_retried": "select: fault_held fault_after\nretries: 1\ntests: off\n",
    "trial_marked": "select: trial_mark\nmax_active_runs: 20\n",
    **{
        f"trial_stale_{policy}": f"select: path:models/trial/stale trial_half\nstale: {policy}\n"
        for policy in ("fail", "skip", "warn")
    },
    "trial_stale_per_model": (
        "select: path:models/trial/stale trial_half\nstale: skip\nexecute: per_model\n"
    ),
    "trial_reported": "select: path:models/trial/report\n",
    "trial_landed": "select: path:models/trial/landed\n",
    "trial_watched": "select: path:models/trial/watched\nschedule: {on: files}\n",
    "trial_objects": "select: path:models/trial/objects\n",
    "trial_exposed": "select: path:models/trial/exposed\n",
    "trial_published": (
        "select: path:models/trial/published trial_phase_seed\npublish: {keep: 1}\ntests: off\n"
    ),
    "trial_published_per_model": (
        "select: trial_divided trial_slow\npublish: {}\nexecute: per_model\ntests: off\n"
    ),
    "trial_pages": (
        "description: Orders & <script>document.title = 'taken over'</script> customers.\n"
        "select: path:models/trial/pages trial_phase_seed\npublish: {}\n"
    ),
    "trial_alerted": "select: path:models/trial/alerted\nalerts: {slack: '#data-alerts'}\nsla: 1s\n",
    # Its deadline is half a day away.
    "trial_rowed": (
        "select: rowed\nalerts: {slack: '#data-alerts'}\n"
        f"sla: '{datetime.now(UTC) + timedelta(hours=12):%H:%M}'\n"
    ),
    "trial_rowed_per_model": "select: rowed\nalerts: {slack: '#data-alerts'}\nexecute: per_model\n",
    "trial_told": "select: trial_numbers\ntests: off\nschedule: {after: [trial_published]}\n",
    **leaky.PIPELINES,
    "trial_pods": "select: path:models/trial/pods\n" + _PODS.format("build"),
    "trial_pods_per_model": "select: path:models/trial/pods\ntests: off\n" + _PODS.format("per_model"),
    "trial_pods_bookings": "select: tag:booking_analytics\n" + _PODS.format("build"),
    "trial_pods_forex": (
        "select: tag:forex\nstages: {gold: path:models/forex/gold}\n" + _PODS.format("build")
    ),
    "trial_phases": "select: trial_phase_seed trial_phase_last\n",
    "trial_first": "select: trial_totals\n",
    "trial_second": "select: trial_report\nschedule: {after: [trial_first]}\n",
}


def copy(root: Path) -> None:
    """Fill the empty folder `root` with a copy of the project, whose pipelines do not start by themselves."""
    shutil.copytree(ROOT / "dags", root / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    ignored = shutil.ignore_patterns("target*", "logs", "dbt_packages", ".user.yml", "package-lock.yml")
    shutil.copytree(ROOT / "dbt", root / "dbt", ignore=ignored)
    (root / "include").symlink_to(ROOT / "include")
    (root / "tests").mkdir()
    (root / "tests" / "services").symlink_to(ROOT / "tests" / "services")
    # A full hour that strikes during the tests must not start a run between theirs.
    for path in (root / "dbt" / "pipelines").glob("*.yml"):
        text = path.read_text(encoding="utf-8")
        path.write_text(re.sub(r'schedule: "@.*"', "schedule: none", text), encoding="utf-8")


def make(root: Path) -> None:
    """Fill the empty folder `root` with such a copy, and the trial product."""
    copy(root)
    files = (
        _FILES | _FAULTS | leaky.FILES | {f"pipelines/{name}.yml": text for name, text in PIPELINES.items()}
    )
    for name, text in files.items():
        path = root / "dbt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    with (root / "dbt" / "dbt_project.yml").open("a", encoding="utf-8") as project:
        project.write(_HOOKS)
