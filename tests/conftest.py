"""What tests share: the order in which they run, an Airflow home of their own, and small dbt projects."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

# Airflow reads its home when it is first imported. The settings lie in a file and not in the environment,
# which the stacks that other tests start would inherit.
# This file is loaded by pytest, and once more by the tests that import from it.
if "orrery-tests-airflow-" not in os.environ.get("AIRFLOW_HOME", ""):
    home = os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="orrery-tests-airflow-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    Path(home, "airflow.cfg").write_text(
        "[core]\nload_examples = False\ndagbag_import_error_tracebacks = False\n"
        "[logging]\nlogging_level = WARNING\n"
        "[cosmos]\nenable_telemetry = False\nenable_dag_versioning = False\n"
    )

from orrery.config.project import Project
from orrery.manifest import quick_dbt

# What a user's shell may set, and what would lead a test away from its own project.
FOREIGN = (
    "DBT_PACKAGE_HUB_URL",
    "DBT_PROFILES_DIR",
    "DBT_TARGET",
    "ORRERY_DBT_PACKAGES",
    "ORRERY_ELEMENTARY",
    "ORRERY_ENVIRONMENT",
    "ORRERY_PROJECT_DIR",
    "ORRERY_TARGET",
    "ORRERY_TARGET_PATH",
)

# No test fetches dbt packages, but those that have a hub of their own: here nobody listens.
NO_HUB = {"DBT_PACKAGE_HUB_URL": "http://127.0.0.1:9/"}

# Parsing needs no database: nothing listens at this address.
BASE = {
    "dbt/dbt_project.yml": "name: tiny\nversion: '1.0'\nprofile: tiny\n",
    "dbt/profiles.yml": (
        "tiny:\n  target: dev\n  outputs:\n"
        "    dev: {type: postgres, host: 127.0.0.1, port: 1, user: u, password: p, dbname: d, schema: s}\n"
    ),
}

WriteProject = Callable[[Mapping[str, str]], Project]

# The folders whose tests share the fixture `live`, a stack with all pipelines.
ONE_STACK = ("tests/pipelines/", "tests/browser/")


class _ByStack(LoadScopeScheduling):
    """The tests of a file run in one process, and so do all that share a stack or a lab."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/differential/"):
            return "differential"
        return "live" if nodeid.startswith(ONE_STACK) else nodeid.partition("::")[0]


def pytest_configure(config: pytest.Config) -> None:
    """Make the fixtures of tests/support known."""
    config.pluginmanager.import_plugin("support.live")
    config.pluginmanager.import_plugin("support.warehouse")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Which process runs which tests, when there are several (`-n`)."""
    return _ByStack(config, log)


def write_files(root: Path, files: Mapping[str, str]) -> None:
    """Write `files` (text by path) below `root`."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def own_environment(patch: pytest.MonkeyPatch) -> None:
    """Take away what the shell of a developer says of other projects, and dbt's hub."""
    for name in FOREIGN:
        patch.delenv(name, raising=False)
    for name, value in NO_HUB.items():
        patch.setenv(name, value)


@pytest.fixture(autouse=True)
def _own_environment(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.path.relative_to(Path(__file__).parent).parts[0] in ("unit", "integrity"):
        own_environment(monkeypatch)


@pytest.fixture
def write_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WriteProject:
    """A function that makes a dbt project, from files by path, and names it as the current one."""

    def write(files: Mapping[str, str]) -> Project:
        root = tmp_path / "project"
        write_files(root, {**BASE, **files})
        monkeypatch.setenv("ORRERY_PROJECT_DIR", str(root))
        return Project(root)

    return write


@pytest.fixture(scope="session", autouse=True)
def _quick_dbt() -> None:
    """Keep dbt from looking through the whole call stack of pytest, also where a test calls dbt itself."""
    quick_dbt.hurry()


@pytest.fixture
def resumed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triggers that run in the test itself need not wait for Airflow."""
    monkeypatch.setattr("orrery.ingest.resume.earliest", lambda: 0.0)
