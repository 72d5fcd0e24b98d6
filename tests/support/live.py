"""The running stack that integration and browser tests share: pytest fixtures, and evidence on failure."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import psutil
import psycopg2
import pytest

from conftest import NO_HUB
from orrery.local import Stack, StackInfo, processes
from orrery.local.layout import Layout
from orrery.local.ports import find_free
from orrery.local.stack import Role
from support import trial
from support.airflow import Airflow

FOREIGN = ("ORRERY_", "DBT_", "AIRFLOW", "PYTHON")
_LOG_LINES = 40
# Ends the stack when the tests die without a word: then, and only then, its input ends at once.
_GUARD = """
import shutil, subprocess, sys
if not sys.stdin.read():
    subprocess.run([sys.executable, "-m", "orrery.cli", "down"], stdout=subprocess.DEVNULL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code and what it printed."""

    code: int
    output: str

    @property
    def run_id(self) -> str:
        """The id of the DAG run that `orrery run` started or `orrery retry` continued."""
        found = re.search(r"/runs/(\S+)", self.output)
        assert found, self.output
        return unquote(found[1])


class Live:
    """A project of its own with a stack of its own, used through its commands."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self.root = root
        self.dbt = root / "dbt"
        self.state = root / ".orrery"
        self.env = {key: value for key, value in os.environ.items() if not key.startswith(FOREIGN)} | {
            "ORRERY_PROJECT_DIR": str(root),
            "ORRERY_STATE_DIR": str(self.state),
            "ORRERY_PORT": str(find_free()),
            "PYTHONPATH": str(root / "include"),
            **NO_HUB,
            **environment,
        }
        self.stack = Stack(root, self.state)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        """Start `./orrery <arguments>` and do not wait for it."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(
            [sys.executable, "-m", "orrery.cli", *arguments],
            cwd=self.root,
            **{"env": self.env, "text": True, **pipes, **options},
        )

    def orrery(self, *arguments: str, seconds: float = 600) -> Done:
        """Run `./orrery <arguments>` to its end."""
        with self.start(*arguments) as command:
            try:
                output, _ = command.communicate(timeout=seconds)
            except BaseException:
                command.kill()
                raise
        print(f"$ ./orrery {' '.join(arguments)}\n{output}")
        return Done(command.returncode, output)

    @property
    def info(self) -> StackInfo:
        """The address and the password of Airflow."""
        found = self.stack.info()
        assert found
        return found

    @cached_property
    def airflow(self) -> Airflow:
        """A client of the stack's Airflow."""
        return Airflow(self.info.url, self.info.username, self.info.password)

    @property
    def warehouse(self) -> dict[str, str]:
        """libpq URLs of the warehouse by role."""
        roles: tuple[Role, ...] = ("loader", "transformer")
        return {role: self.stack.warehouse_dsn(role) for role in roles}

    def connect(self, role: str = "transformer") -> closing[Any]:
        """A connection to the warehouse, by default with dbt's role, in autocommit mode."""
        link = psycopg2.connect(self.warehouse[role])
        link.autocommit = True
        return closing(link)

    def query(self, sql: str, role: str = "transformer") -> list[tuple[Any, ...]]:
        """The rows of a query to the warehouse."""
        with self.connect(role) as link, link.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall()) if cursor.description else []

    def members(self) -> list[psutil.Process]:
        """All processes of the stack."""
        layout = Layout.of(self.root, self.state)
        return [*processes.find(layout.marker), *processes.find_postgres(layout.pgdata)]

    def evidence(self) -> str:
        """What is needed to understand a failure: the state of the stack and the tails of its logs."""
        shown = ""
        for arguments in (("status",), ("logs", "--lines", str(_LOG_LINES))):
            with self.start(*arguments) as command:
                shown += command.communicate()[0]
        return shown


@contextmanager
def own_stack(
    make: Callable[[Path], None] = trial.make, environment: Mapping[str, str] | None = None
) -> Iterator[Live]:
    """A stack that the first command starts; nothing of it is left at the end.

    :param make: fills the empty folder of the project
    :param environment: what its commands and the stack see beside what every stack does
    """
    root = Path(tempfile.mkdtemp(prefix="orrery-"))
    # The database's user, if it is another one, has to pass through.
    root.chmod(0o755)
    live = Live(root, environment or {})
    with subprocess.Popen(
        [sys.executable, "-c", _GUARD, str(root)],
        stdin=subprocess.PIPE,
        env=live.env,
        start_new_session=True,
        text=True,
    ) as guard:
        make(root)
        yield live
        if "airflow" in vars(live):
            live.airflow.close()
        down = live.orrery("down")
        left = live.members()
        assert down.code == 0
        assert not left
        shutil.rmtree(root)
        guard.communicate("The stack is down.")


@pytest.fixture(scope="session")
def live() -> Iterator[Live]:
    """The stack that tests share."""
    with own_stack() as live:
        yield live


@pytest.fixture(scope="session")
def booking_run(live: Live) -> Done:
    """The first successful run of the whole demonstration, `./orrery run booking_analytics`."""
    done = live.orrery("run", "booking_analytics")
    assert done.code == 0, done.output
    return done


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the state of the stack and its logs to the report of a failed test."""
    report: Any = yield
    live = getattr(item, "funcargs", {}).get("live")
    if report.failed and report.when != "teardown" and isinstance(live, Live):
        report.sections.append(("The stack", live.evidence()))
    return report
