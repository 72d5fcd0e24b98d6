"""Single steps of a pod of dbt: how it is found, followed, ended and explained, on a stand-in cluster."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException, TaskDeferred

from conftest import WriteProject
from orrery.config.dbt_pods import IMAGE_VARIABLE, DbtPods
from orrery.execute.assignment import Assignment
from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.collector import Line
from orrery.execute.node import NodeFailedError
from orrery.execute.options import RunOptions
from orrery.execute.tally import Tally
from orrery.ingest.errors import SetupError
from orrery.plan.model import TaskKind, TaskPlan
from orrery.pods import pod as pod_module
from orrery.pods.operators import PodNodeOperator
from orrery.pods.runner import OrderRefusedError, PodRunner
from services.kubernetes import KubernetesServer
from services.kubernetes_pods import Pod
from support.tasks import context_of
from support.waiting import wait_for

pytestmark = pytest.mark.integration

IMAGE = "example/orrery:1"
A, B = "core.a", "core.b"
SPEAK = """
import sys
from orrery.execute.channel import NodeState, Update
from orrery.execute.collector import Line
from orrery.execute.run_graph import RunGraph
from orrery.pods.speech import Speaker
said = Speaker(sys.stdout)
"""
GREEN = """
print('Running with dbt', flush=True)
said.add(Update('core.a', NodeState.RUNNING))
said.write('core.a', 1, [Line('2026-01-31T00:00:00', 'info', 'OK created')])
said.add(Update('core.a', NodeState.SUCCESS, result={'status': 'success', 'message': None}))
"""
END = "said.end({'core.a': 'Got 1 result'})\n"
HOLD = "import signal; print('holding', flush=True); signal.pause()\n"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesServer]:
    """A cluster that the connection kubernetes_default leads to; nothing is left in it."""
    python_path = os.pathsep.join([str(Path(pod_module.__file__).parents[2])])
    with KubernetesServer(
        tmp_path,
        {IMAGE: []},
        environment={"PYTHONPATH": python_path},
        config_maps={"pipeline-env": {}},
        secrets={"warehouse": {"PASSWORD": "s3cr3t-value"}},
    ) as server:
        for conn_id, body in server.connections().items():
            content = {"conn_type": body["conn_type"], "extra": json.loads(body["extra"])}
            monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(content))
        monkeypatch.setenv(IMAGE_VARIABLE, IMAGE)
        yield server
        assert server.unknown == []
        assert (server.pods, server.running) == ({}, [])


def does(monkeypatch: pytest.MonkeyPatch, *steps: str) -> None:
    """Have pods do this in place of dbt."""
    monkeypatch.setattr(pod_module, "COMMAND", ("python", "-c", "".join([SPEAK, *steps])))


def assignment() -> Assignment:
    tasks = {
        task_id: TaskPlan(
            task_id, "core", TaskKind.MODEL, (f"model.shop.{task_id}",), (), frozenset(), None, ""
        )
        for task_id in (A, B)
    }
    return Assignment("shop", "manual__1", "", tasks, RunOptions(), "gate", "fail", False, False, 4096)


class Heard:
    """What a build hears of its tasks."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.logs: list[Any] = []

    def add(self, update: Update) -> None:
        self.updates.append(update)

    def write(self, *log: Any) -> None:
        self.logs.append(log)


def runner(heard: Heard, pods: DbtPods | None = None) -> PodRunner:
    return PodRunner(pods or DbtPods(), assignment(), Tally(heard), heard, context_of("build"))


def test_a_build_hears_what_its_pod_tells(
    cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # Of a task that it was not asked for it says nothing to Airflow.
    other = "said.add(Update('core.b', NodeState.SUCCESS))\n"
    order = "said.order(RunGraph({'core.a': [], 'core.b': ['core.a']}))\n"
    does(monkeypatch, order, GREEN, other, END)
    heard = Heard()
    made = runner(heard)
    assert made.graph.ancestors([B]) == set()
    with caplog.at_level(logging.INFO, logger="orrery.pods.runner"):
        made.run({A: Try(3)})
    assert [(update.task_id, update.state) for update in heard.updates] == [
        (A, NodeState.RUNNING),
        (A, NodeState.SUCCESS),
    ]
    # The number of the try is that of Airflow.
    assert heard.logs == [(A, 3, [Line("2026-01-31T00:00:00", "info", "OK created")])]
    assert made.warnings == {A: "Got 1 result"}
    # The DAG knows of no edge: variables of the run have made one.
    assert made.graph.ancestors([B]) == {A}
    assert caplog.messages == ["Running with dbt"]


def test_a_task_of_which_the_log_tells_nothing_is_given_back(
    cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    does(monkeypatch, GREEN, END)
    heard = Heard()
    runner(heard).run({A: Try(1), B: Try(1)})
    assert {update.task_id: update.state for update in heard.updates} == {
        A: NodeState.SUCCESS,
        B: NodeState.RELEASED,
    }


def in_background(made: Any, tries: dict[str, int]) -> tuple[threading.Thread, list[AirflowException]]:
    """A try that goes on beside the test, and a list for what it fails with."""
    failures: list[AirflowException] = []

    def run() -> None:
        try:
            made.run({task_id: Try(number) for task_id, number in tries.items()})
        except AirflowException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


def test_news_come_while_the_pod_runs(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, GREEN, HOLD)
    heard = Heard()
    thread, failures = in_background(runner(heard), {A: 1, B: 1})
    wait_for("the task has ended", lambda: len(heard.updates) == 2, 60)
    assert len(cluster.running) == 1
    # Its machine is short of memory.
    [held] = cluster.pods.values()
    assert held.process is not None
    os.killpg(held.process.pid, signal.SIGKILL)
    thread.join(60)
    [failure] = failures
    assert "of shop failed with exit code 137" in str(failure)
    # What people are told is without the messages for the worker.
    assert "holding" in str(failure)
    assert "orrery:" not in str(failure)


@pytest.mark.parametrize("first", ["", "begins"])
def test_a_pod_may_be_silent_for_long(
    cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, first: str
) -> None:
    monkeypatch.setattr(pod_module, "_SILENCE", (10, 1))
    # Shorter than the silence in all, and far longer than a single one on a busy machine.
    monkeypatch.setattr(pod_module, "_PATIENCE", 10)
    says = f"print({first!r}, flush=True)\n" if first else ""
    does(monkeypatch, says, "import time\ntime.sleep(12)\n", GREEN, END)
    heard = Heard()
    with caplog.at_level(logging.INFO, logger="orrery.pods.runner"):
        runner(heard).run({A: Try(1)})
    assert [update.state for update in heard.updates] == [NodeState.RUNNING, NodeState.SUCCESS]
    # Each line once, however often the log was read anew.
    assert caplog.messages == [*filter(None, [first]), "Running with dbt"]


def test_a_refusal_is_for_good(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, "said.refuse('no such node')\nsys.exit(2)\n")
    with pytest.raises(OrderRefusedError, match="no such node"):
        runner(Heard()).run({A: Try(1)})


@pytest.mark.parametrize("lost", [False, True], ids=["", "its machine is lost"])
def test_the_pod_of_a_lost_try_goes_first(
    cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, *, lost: bool
) -> None:
    does(monkeypatch, HOLD)
    thread, failures = in_background(runner(Heard()), {A: 1})
    wait_for("the first pod runs", lambda: cluster.running, 60)
    [pod] = cluster.running
    if lost:
        # Nobody ends it, but it is in nobody's way.
        cluster.pods["default", pod].lost = True
        monkeypatch.setattr(pod_module, "_DELETION", 1.0)
    does(monkeypatch, GREEN, END)
    heard = Heard()
    runner(heard).run({A: Try(2)})
    assert heard.updates[-1].state is NodeState.SUCCESS
    assert cluster.deleted[0] == pod
    thread.join(60)
    assert len(failures) == 1


def lose(cluster: KubernetesServer, *, evicted: bool) -> None:
    """Have the machine of the one pod go; `evicted`: the cluster has noticed."""
    [pod] = cluster.pods.values()
    pod.lost, pod.terminating, pod.grace = True, evicted, 0
    # Who reads its log notices, too.
    pod.kill()


@pytest.mark.parametrize("evicted", [False, True], ids=["its time is over", "it was to be deleted"])
def test_a_pod_whose_machine_is_lost_is_given_up(
    cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, *, evicted: bool
) -> None:
    # Of a lost machine nothing comes, so its pod goes on running for Kubernetes.
    monkeypatch.setattr(Pod, "_end", lambda *_: None)
    # The pod's own time is a minute longer than the timeout.
    monkeypatch.setattr(pod_module, "_LOST", 1.0 if evicted else -55.0)
    monkeypatch.setattr(pod_module, "_SILENCE", (10, 0.3))
    does(monkeypatch, GREEN, HOLD)
    heard = Heard()
    made = runner(heard, DbtPods(timeout=timedelta(hours=1 if evicted else 0, seconds=1)))
    thread, failures = in_background(made, {A: 1, B: 1})
    wait_for("the task has ended", lambda: len(heard.updates) == 2 or failures, 60)
    if cluster.pods:
        lose(cluster, evicted=evicted)
    thread.join(60)
    assert not thread.is_alive(), "it waits for ever"
    [failure] = failures
    assert "of shop should have ended, but its machine says nothing" in str(failure)
    # Another try may succeed, and nothing is in its way.
    assert not isinstance(failure, AirflowFailException)
    assert cluster.pods == {}


def test_an_image_that_is_not_there(cluster: KubernetesServer) -> None:
    with pytest.raises(AirflowException, match=r"of shop did not .*: ErrImagePull") as caught:
        runner(Heard(), DbtPods(image="example/none:1")).run({A: Try(1)})
    assert not isinstance(caught.value, AirflowFailException)


def test_no_image_at_all(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IMAGE_VARIABLE)
    with pytest.raises(SetupError) as caught:
        runner(Heard()).run({A: Try(1)})
    assert str(caught.value) == (
        "There is no image for the pods of dbt.\n"
        "  Set ORRERY_POD_IMAGE for the workers, or image in the pipeline's block kubernetes."
    )


def test_a_token_that_is_refused(cluster: KubernetesServer) -> None:
    token, cluster.token = cluster.token, "another"
    with pytest.raises(SetupError, match="answers 401: Unauthorized\n  The connection's credentials"):
        runner(Heard()).run({A: Try(1)})
    cluster.token = token


def node(pods: DbtPods | None = None, retries: int = 0) -> PodNodeOperator:
    return PodNodeOperator(
        pods=pods or DbtPods(pods="per_model"),
        retries=retries,
        task_id=A,
        kind=TaskKind.MODEL,
        stage="core",
        nodes=("model.shop.a",),
    )


def end_of(cluster: KubernetesServer, operator: PodNodeOperator, context: Any, **event: Any) -> None:
    """Submit, and resume when the pod has ended."""
    with pytest.raises(TaskDeferred) as deferred:
        operator.execute(context)
    name = deferred.value.trigger.serialize()[1]["pod_name"]
    wait_for("the pod has ended", lambda: cluster.pods["default", name].ended, 60)
    status = "success" if cluster.pods["default", name].phase == "Succeeded" else "failed"
    known = {"status": status, "namespace": "default", "name": name, "message": ""}
    again = node(operator.pods, operator.retries - operator.spare)
    again.trigger_reentry(context, known | event)


def test_a_node_is_as_its_pod_tells(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, GREEN, END)
    context = context_of(A)
    end_of(cluster, node(), context)
    assert context["ti"].xcoms["dbt"] == {"status": "success", "message": None}


FAILED = """
result = {'status': 'error', 'message': 'Database Error'}
failure = {'result': result, 'lines': [], 'compiled_sql': 'select 1 / 0', 'compiled_paths': []}
said.add(Update('core.a', NodeState.FAILED, failure=failure))
"""


@pytest.mark.parametrize(
    ("retries", "numbers", "expected"),
    [
        # The one retry that each of them has is not for dbt's errors.
        (0, {"try_number": 1, "max_tries": 1}, AirflowFailException),
        (1, {"try_number": 1, "max_tries": 1}, NodeFailedError),
        # Cleared after its first try.
        (0, {"try_number": 2, "max_tries": 2}, AirflowFailException),
        (2, {"try_number": 3, "max_tries": 4}, NodeFailedError),
    ],
)
def test_a_node_that_fails(
    cluster: KubernetesServer,
    monkeypatch: pytest.MonkeyPatch,
    retries: int,
    numbers: dict[str, int],
    expected: type[Exception],
) -> None:
    does(monkeypatch, FAILED, END, "sys.exit(1)\n")
    operator, context = node(retries=retries), context_of(A, **numbers)
    assert operator.retries == max(1, retries)
    with pytest.raises(expected, match="Database Error"):
        end_of(cluster, operator, context)
    assert context["ti"].xcoms["dbt"]["message"] == "Database Error"


def test_a_node_that_is_skipped(cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch) -> None:
    does(monkeypatch, "said.add(Update('core.a', NodeState.SKIPPED, result={}, note='no such node'))\n", END)
    with pytest.raises(AirflowSkipException, match="no such node"):
        end_of(cluster, node(), context_of(A))


@pytest.mark.parametrize(
    ("steps", "event", "told"),
    [
        ("sys.exit('Killed')\n", {}, "of core.a failed with exit code 1. Its last lines:\nKilled"),
        (END, {}, "the image has another project than the DAG"),
        (GREEN, {"status": "timeout"}, None),
    ],
    ids=["dies", "another project", "late"],
)
def test_a_pod_that_does_not_do_its_work(
    cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, steps: str, event: Any, told: str | None
) -> None:
    does(monkeypatch, steps)
    context = context_of(A)
    if told is None:
        # It was done before its time was over after all.
        end_of(cluster, node(), context, **event)
        return
    with pytest.raises(AirflowException, match=told) as caught:
        end_of(cluster, node(), context, **event)
    assert not isinstance(caught.value, AirflowFailException)
    assert told in context["ti"].xcoms["dbt"]["message"]


def test_a_template_of_ones_own(
    cluster: KubernetesServer, monkeypatch: pytest.MonkeyPatch, write_project: WriteProject
) -> None:
    text = "apiVersion: v1\nkind: Pod\nspec: {containers: [{name: base, comand: [ls]}]}\n"
    write_project({"include/templates/own.yaml.j2": text})
    with pytest.raises(AirflowFailException, match=r"own\.yaml\.j2: a pod has no spec\.containers\.comand"):
        node(DbtPods(pods="per_model", template="own.yaml.j2")).execute(context_of(A))
    assert cluster.posted == []
