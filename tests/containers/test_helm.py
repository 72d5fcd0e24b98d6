"""Airflow's official Helm chart with our values, as Helm renders it: its pods and pipelines run here.

    ORRERY_TEST_CONTAINERS=1 ORRERY_TEST_AIRFLOW_CHART=<folder of the chart> ./orrery test --only containers

It needs `helm` and `docker`. `helm pull apache-airflow/airflow --version 1.22.0 --untar` gets the chart. What
a cluster does beside running pods is not tried: KEDA, storage, rights, network policies.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from orrery.local.ports import find_free
from services.node import Node, docker
from support import chart
from support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
NAME = "orrery-test-helm"
ROLES = ("airflow", "loader", "transformer")
DEPLOYMENTS = ("api-server", "scheduler", "dag-processor", "triggerer", "worker")

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("ORRERY_TEST_CONTAINERS") != "1",
        reason="builds an image and starts containers: ORRERY_TEST_CONTAINERS=1 asks for it",
    ),
    pytest.mark.skipif(bool(chart.missing()), reason=chart.missing()),
]


class Cluster:
    """What is in the namespace of Airflow, on one machine, and a PostgreSQL beside it."""

    def __init__(self, folder: Path) -> None:
        self.passwords = {role: secrets.token_hex(16) for role in (*ROLES, "postgres", "admin")}
        self.api_port = find_free()
        docker("build", "--build-arg=ORRERY_TARGET=prod", f"--tag={NAME}:main", str(ROOT), seconds=1800)
        rendered = chart.rendered(image=NAME, over={"images": {"redis": {"tag": "7"}}})
        self.objects = [*rendered, *self._prepared()]
        self.node = Node(NAME, folder, self.objects)

    def _prepared(self) -> list[dict[str, Any]]:
        """What has to be there before the chart: secrets with values, and the config map."""
        urls = {role: f"{role}:{self.passwords[role]}@postgres" for role in ROLES}
        values = {
            "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": self.passwords["transformer"],
            "AIRFLOW_CONN_WAREHOUSE_LOADER": f"postgres://{urls['loader']}/warehouse",
            "connection": f"postgresql+psycopg2://{urls['airflow']}/airflow",
            "kedaConnection": f"postgresql://{urls['airflow']}/airflow",
            "fernet-key": Fernet.generate_key().decode(),
            "jwt-secret": secrets.token_hex(32),
            "api-secret-key": secrets.token_hex(32),
            "POSTGRES_PASSWORD": self.passwords["postgres"],
            **{f"ORRERY_{role.upper()}_PASSWORD": self.passwords[role] for role in ROLES},
            "passwords.json": json.dumps({"admin": self.passwords["admin"]}),
        }
        found = [each for each in chart.secrets() if each["metadata"]["name"] != "git-credentials"]
        for secret in found:
            secret["stringData"] = {key: values[key] for key in secret["stringData"]}
        config_map = chart.manifest("pipeline-env.yaml")
        config_map["data"]["ORRERY_WAREHOUSE_HOST"] = "postgres"
        job = chart.manifest("roles-job.yaml")
        [container] = job["spec"]["template"]["spec"]["containers"]
        container["image"] = container["image"].replace(chart.IMAGE, NAME)
        return [*found, config_map, job]

    def up(self) -> None:
        """Start everything in the order of an installation."""
        docker(
            *("run", "--detach", f"--name={NAME}-postgres", f"--network={NAME}", "--network-alias=postgres"),
            f"--env=POSTGRES_PASSWORD={self.passwords['postgres']}",
            "postgres:17",
        )
        self.node.run_job("warehouse-roles", 150)
        self.node.start("StatefulSet", "airflow-redis")
        self.node.run_job("airflow-run-airflow-migrations", 300)
        for part in DEPLOYMENTS:
            ports = {8080: self.api_port} if part == "api-server" else {}
            self.node.start("Deployment", f"airflow-{part}", ports)

    def container(self, part: str) -> dict[str, Any]:
        """What the chart says of the container of a part."""
        [container] = self.node.template("Deployment", f"airflow-{part}")["spec"]["containers"]
        return dict(container)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("volumes"))
    try:
        cluster.up()
        yield cluster
    except BaseException:
        print(cluster.node.logs())
        raise
    finally:
        cluster.node.clean()


@pytest.mark.parametrize("part", DEPLOYMENTS)
def test_parts_pass_their_checks(cluster: Cluster, part: str) -> None:
    probes = [key for key in cluster.container(part) if key.endswith("Probe")]
    assert "livenessProbe" in probes
    for probe in probes:
        said: list[str] = []

        def well(probe: str = probe, said: list[str] = said) -> bool:
            said[:] = [cluster.node.check("Deployment", f"airflow-{part}", probe)]
            return said == [""]

        wait_for(f"{part} passes its {probe}", well, 180)


@pytest.mark.parametrize("pipeline", ["forex", "booking_analytics"])
def test_pipelines_are_green(cluster: Cluster, pipeline: str) -> None:
    url = f"http://127.0.0.1:{cluster.api_port}"
    command = [sys.executable, "-m", "orrery.cli", "run", pipeline, "--remote", url]
    env = {
        **os.environ,
        "AIRFLOW_PASSWORD": cluster.passwords["admin"],
        "ORRERY_PROJECT_DIR": str(ROOT),
        "PYTHONPATH": str(ROOT / "include"),
    }
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr + cluster.node.logs()
    assert f"{pipeline}: success" in done.stdout


def test_keda_asks_airflows_database(cluster: Cluster) -> None:
    """Its query runs there, by the URL that it finds in the workers, and an idle Airflow needs none."""
    [scaled] = [each for each in cluster.objects if each["kind"] == "ScaledObject"]
    [trigger] = scaled["spec"]["triggers"]
    asked = trigger["metadata"]
    url = cluster.node.environment(cluster.container("worker"))[asked["connectionFromEnv"]]
    psql = ("exec", f"{NAME}-postgres", "psql", url, "--no-align", "--tuples-only", "--command")
    wait_for("nothing runs", lambda: docker(*psql, asked["query"]).strip() == "0")
