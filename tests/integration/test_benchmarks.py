"""Every script in benchmarks/ does in its smallest size all that it does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from support.live import FOREIGN

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = "ORRERY_TEST_DBT_PACKAGES"
MODULES = {path.stem: path.read_text() for path in sorted((ROOT / "benchmarks").glob("*.py"))}
SCRIPTS = [name for name, text in MODULES.items() if '__name__ == "__main__"' in text]
# What the last lines of each tell, once all of it has run.
ENDS = {
    "elementary": r"(Elementary, with packages: build|Not measured: Elementary's dbt packages are not here)",
    "execution": r"== Summary \(medians\)\n    2 nodes: dbt build \d.*Cosmos LOCAL \d",
    "ingest": r"\n  in chunks .*; load \d",
    "parse": r"\n       ratio ",
    "scale": r"\n  limit: ",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_benchmark_runs(name: str) -> None:
    if name == "scale" and not shutil.which("redis-server"):
        pytest.skip("redis-server is not installed: the benchmark of Celery workers needs it")
    options = ["--smoke"]
    if name == "elementary" and (packages := os.environ.get(PACKAGES)):
        options += ["--packages", packages]
    env = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)}
    done = subprocess.run(
        [sys.executable, f"benchmarks/{name}.py", *options],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(ENDS[name], done.stdout), done.stdout


def test_no_module_of_the_benchmarks_is_left_over() -> None:
    parts = MODULES.keys() - set(SCRIPTS)
    unused = {
        part
        for part in parts
        if not any(re.search(rf'(import |from |with_name\("){part}\b', text) for text in MODULES.values())
    }
    assert unused == set()
    assert ENDS.keys() == set(SCRIPTS)
