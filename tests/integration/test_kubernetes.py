"""Jobs and Spark applications: the provider's own operators, hooks and trigger, on a stand-in cluster."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.sdk import DAG, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException, TaskDeferred
from airflow.sdk.module_loading import import_string

from conftest import WriteProject
from orrery.config.kubernetes import JobIngest, SparkIngest
from orrery.config.templates import SHIPPED
from orrery.ingest import kubernetes
from orrery.ingest.kubernetes import JobOperator, KubernetesOperator, SparkOperator
from orrery.plan.model import Work
from services.kubernetes import KubernetesServer
from support.tasks import context_of
from support.waiting import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("resumed_at_once")]

IMAGE = "example/loader:1"
RESULT = "dbt"
HOLD = "import signal; print('holding', flush=True); signal.pause()"
SCRIPTS = {
    "load.py": (
        "import os, sys\n"
        "print('spark got', sys.argv[1:], os.environ['TARGET'], os.environ['SPARK_APPLICATION_NAME'])\n"
    ),
    "fail.py": "import sys\nprint('reading')\nsys.exit('no such bucket')\n",
    "hold.py": HOLD,
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    """A cluster that the connection kubernetes_default leads to."""
    folder = tmp_path / "cluster"
    folder.mkdir()
    with make_cluster(folder) as server:
        connect(monkeypatch, server)
        yield server
        check_nothing_left(server)


def make_cluster(folder: Path) -> KubernetesServer:
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
    return KubernetesServer(
        folder,
        {IMAGE: ["python"]},
        config_maps={"pipeline-env": {"TARGET": "from the config map", "REGION": "eu"}},
        secrets={"warehouse": {"PASSWORD": "s3cr3t-value"}},
    )


def connect(patch: pytest.MonkeyPatch, server: KubernetesServer) -> None:
    """Make its connections known to Airflow."""
    for conn_id, body in server.connections().items():
        content = {"conn_type": body["conn_type"], "extra": json.loads(body["extra"])}
        patch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(content))


def check_nothing_left(server: KubernetesServer) -> None:
    assert server.unknown == []
    assert server.running == []
    assert (server.pods, server.applications) == ({}, {})


def task(name: str, *, dag: DAG | None = None, **block: Any) -> KubernetesOperator:
    """An operator as a DAG has it; a block with an `application` is one for Spark."""
    block = {"image": IMAGE, **block}
    common: dict[str, Any] = {
        "task_id": name,
        "stage": "ingest",
        "nodes": ("source.shop.orders",),
        "dag": dag,
    }
    kind: type[KubernetesOperator]
    if "application" in block:
        made: Any = SparkIngest.model_validate({"spark": block})
        kind = SparkOperator
    else:
        made = JobIngest.model_validate({"job": block})
        kind = JobOperator
    return kind(work=Work(next(iter(made.model_fields)), made, "shop.orders"), **common)


@contextmanager
def logged() -> Iterator[list[str]]:
    """What Airflow's loggers are told, in the tests' own quiet configuration, too."""
    lines: list[str] = []
    before = structlog.get_config()

    def keep(_: Any, __: str, event: MutableMapping[str, Any]) -> str:
        lines.append(str(event["event"]))
        raise structlog.DropEvent

    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[keep],
        cache_logger_on_first_use=False,
    )
    try:
        yield lines
    finally:
        structlog.configure(**before)


# Whole runs: Airflow's task runner and trigger, with what they keep in a database


@dataclass
class Run:
    """A run of a DAG: states and XComs of its tasks, what was logged and what the cluster was given."""

    states: dict[str, str]
    xcoms: dict[tuple[str, str], Any]
    log: str
    cluster: KubernetesServer
    secret: str
    posted: dict[str, Any] = field(default_factory=dict)

    def message(self, name: str) -> str:
        """What a task tells in its XCom."""
        told: str = self.xcoms[name, RESULT]["message"]
        return told


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """One run of a DAG with a task for each way that things go."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
    from airflow.models.xcom import XComModel
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from sqlalchemy import select

    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch, make_cluster(folder) as server:
        connect(patch, server)
        patch.setattr(kubernetes, "POLL_SECONDS", 0.2)
        initdb()
        DagBundlesManager().sync_bundles_to_db()
        uri = Param("s3://bucket/$(HOSTNAME) a.json", type=["null", "string"])
        dag = DAG("shop", params={"uri": uri})
        env = {"env": {"TARGET": "prod"}, "env_from": {"config_maps": "pipeline-env", "secrets": "warehouse"}}
        task("ok", dag=dag, command=["python", "-c"], args=[SHOW, "$(ORRERY_URI)"], **env)
        task("fails", dag=dag, args=["-c", "import sys; print('step 1', flush=True); sys.exit('bad input')"])
        task("late", dag=dag, args=["-c", HOLD], timeout="5s")
        task("no_image", dag=dag, image="example/none:1")
        task("spark_driver_ok", dag=dag, application="local:///load.py", args=["$(ORRERY_URI)", "x"], **env)
        task("spark_driver_fails", dag=dag, application="local:///fail.py")
        bag = DagBag(str(folder / "none"))
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)
        with logged() as lines:
            made = dag.test()
        with create_session() as session:
            query = select(XComModel).where(XComModel.run_id == made.run_id)
            xcoms = {(row.task_id, row.key): row.value for row in session.scalars(query)}
        states = {ti.task_id: str(ti.state) for ti in made.get_task_instances()}
        posted = {body["metadata"]["labels"]["orrery/task"]: body for body in server.posted}
        yield Run(states, xcoms, "\n".join(lines), server, server.token, posted)


SHOW = (
    "import os, sys\n"
    "print('got', sys.argv[1], os.environ['TARGET'], os.environ['REGION'], len(os.environ['PASSWORD']))\n"
    "print('ünïcode')\n"
)


def test_each_task_ends_as_its_container(run: Run) -> None:
    assert run.states == {
        "ok": "success",
        "fails": "failed",
        "late": "failed",
        "no_image": "failed",
        "spark_driver_ok": "success",
        "spark_driver_fails": "failed",
    }


def test_nothing_is_left_and_nothing_unknown_was_asked_for(run: Run) -> None:
    check_nothing_left(run.cluster)
    assert len(run.cluster.posted) == 6


def test_the_log_of_a_job_is_in_the_log_of_its_task(run: Run) -> None:
    # The plain variable stands above that of the config map; nothing is put into the uri.
    assert "[base] logs: got s3://bucket/$(HOSTNAME) a.json prod eu 12" in run.log
    assert "[base] logs: ünïcode" in run.log
    assert "[base] logs: holding" in run.log


def test_the_log_of_a_driver_is_in_the_log_of_its_task(run: Run) -> None:
    name = run.xcoms["spark_driver_ok", "pod_name"].removesuffix("-driver")
    told = f"spark got ['s3://bucket/$(HOSTNAME) a.json', 'x'] prod {name}"
    assert f"[spark-kubernetes-driver] logs: {told}" in run.log


def test_a_task_tells_how_it_went(run: Run) -> None:
    pods = {name: run.xcoms[name, "pod_name"] for name in run.states if (name, "pod_name") in run.xcoms}
    assert run.xcoms["ok", RESULT] == {
        "status": "success",
        "seconds": None,
        "rows_affected": None,
        "message": f"{pods['ok']} has succeeded",
        "nodes": [],
    }
    assert run.message("fails") == (
        f"The pod {pods['fails']} of shop.orders failed with exit code 1. Its last lines:\nstep 1\nbad input"
    )
    assert run.xcoms["fails", RESULT]["status"] == "error"
    assert f"The pod {pods['late']} of shop.orders did not end within its timeout" in run.message("late")
    assert run.message("no_image") == (
        f"The pod {pods['no_image']} of shop.orders did not run to its end: "
        'ErrImagePull: Failed to pull image "example/none:1": not found.'
    )
    assert "failed with exit code 1" in run.message("spark_driver_fails")
    assert "no such bucket" in run.message("spark_driver_fails")


def test_no_secret_is_logged_or_kept(run: Run) -> None:
    for secret in (run.secret, "s3cr3t-value"):
        assert secret not in run.log
        assert secret not in json.dumps([*run.xcoms.values()], default=str)
        assert secret not in json.dumps(run.cluster.posted)


def test_pods_carry_labels_to_find_them_by(run: Run) -> None:
    labels = run.posted["ok"]["metadata"]["labels"]
    assert (labels["orrery/pipeline"], labels["orrery/task"]) == ("shop", "ok")
    assert labels["orrery/run"].startswith("manual__")
    driver = run.posted["spark_driver_ok"]["spec"]["driver"]["labels"]
    assert (driver["orrery/pipeline"], driver["dag_id"]) == ("shop", "shop")


# Single steps: what a worker does until the triggerer waits, and what the triggerer does


def submit(operator: KubernetesOperator) -> KubernetesPodTrigger:
    """What the triggerer gets when a worker has started the task."""
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context_of(operator.task_id))
    # As the triggerer makes it, in another process.
    path, arguments = deferred.value.trigger.serialize()
    made: KubernetesPodTrigger = import_string(path)(**arguments)
    return made


def holding(cluster: KubernetesServer) -> bool:
    """Whether the process of a pod has begun its work."""
    return any(text == "holding" for pod in cluster.pods.values() for _, text in pod.lines)


HELD = [{"args": ["-c", HOLD]}, {"application": "local:///hold.py"}]


@pytest.mark.parametrize("block", HELD, ids=["job", "spark"])
def test_a_cleared_task_ends_its_pod(cluster: KubernetesServer, block: dict[str, Any]) -> None:
    trigger = submit(task("held", **block))
    wait_for("the process works", lambda: holding(cluster))
    assert len(cluster.running) == 1
    # What the triggerer calls when a user clears the task, or marks it as failed.
    asyncio.run(trigger.on_kill())
    check_nothing_left(cluster)
    # Once more, should the triggerer have been stopped in between.
    asyncio.run(trigger.on_kill())


@pytest.mark.parametrize("block", HELD, ids=["job", "spark"])
def test_a_triggerer_in_a_hurry_ends_the_pod_all_the_same(
    cluster: KubernetesServer, block: dict[str, Any]
) -> None:
    trigger = submit(task("held", **block))
    wait_for("the process works", lambda: holding(cluster))

    async def hurry() -> None:
        killing = asyncio.ensure_future(trigger.on_kill())
        await asyncio.sleep(0)
        killing.cancel()
        deadline = time.monotonic() + 60
        while (cluster.pods or cluster.applications) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    asyncio.run(hurry())
    check_nothing_left(cluster)


@pytest.mark.parametrize("block", HELD, ids=["job", "spark"])
def test_a_worker_that_is_stopped_ends_its_pod(cluster: KubernetesServer, block: dict[str, Any]) -> None:
    operator = task("held", **block)
    submit(operator)
    wait_for("the process works", lambda: holding(cluster))
    operator.on_kill()
    check_nothing_left(cluster)


@pytest.mark.parametrize("block", HELD, ids=["job", "spark"])
def test_a_task_that_lost_its_worker_finds_its_pod_again(
    cluster: KubernetesServer, block: dict[str, Any]
) -> None:
    first = submit(task("held", **block))
    second = task("held", **block)
    assert submit(second).pod_name == first.pod_name
    assert len(cluster.posted) == 1
    second.on_kill()


@pytest.mark.parametrize("block", HELD, ids=["job", "spark"])
def test_a_cleared_task_does_not_take_over_the_pod_that_ends(
    cluster: KubernetesServer, block: dict[str, Any]
) -> None:
    first, second = task("held", **block), task("held", **block)
    old = submit(first).pod_name
    next(iter(cluster.pods.values())).terminating = True
    assert submit(second).pod_name != old
    assert len(cluster.posted) == 2
    first.on_kill()
    second.on_kill()


def test_the_log_comes_while_the_pod_runs(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubernetes, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(kubernetes, "LOG_SECONDS", 1)
    operator = task("held", args=["-c", HOLD])
    trigger = submit(operator)

    async def follow() -> None:
        events = asyncio.ensure_future(anext(aiter(trigger.run())))
        deadline = time.monotonic() + 60
        while "[base] holding" not in lines and time.monotonic() < deadline:
            assert not events.done()
            await asyncio.sleep(0.05)
        events.cancel()

    with logged() as lines:
        asyncio.run(follow())
    operator.on_kill()
    assert "[base] holding" in lines


def test_the_pod_of_a_killed_process_says_so(cluster: KubernetesServer) -> None:
    operator = task("held", args=["-c", HOLD])
    submit(operator)
    wait_for("the process works", lambda: holding(cluster))
    (pod,) = cluster.pods.values()
    assert pod.process is not None
    os.killpg(pod.process.pid, signal.SIGKILL)
    wait_for("the pod has failed", lambda: pod.ended)
    again = task("held", args=["-c", HOLD])
    event = {"status": "failed", "namespace": "default", "name": pod.name, "message": "failed"}
    with pytest.raises(AirflowException, match=r"of shop.orders failed with exit code 137.*\nholding"):
        again.trigger_reentry(context_of(again.task_id), event)


def test_a_pod_that_outlives_its_deadline(cluster: KubernetesServer, write_project: WriteProject) -> None:
    text = (SHIPPED / "job.yaml.j2").read_text().replace("{{ timeout_seconds + 60 }}", "5")
    write_project({"include/templates/short.yaml.j2": text})
    trigger = submit(task("held", args=["-c", HOLD], template="short.yaml.j2"))
    event = asyncio.run(anext(aiter(trigger.run()))).payload
    assert event["status"] == "failed"
    again = task("held", args=["-c", HOLD], template="short.yaml.j2")
    with pytest.raises(AirflowException, match=r"of shop.orders did not end in time.*\nholding"):
        again.trigger_reentry(context_of(again.task_id), event)


@pytest.mark.parametrize("block", HELD, ids=["job", "spark"])
def test_a_template_that_is_broken_by_now_keeps_no_pod(
    cluster: KubernetesServer, write_project: WriteProject, block: dict[str, Any]
) -> None:
    name = "spark.yaml.j2" if "application" in block else "job.yaml.j2"
    project = write_project({"include/templates/own.yaml.j2": (SHIPPED / name).read_text()})
    trigger = submit(task("held", **block, template="own.yaml.j2"))
    (project.template_dir / "own.yaml.j2").write_text("{{ nothing }}")
    again = task("held", **block, template="own.yaml.j2")
    event = {"status": "timeout", "namespace": "default", "name": trigger.pod_name, "message": "too late"}
    with pytest.raises(AirflowException, match="did not end within its timeout of 1:00:00; it is deleted"):
        again.trigger_reentry(context_of(again.task_id), event)
    check_nothing_left(cluster)


def test_a_driver_that_cannot_start_is_not_left_waiting(cluster: KubernetesServer) -> None:
    operator = task("none", application="local:///load.py", image="example/none:1")
    with pytest.raises(AirflowException, match="did not run to its end: ErrImagePull") as caught:
        operator.execute(context_of(operator.task_id))
    assert not isinstance(caught.value, AirflowFailException)
    check_nothing_left(cluster)


def test_the_git_sync_container_is_in_the_pod(cluster: KubernetesServer) -> None:
    git = {"repo": "https://example.com/team/project.git", "branch": "v2", "path": "/git", "secret": "git"}
    volumes = [{"name": "models", "mount_path": "/models", "claim": "models"}]
    operator = task("git", args=["-c", HOLD], git_sync=git, volumes=volumes, namespace="data")
    submit(operator)
    (body,) = cluster.posted
    (init,) = body["spec"]["initContainers"]
    assert (init["name"], init["envFrom"]) == ("git-sync", [{"secretRef": {"name": "git"}}])
    assert "--ref=v2" in init["args"]
    mounts = {mount["name"]: mount["mountPath"] for mount in body["spec"]["containers"][0]["volumeMounts"]}
    assert mounts == {"models": "/models", "git-sync": "/git"}
    assert body["metadata"]["namespace"] == "data"
    operator.on_kill()


@pytest.mark.parametrize("block", [{}, {"application": "a.py"}], ids=["job", "spark"])
def test_a_missing_connection(block: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_GPU_CLUSTER", raising=False)
    operator = task("none", connection="gpu_cluster", **block)
    context = context_of(operator.task_id)
    with pytest.raises(AirflowFailException) as caught:
        operator.execute(context)
    assert str(caught.value) == (
        "Airflow has no connection 'gpu_cluster'.\n"
        "  Set AIRFLOW_CONN_GPU_CLUSTER='kubernetes://?kube_config_path=/path/to/kubeconfig'\n"
        "  or try the pipeline with stand-ins: ./orrery run <pipeline> --stand-ins"
    )
    assert context["ti"].xcoms[RESULT]["message"] == str(caught.value)


def test_a_connection_that_leads_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GPU", f"kubernetes://?kube_config_path={tmp_path}/none")
    operator = task("none", connection="gpu")
    with pytest.raises(AirflowFailException, match="The connection 'gpu' leads to no cluster"):
        operator.execute(context_of(operator.task_id))


def test_a_refused_token(cluster: KubernetesServer) -> None:
    cluster.token = "another"
    operator = task("none")
    with pytest.raises(AirflowFailException) as caught:
        operator.execute(context_of(operator.task_id))
    assert str(caught.value) == (
        "The cluster of the connection 'kubernetes_default' answers 401: Unauthorized\n"
        "  The connection's credentials are not valid."
    )


def test_a_pod_that_the_cluster_refuses(cluster: KubernetesServer, write_project: WriteProject) -> None:
    text = "apiVersion: v1\nkind: Pod\nmetadata: {name: x, labels: {a: 'no label'}}\nspec: {containers: []}\n"
    write_project({"include/templates/own.yaml.j2": text})
    operator = task("none", template="own.yaml.j2")
    with pytest.raises(AirflowFailException, match=r"answers 422: .*no label"):
        operator.execute(context_of(operator.task_id))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: {{ nam }}}\n",
            "include/templates/own.yaml.j2:3:1: 'nam' is undefined",
        ),
        (
            "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: base, comand: [ls]}], restart: Never}\n",
            "include/templates/own.yaml.j2: a pod has no spec.containers.comand, spec.restart",
        ),
    ],
)
def test_a_broken_template(
    cluster: KubernetesServer, write_project: WriteProject, text: str, message: str
) -> None:
    write_project({"include/templates/own.yaml.j2": text})
    operator = task("none", template="own.yaml.j2")
    with pytest.raises(AirflowFailException) as caught:
        operator.execute(context_of(operator.task_id))
    assert str(caught.value).startswith(message)
    assert cluster.posted == []
