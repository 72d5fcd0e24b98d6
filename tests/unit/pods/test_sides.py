"""Each side of a pod does without what only the other one needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def imported(module: str, part: str) -> list[str]:
    """The modules of a package that come with a module, in a process of its own."""
    code = (
        f"import sys, {module}\nprint([n for n in sys.modules if n == {part!r} or n.startswith('{part}.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT / "include")},
        capture_output=True,
        text=True,
        check=True,
    )
    return [name for name in done.stdout.splitlines()[-1].strip("[]").split(", ") if name]


def test_a_worker_that_follows_a_pod_needs_no_dbt() -> None:
    assert imported("orrery.execute.build_run, orrery.pods.operators, orrery.pods.runner", "dbt") == []


def test_a_pod_does_not_pay_for_airflow() -> None:
    assert imported("orrery.pods.inside", "airflow") == []


def test_it_would_be_noticed() -> None:
    assert imported("orrery.pods.inside, dbt.version", "dbt")
