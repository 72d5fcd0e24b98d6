"""The image and docker-compose.yml, for real: three workers, of which some are killed.

    ORRERY_TEST_CONTAINERS=1 ./orrery test --only containers

It needs `docker` with Compose, builds the image (minutes, the first time) and brings everything up under a
project name and a port of its own. ORRERY_TEST_WITHOUT is what the image does without, as the Dockerfile's
WITHOUT.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from support.waiting import wait_for

pytestmark = pytest.mark.skipif(
    os.environ.get("ORRERY_TEST_CONTAINERS") != "1",
    reason="builds an image and starts containers, which takes minutes: ORRERY_TEST_CONTAINERS=1 asks for it",
)

ROOT = Path(__file__).resolve().parents[2]
PARTS = (
    *("dags", "dbt", "include", "LICENSE", "requirements.txt", "requirements.lock"),
    *("Dockerfile", ".dockerignore", "docker-compose.yml"),
)
NAME = "orrery-test"
# A worker that is lost is noticed soon; the default is a minute and a half.
OVERRIDE = """\
services:
  scheduler:
    environment:
      AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT: "20"
"""
MOUNTED = "docker-compose.yml:docker-compose.override.yml:include/deploy/compose/mounted.yml"
ROWS = "select count(*), count(distinct transaction_id) from {}"
LANDED, FACTS = "landing.forex_transactions", "dev_gold.fct_transactions"


class Containers:
    """The services of docker-compose.yml in a copy of the project."""

    def __init__(self, root: Path) -> None:
        for part in PARTS:
            source = ROOT / part
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
                shutil.copytree(source, root / part, ignore=ignored)
            else:
                shutil.copy(source, root / part)
        (root / "docker-compose.override.yml").write_text(OVERRIDE)
        self.root = root
        self.port, self.flower = free_port(), free_port()
        self.env = {
            **os.environ,
            "COMPOSE_PROJECT_NAME": NAME,
            "ORRERY_IMAGE": NAME,
            "ORRERY_PORT": self.port,
            "ORRERY_FLOWER_PORT": self.flower,
            "ORRERY_PROJECT_DIR": str(root),
            "PYTHONPATH": str(ROOT / "include"),
        }
        assert self.orrery("init-env").returncode == 0
        lines = (root / ".env").read_text().splitlines()
        values = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        self.env["AIRFLOW_PASSWORD"] = values["ORRERY_ADMIN_PASSWORD"]

    def docker(self, *arguments: str, seconds: float = 300) -> str:
        """Run a command of Docker's that has to succeed; returns what it printed."""
        done = subprocess.run(
            ["docker", *arguments],
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        assert done.returncode == 0, f"docker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def orrery(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Orrery's for this project."""
        command = [sys.executable, "-m", "orrery.cli", *arguments]
        return subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=600, check=False)

    def run(self, pipeline: str) -> subprocess.CompletedProcess[str]:
        """Run a pipeline in the containers' Airflow."""
        return self.orrery("run", pipeline, "--remote", f"http://127.0.0.1:{self.port}")

    def query(self, sql: str, database: str = "warehouse") -> list[tuple[str, ...]]:
        """Ask a database something."""
        psql = ("exec", "-T", "postgres", "psql", "-U", "postgres", "-d", database, "-Atc", sql)
        return [tuple(line.split("|")) for line in self.docker("compose", *psql).splitlines()]

    @contextmanager
    def locked(self, table: str) -> Iterator[Callable[[], None]]:
        """Nobody else gets at a table until the function is called, or the block ends."""
        command = ["docker", "compose", "exec", "-T", "postgres", "psql", "-U", "postgres", "-d", "warehouse"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(command, cwd=self.root, env=self.env, text=True, **pipes) as psql:
            assert psql.stdin
            assert psql.stdout
            psql.stdin.write(f"begin;\nlock table {table};\n\\echo locked\n")
            psql.stdin.flush()
            while (line := psql.stdout.readline()).strip() != "locked":
                assert line, "psql has ended"
            try:
                yield psql.stdin.close
            finally:
                psql.stdin.close()

    def waiting(self, role: str) -> str:
        """The container whose session of a role waits for a lock; empty while there is none."""
        found = self.query(
            f"select distinct client_addr from pg_stat_activity where usename = '{role}'"
            " and wait_event_type = 'Lock' and wait_event = 'relation'"
        )
        if not found:
            return ""
        for container in self.docker("compose", "ps", "-q", "worker").split():
            shown = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}"
            if found[0][0] in self.docker("inspect", "-f", shown, container).split():
                return container
        raise AssertionError(f"{found} is no worker's address")

    def left(self) -> list[str]:
        """The containers, volumes and networks that there are of the project."""
        label = ("--filter", f"label=com.docker.compose.project={NAME}", "-q")
        return [
            *self.docker("ps", "-a", *label).split(),
            *self.docker("volume", "ls", *label).split(),
            *self.docker("network", "ls", *label).split(),
        ]


def free_port() -> str:
    """A port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """Everything is up; nothing is left afterwards."""
    containers = Containers(tmp_path_factory.mktemp("containers"))
    without = os.environ.get("ORRERY_TEST_WITHOUT")
    arguments = ["--build-arg", f"WITHOUT={without}"] if without else []
    containers.docker("build", "--tag", NAME, *arguments, ".", seconds=1800)
    try:
        containers.docker("compose", "up", "--detach", "--wait", seconds=600)
        yield containers
    finally:
        containers.env["COMPOSE_FILE"] = MOUNTED
        containers.docker("compose", "--profile", "flower", "down", "--volumes")
    assert containers.left() == []


def test_image_runs_without_rights(containers: Containers) -> None:
    """No service of Airflow runs as root, can write into the image, or knows more than it needs."""
    secrets = "import os; print(os.getuid(), *sorted(k for k in os.environ if 'SQL' in k or 'JWT' in k))"
    exec_ = ("compose", "exec", "-T", "worker")
    assert containers.docker(*exec_, "python", "-c", secrets).split() == ["50000"]
    written = containers.docker(*exec_, "sh", "-c", "touch /opt/orrery/x 2>&1 || true")
    assert "Read-only file system" in written
    for tool in ("gcc", "pip", "uv"):
        assert containers.docker(*exec_, "sh", "-c", f"command -v {tool} || true") == ""
    assert containers.docker("compose", "exec", "-T", "redis", "id", "-un").strip() == "redis"


def test_flower_asks_for_the_password(containers: Containers) -> None:
    containers.docker("compose", "--profile", "flower", "up", "--detach", "--wait", seconds=300)
    url = f"http://127.0.0.1:{containers.flower}/workers"

    def page(password: str) -> str:
        try:
            answer = httpx.get(url, auth=("admin", password), trust_env=False)
        except httpx.TransportError:
            return ""
        return answer.text if answer.status_code == 200 else str(answer.status_code)

    wait_for("Flower", lambda: page("wrong") == "401", 120)
    wait_for("the workers", lambda: page(containers.env["AIRFLOW_PASSWORD"]).count("celery@") >= 3, 120)
    containers.docker("compose", "--profile", "flower", "stop", "flower")


@pytest.mark.parametrize("pipeline", ["forex", "booking_analytics"])
def test_pipelines_are_green_on_three_workers(containers: Containers, pipeline: str) -> None:
    assert len(containers.docker("compose", "ps", "-q", "worker").split()) == 3
    done = containers.run(pipeline)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{pipeline}: success" in done.stdout


@pytest.mark.parametrize(("role", "table"), [("loader", LANDED), ("transformer", FACTS)])
def test_a_killed_worker_costs_only_time(containers: Containers, role: str, table: str) -> None:
    """Killed while it loads files, or while dbt builds: the run ends green, no row is lost or doubled."""
    assert containers.run("forex").returncode == 0
    before = containers.query(ROWS.format(table))
    if role == "loader":
        containers.query(f"truncate {LANDED}; delete from landing._orrery_ledger")
    command = [sys.executable, "-m", "orrery.cli", "run", "forex", "--remote"]
    with (
        containers.locked(table) as unlock,
        subprocess.Popen(
            [*command, f"http://127.0.0.1:{containers.port}"],
            env=containers.env,
            stdout=subprocess.PIPE,
            text=True,
        ) as run,
    ):
        worker = wait_for("the lock", lambda: containers.waiting(role), 120)
        containers.docker("kill", worker)
        unlock()
        told, _ = run.communicate(timeout=400)
    print(told)
    assert run.returncode == 0, told
    assert "forex: success" in told
    assert containers.query(ROWS.format(table)) == before
    assert before[0][0] != "0"
    containers.docker("compose", "up", "--detach", "--wait", seconds=300)


def test_a_mounted_project_is_edited_without_a_new_image(
    containers: Containers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(containers.env, "COMPOSE_FILE", MOUNTED)
    (containers.root / "dbt" / "target").mkdir()
    containers.docker("compose", "up", "--detach", "--wait", seconds=600)
    assert containers.run("forex").returncode == 0
    model = containers.root / "dbt" / "models" / "forex" / "silver" / "int_forex_rates__spanned.sql"
    model.write_text(f"select 1 as edited, * from (\n{model.read_text()}\n) as rates\n")

    def errors() -> str:
        return str(containers.query("select string_agg(stacktrace, '') from import_error", "airflow"))

    wait_for("Airflow shows that it has changed", lambda: f"{model.name} has changed" in errors(), 60)
    exec_ = ("compose", "exec", "-T", "dag-processor", "python", "-m", "orrery.cli", "build")
    assert "forex" in containers.docker(*exec_)
    wait_for("the errors go away", lambda: model.name not in errors(), 60)
    assert containers.run("forex").returncode == 0
    assert containers.query("select distinct edited from dev_silver.int_forex_rates__spanned") == [("1",)]
