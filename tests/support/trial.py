"""A copy of this project with a small data product, `trial`, whose pipelines take seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The key of the lock that the model trial_held waits for.
LOCK = 4711

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
    "tests/trial/assert_numbers_are_even.sql": (
        "select id from {{ ref('stg_trial__numbers') }} where number % 2 = 1\n"
    ),
}

_GATED = "select: stg_trial__numbers trial_totals\n"
PIPELINES = {
    "trial": (
        "select: trial_numbers stg_trial__numbers trial_totals trial_report\n"
        "exclude: assert_numbers_are_even\n"
    ),
    "trial_unseeded": "select: trial_numbers stg_trial__numbers\ntests: off\nskip_stages: seed\n",
    "trial_gate": f"{_GATED}tests: gate\n",
    "trial_end": f"{_GATED}tests: end\n",
    "trial_off": f"{_GATED}tests: off\n",
    "trial_bookings": "select: fct_bookings\ntests: off\n",
    "trial_held": "select: trial_held trial_released\n",
    "trial_first": "select: trial_totals\n",
    "trial_second": "select: trial_report\nschedule: {after: [trial_first]}\n",
}


def make(root: Path) -> None:
    """Fill the empty folder `root` with a copy of the project and the trial product."""
    shutil.copytree(ROOT / "dags", root / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    ignored = shutil.ignore_patterns("target*", "logs", "dbt_packages", ".user.yml", "package-lock.yml")
    shutil.copytree(ROOT / "dbt", root / "dbt", ignore=ignored)
    (root / "include").symlink_to(ROOT / "include")
    files = _FILES | {f"pipelines/{name}.yml": text for name, text in PIPELINES.items()}
    for name, text in files.items():
        path = root / "dbt" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    # A full hour that strikes during the tests must not start a run between theirs.
    pipeline = root / "dbt" / "pipelines" / "booking_analytics.yml"
    text = pipeline.read_text(encoding="utf-8")
    assert 'schedule: "@hourly"' in text
    pipeline.write_text(text.replace('schedule: "@hourly"', "schedule: none"), encoding="utf-8")
