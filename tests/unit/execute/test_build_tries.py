"""The tries of the task `build`."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from orrery.execute import listener
from orrery.execute.build import DbtBuildOperator
from orrery.execute.build_tries import retries_of


class _Build(DbtBuildOperator):
    """A build that breaks, and of which Airflow hears so or not."""

    begun = 0
    heard = True
    error: Exception = AirflowException("no space left")

    def _build(self, context: Any) -> None:
        self.begun += 1
        self._run = cast(Any, SimpleNamespace(gave_up=self.heard))
        raise self.error


def _build() -> _Build:
    return _Build(task_id="build", plan=cast(Any, None))


class _Store(dict[str, Any]):
    set = dict.__setitem__


def _context(number: int, max_tries: int) -> dict[str, Any]:
    told: dict[str, Any] = {}
    ti = SimpleNamespace(
        try_number=number,
        max_tries=max_tries,
        told=told,
        xcom_push=lambda key, value: told.update({key: value}),
    )
    return {"ti": ti, "task_state_store": _Store()}


@pytest.mark.parametrize(("asked", "retries"), [(0, 3), (2, 3), (7, 8)])
def test_one_more_try_than_build(asked: int, retries: int) -> None:
    assert retries_of(asked) == retries


@pytest.mark.parametrize(
    ("number", "max_tries", "error"),
    [
        (1, 3, AirflowException),
        (2, 3, AirflowException),
        # No other one builds: what is left has been ended, and the last try has nothing to do.
        (3, 3, AirflowFailException),
        # After a clear, or in a trial.
        (4, 6, AirflowException),
        (1, 0, AirflowFailException),
    ],
)
def test_a_try_that_breaks(number: int, max_tries: int, error: type[Exception]) -> None:
    build = _build()
    with pytest.raises(AirflowException, match="no space left") as raised:
        build.execute(_context(number, max_tries))  # type: ignore[arg-type]
    assert type(raised.value) is error
    assert build.begun == 1


@pytest.mark.parametrize("error", [AirflowException("no space left"), AirflowFailException("a mistake")])
def test_another_try_comes_where_airflow_has_not_heard_of_the_end(error: Exception) -> None:
    build = _build()
    build.heard, build.error = False, error
    with pytest.raises(AirflowException, match=str(error)) as raised:
        build.execute(_context(3, 3))  # type: ignore[arg-type]
    assert type(raised.value) is AirflowException


@pytest.mark.parametrize(("number", "max_tries", "built"), [(4, 3, 3), (8, 7, 7)])
def test_the_last_try_builds_nothing(number: int, max_tries: int, built: int) -> None:
    build, context = _build(), _context(number, max_tries)
    with pytest.raises(AirflowFailException, match=f"has not come to its end in {built} tries"):
        build.execute(context)  # type: ignore[arg-type]
    assert build.begun == 0
    assert f"in {built} tries" in context["task_state_store"]["orrery/release"]["reason"]
    assert context["ti"].told["dbt"]["status"] == "error"


def test_the_listener_lets_alone_what_has_no_database() -> None:
    listener.on_task_instance_failed(SimpleNamespace(task_id="build"))


def test_airflow_knows_the_listener() -> None:
    path = Path(listener.__file__).parents[2] / "plugins" / "orrery_builds.py"
    assert runpy.run_path(str(path))["OrreryBuilds"].listeners == [listener]
