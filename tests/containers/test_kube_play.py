"""The pod of dbt as podman runs it: the manifest of the template, the image of the Dockerfile.

    ORRERY_TEST_POD_IMAGE=orrery ./orrery test --only containers

It needs `podman`, and an image that was built from this project. The warehouse is that of a local stack.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from orrery.config.dbt_pods import DbtPods
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.config.templates import render_template
from orrery.execute.assignment import Assignment
from orrery.execute.options import RunOptions
from orrery.manifest.store import ManifestStore
from orrery.plan.planner import plan_pipeline
from orrery.pods.order import Order
from orrery.pods.speech import Listener
from support import trial
from support.live import Live, own_stack

IMAGE = os.environ.get("ORRERY_TEST_POD_IMAGE")
NAME = "orrery-kube-play"
PIPELINE = "booking_analytics"
# podman has no namespaces, so names are the test's own.
PODS = DbtPods.model_validate({"env_from": {"config_maps": NAME, "secrets": NAME}})


def podman(*arguments: str, check: bool = True, given: str | None = None) -> str:
    """Run a command of podman's; returns what it printed, of `logs` both streams.

    :param given: its input
    """
    done = subprocess.run(
        ["podman", *arguments],
        # `kube play` would take a file of the image's name, such as the launcher, for what to build it from.
        cwd="/",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        input=given,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout + (done.stderr if arguments[0] == "logs" else "")


def make_secret(name: str, values: dict[str, str]) -> None:
    """A secret as podman's `kube play` reads it: before 4.4 not what it makes of an object of kind Secret."""
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in values.items()}
    major, minor, *_ = podman("version", "--format", "{{.Client.Version}}").split(".")
    content: dict[str, Any] = encoded
    if (int(major), int(minor)) >= (4, 4):
        content = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}
    podman("secret", "create", name, "-", given=json.dumps(content))


@pytest.fixture(scope="module")
def image() -> str:
    if not IMAGE:
        pytest.skip("starts a pod: ORRERY_TEST_POD_IMAGE=<image of the Dockerfile> asks for it")
    if shutil.which("podman") is None:
        pytest.skip("there is no podman")
    found = subprocess.run(["podman", "image", "exists", IMAGE], check=False)
    if found.returncode:
        pytest.skip(f"podman has no image {IMAGE}: docker build -t {IMAGE} .")
    return IMAGE


@pytest.fixture(scope="module")
def warehouse(image: str) -> Iterator[Live]:
    """A local stack, of which the pod uses the warehouse."""
    with own_stack(trial.copy) as live:
        assert live.orrery("up").code == 0
        yield live


def objects(found: Mapping[str, str], image: str, order: Order) -> list[dict[str, Any]]:
    """The pod, and its config map.

    :param found: how the warehouse is reached
    """
    variables = {"ORRERY_WAREHOUSE_HOST": found["host"], "ORRERY_WAREHOUSE_PORT": found["port"]}
    given = {
        "image": image,
        "command": ("python", "-m", "orrery.pods.inside"),
        "args": order.arguments(),
    }
    labels = {"orrery/pipeline": PIPELINE}
    pod = render_template(Project.find(), PODS, name=NAME, labels=labels, uri=None, given=given)
    # The warehouse listens on this machine only.
    pod["spec"]["hostNetwork"] = True
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME},
            "data": variables,
        },
        pod,
    ]


def order_of(live: Live) -> Order:
    """All of the pipeline."""
    project = Project(live.root)
    slim = ManifestStore(project).read(PIPELINE)
    plan = plan_pipeline(load_pipelines(project).get(PIPELINE), slim)
    assignment = Assignment(
        dag_id=PIPELINE,
        run_id="kube_play",
        log_url="",
        tasks=plan.tasks,
        options=RunOptions(),
        tests="gate",
        stale="fail",
        elementary=False,
        keep_results=False,
        max_field_length=4096,
    )
    return Order(assignment, dict.fromkeys(assignment.built, 1))


def test_a_product_is_built_by_the_pod(warehouse: Live, image: str, tmp_path: Path) -> None:
    order = order_of(warehouse)
    file = tmp_path / "pod.yaml"
    with warehouse.connect() as link:
        found, password = link.info.dsn_parameters, link.info.password
    file.write_text(yaml.safe_dump_all(objects(found, image, order)), encoding="utf-8")
    make_secret(NAME, {"DBT_ENV_SECRET_WAREHOUSE_PASSWORD": password})
    try:
        podman("kube", "play", str(file))
        code = podman("wait", f"{NAME}-base").strip()
        log = podman("logs", f"{NAME}-base")
    finally:
        podman("kube", "down", str(file), check=False)
        podman("secret", "rm", NAME, check=False)
    told: list[str] = []
    listener = Listener(told.append)
    for line in log.splitlines():
        listener.hear(line)
    assert (code, listener.refusal, listener.ended) == ("0", None, True), "\n".join(told)
    assert {update.task_id: update.state for update in listener.updates.values()} == dict.fromkeys(
        order.tries, "success"
    )
    [(rows,)] = warehouse.query("select count(*) from dev_core.fct_bookings")
    assert rows > 0
