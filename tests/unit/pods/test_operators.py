"""What a task whose dbt runs in a pod says when it fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from orrery.config.dbt_pods import DbtPods
from orrery.execute.results import RESULT_KEY
from orrery.ingest.errors import SetupError
from orrery.plan.model import TaskKind
from orrery.pods.operators import PodNodeOperator

TEXT = "The cluster answers: Bearer 0123456789abcdef0123 is not known."
TOLD = "The cluster answers: Bearer *** is not known."


@pytest.fixture
def xcoms() -> dict[str, Any]:
    """What the task has told."""
    return {}


@pytest.fixture
def context(xcoms: dict[str, Any]) -> Any:
    return {"ti": SimpleNamespace(xcom_push=lambda key, value: xcoms.update({key: value}))}


@pytest.fixture
def node() -> PodNodeOperator:
    return PodNodeOperator(
        pods=DbtPods(pods="per_model"),
        retries=0,
        task_id="a",
        kind=TaskKind.MODEL,
        stage="core",
        nodes=("model.shop.a",),
        select=("shop.a",),
    )


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
    found: Any = SimpleNamespace(updates={}, refusal=None, problem="", ended=True)
    setattr(found, said, TEXT)
    with pytest.raises(raised) as caught:
        node._finish(context, found, found)
    assert type(caught.value) is raised
    assert str(caught.value) == xcoms[RESULT_KEY]["message"] == TOLD
