"""The command of a pod: what dbt finds there."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from orrery.execute.assignment import Assignment
from orrery.execute.options import RunOptions
from orrery.execute.run_graph import RunGraph
from orrery.pods import inside
from orrery.pods.order import Order

ROOT = Path(__file__).resolve().parents[3]
MACRO = ROOT / "dbt" / "macros" / "query_comment.sql"


class Run:
    """In place of dbt: keeps the variables that its commands would have."""

    found: ClassVar[dict[str, str]]

    def __init__(self, *_: Any) -> None:
        Run.found = dict(os.environ)
        self.warnings: dict[str, str] = {}
        self.graph = RunGraph({})

    def begin(self) -> None:
        pass

    def run(self, _: Any) -> None:
        pass

    def end(self) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def pod(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What the command changes for its process is as before afterwards."""
    monkeypatch.setattr(inside, "DbtRun", Run)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    logger, handler = logging.getLogger(), signal.getsignal(signal.SIGTERM)
    kept, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = kept
    logger.setLevel(level)
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.usefixtures("pod")
def test_dbts_statements_tell_pipeline_and_run_as_those_of_workers_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = Assignment("shop", "manual__1", "", {}, RunOptions(), "gate", "fail", False, False, 4096)
    monkeypatch.setattr(sys, "argv", ["inside", *Order(given, {}).arguments()])
    assert inside.main() == 0
    # What the macro reads; BigQuery's jobs get it as labels.
    read = re.findall(r"'(\w+)': '(AIRFLOW_CTX_\w+)'", MACRO.read_text())
    assert {name: Run.found.get(variable) for name, variable in read} == {
        "pipeline": "shop",
        "run": "manual__1",
    }
