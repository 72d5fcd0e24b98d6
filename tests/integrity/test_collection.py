"""Tests have the same names in every process: xdist refuses to run them when those differ."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from integrity.conftest import ROOT


def collected(seed: str) -> list[str]:
    """The names of all tests, as a process of its own finds them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests"]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    return [line for line in found.stdout.splitlines() if "::" in line]


def test_names_depend_neither_on_the_time_nor_on_the_process() -> None:
    second = int(time.time())
    first = collected("1")
    assert len(first) > 1000
    # An archive holds the second in which it was packed; collecting takes longer than that.
    assert int(time.time()) > second
    assert collected("2") == first
