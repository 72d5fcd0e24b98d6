"""What a task whose dbt runs in a pod says when it fails."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from orrery.config.dbt_pods import DbtPods
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY
from orrery.execute.stale import why_stale
from orrery.ingest.errors import SetupError
from orrery.plan.model import TaskKind
from orrery.pods.operators import PodNodeOperator
from orrery.pods.speech import Speaker
from support.tasks import store_of

TEXT = "The cluster answers: Bearer 0123456789abcdef0123 is not known."
TOLD = "The cluster answers: Bearer *** is not known."


def operator(**other: Any) -> PodNodeOperator:
    """The task of a model, but for what is said."""
    model = {"task_id": "a", "kind": TaskKind.MODEL, "stage": "core", "nodes": ("model.shop.a",)}
    return PodNodeOperator(pods=DbtPods(pods="per_model"), retries=0, **{**model, **other})


def test_a_pod_is_told_what_a_stale_source_does() -> None:
    check = operator(
        task_id="app__raw",
        kind=TaskKind.FRESHNESS,
        stage="source_freshness",
        nodes=("source.shop.app.raw",),
        stale="warn",
    )
    ti = SimpleNamespace(dag_id="shop", run_id="one", log_url="")
    context: Any = {"ti": ti, "dag": SimpleNamespace(task_ids=[]), "task_state_store": store_of({})}
    assert check._assignment(context, RunOptions()).stale == "warn"


def test_a_pod_is_not_started_for_what_reads_a_stale_source(xcoms: dict[str, Any]) -> None:
    reader = operator(stale="skip", checks=("source_freshness.app__raw",))
    node = {"unique_id": "source.shop.app.raw", "status": "error"}
    stale = {"status": "error", "message": "loaded 5 s ago", "nodes": [node]}
    ti = SimpleNamespace(xcom_pull=lambda **_: stale, xcom_push=lambda key, value: xcoms.update({key: value}))
    context: Any = {
        "ti": ti,
        "dag_run": SimpleNamespace(conf=None),
        "params": {},
        "task_state_store": store_of({}),
    }
    with pytest.raises(AirflowSkipException, match="The source app__raw is stale: loaded 5 s ago"):
        reader.execute(context)
    assert xcoms[RESULT_KEY]["status"] == "skipped"


@pytest.fixture
def xcoms() -> dict[str, Any]:
    """What the task has told."""
    return {}


@pytest.fixture
def context(xcoms: dict[str, Any]) -> Any:
    return {
        "ti": SimpleNamespace(xcom_push=lambda key, value: xcoms.update({key: value})),
        "task_state_store": store_of({}),
    }


@pytest.fixture
def node() -> PodNodeOperator:
    return operator()


@pytest.mark.parametrize(
    ("error", "raised"), [(SetupError, AirflowFailException), (AirflowException, AirflowException)]
)
def test_an_error_of_the_cluster_is_told_without_secrets(
    node: PodNodeOperator, context: Any, xcoms: Any, error: type[Exception], raised: type[Exception]
) -> None:
    def act() -> None:
        raise error(TEXT)

    with pytest.raises(raised):
        node._checked(context, act)
    assert (xcoms[RESULT_KEY]["status"], xcoms[RESULT_KEY]["message"]) == ("error", TOLD)


@pytest.mark.parametrize(
    ("said", "raised"), [("refusal", AirflowFailException), ("problem", AirflowException)]
)
def test_what_a_pod_says_is_told_without_secrets(
    node: PodNodeOperator, context: Any, xcoms: Any, said: str, raised: type[Exception]
) -> None:
    found: Any = SimpleNamespace(updates={}, batches=None, refusal=None, problem="", ended=True)
    setattr(found, said, TEXT)
    with pytest.raises(raised) as caught:
        node._finish(context, found, found)
    assert type(caught.value) is raised
    assert str(caught.value) == xcoms[RESULT_KEY]["message"] == TOLD


BATCHES = {
    "model.shop.a": {"successful": [["2026-01-01", "2026-01-02"]], "failed": [["2026-01-02", "2026-01-03"]]}
}


def test_the_next_try_knows_which_batches_have_failed(node: PodNodeOperator, context: Any) -> None:
    context["ti"] = SimpleNamespace(dag_id="shop", run_id="one", log_url="", xcom_push=lambda **_: None)
    context["dag"] = SimpleNamespace(task_ids=[])
    first = node._assignment(context, RunOptions())
    assert first.batches == {}
    out = io.StringIO()
    Speaker(out).remember(BATCHES)
    _, listener = node._make_pod(None)
    listener.hear(out.getvalue().rstrip("\n"))
    pod: Any = SimpleNamespace(problem="gone")
    with pytest.raises(AirflowException, match="gone"):
        node._finish(context, pod, listener)
    second = node._assignment(context, RunOptions())
    assert (second.batches, second.began) == (BATCHES, first.began)


@pytest.mark.parametrize("forged", [{}, [], "stale", {"status": "error", "nodes": [{}]}])
def test_a_check_that_tells_nonsense_holds_back_nobody(forged: Any) -> None:
    """Whoever may run a task can write an XCom of that name."""
    context: Any = {"ti": SimpleNamespace(xcom_pull=lambda **_: forged), "task_state_store": store_of({})}
    assert why_stale(["source_freshness.app__raw"], context) is None
