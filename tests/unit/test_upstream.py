"""What is used of other projects that is no public interface of theirs is there as it is used.

What Orrery overrides of it would otherwise be ignored without a word once it has another name.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from inspect import getattr_static, signature
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.operators.spark_kubernetes import SparkKubernetesOperator
from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.sdk.execution_time.context import AssetStateStoreAccessor
from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance
from slack_sdk.http_retry.builtin_handlers import RateLimitErrorRetryHandler

from orrery.alert.send import _RateLimit
from orrery.ingest.kubernetes import JobOperator

SELF, CONTEXT = object(), object()


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        (KubernetesPodOperator._get_pod_from_task_state_store, JobOperator._get_pod_from_task_state_store),
        (RateLimitErrorRetryHandler._can_retry, _RateLimit._can_retry),
    ],
)
def test_what_is_overridden_is_called_alike(theirs: Callable[..., Any], ours: Callable[..., Any]) -> None:
    assert ours is not theirs
    assert [(each.name, each.kind, each.default) for each in signature(ours).parameters.values()] == [
        (each.name, each.kind, each.default) for each in signature(theirs).parameters.values()
    ]


@pytest.mark.parametrize(
    ("function", "arguments", "keywords"),
    [
        (KubernetesPodOperator._set_name, ("dbt",), {}),
        (KubernetesPodOperator._build_find_pod_label_selector, (SELF, CONTEXT), {"exclude_checked": False}),
        # Not private, but in modules that are.
        (RuntimeTaskInstance.get_task_states, (), {"dag_id": "", "task_ids": [], "run_ids": []}),
        (AssetStateStoreAccessor, (), {"name": ""}),
        (AssetStateStoreAccessor.get, (SELF, ""), {}),
        (AssetStateStoreAccessor.set, (SELF, "", {}), {}),
        (AssetStateStoreAccessor.delete, (SELF, ""), {}),
    ],
)
def test_what_is_called_takes_it(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> None:
    signature(function).bind(*arguments, **keywords)


def test_the_operator_of_spark_knows_the_namespace_that_it_runs_in() -> None:
    assert isinstance(getattr_static(SparkKubernetesOperator, "_incluster_namespace"), cached_property)


def test_the_trigger_knows_whether_it_has_fired() -> None:
    trigger = KubernetesPodTrigger("pod", "default", datetime.now(UTC), "base")
    assert trigger._fired_event is False
