"""Tries the DAGs of a build in a process that has Airflow; it starts while dbt parses the project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import IO

from orrery.config.project import Project

_MODULE = "orrery.render.prove"
# Where there is no Airflow yet: no database is used, and nothing is left in somebody's home.
_SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
    "AIRFLOW__COSMOS__ENABLE_DAG_VERSIONING": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
}


@contextmanager
def prover(project: Project, report: Callable[[str], None]) -> Iterator[Prover]:
    """Start the process; it ends with the context."""
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    home = tempfile.TemporaryDirectory(prefix="orrery-prove-", ignore_cleanup_errors=True)
    with home, tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        settings = {
            "AIRFLOW_HOME": home.name,
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(project.root / "include" / "plugins"),
            **_SETTINGS,
        }
        own = {"ORRERY_PROJECT_DIR": str(project.root), "PYTHONPATH": path}
        with subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            env=settings | os.environ | own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process:
            try:
                yield Prover(process, errors, report)
            finally:
                process.kill()


class Prover:
    """See orrery.manifest.versions.Prove.

    When the process does not answer, nothing is wrong with the DAGs as far as anybody knows: a build says
    so, and Airflow tries them itself.
    """

    def __init__(
        self, process: subprocess.Popen[str], errors: IO[str], report: Callable[[str], None]
    ) -> None:
        self._process, self._errors, self._report = process, errors, report

    @cached_property
    def proof(self) -> str:
        """What DAGs are made with; empty when they cannot be."""
        return str(self._answer() or "")

    def __call__(self, files: Mapping[str, Path]) -> Mapping[str, str]:
        """What is wrong with the DAGs of these versions, by pipeline."""
        if not self.proof:
            return {}
        assert self._process.stdin
        # A process that has ended says why when it is asked for its answer.
        with suppress(BrokenPipeError):
            request = json.dumps({name: str(file) for name, file in files.items()})
            print(request, file=self._process.stdin, flush=True)
        found = self._answer()
        return found if isinstance(found, dict) else {}

    def _answer(self) -> object:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._errors.seek(0)
        last = self._errors.read().strip().rpartition("\n")[2]
        self._report(f"The DAGs were not tried before Airflow gets them: {last or 'Airflow does not answer'}")
        return None
