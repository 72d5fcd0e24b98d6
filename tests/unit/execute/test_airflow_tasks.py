"""How a build sees the tasks of its run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from orrery.execute.airflow_tasks import AirflowTasks
from orrery.execute.publisher import Publisher, Store


@pytest.mark.parametrize(
    ("instances", "expected"),
    [
        (["success", "skipped"], ("success", "skipped")),
        (["success", "running", "success"], ("running",)),
        (["success", None], (None,)),
        (["running", "failed", "success"], ("failed",)),
    ],
)
def test_a_mapped_task_has_the_state_of_its_worst_instance(
    instances: list[str | None], expected: tuple[str | None, ...]
) -> None:
    states = {f"ingest.a__chunks_{index}": state for index, state in enumerate(instances)}
    states |= {"ingest.a": "success", "core.a_1": "failed"}

    def get_task_states(**_: Any) -> dict[str, dict[str, str | None]]:
        return {"run": states}

    ti = SimpleNamespace(dag_id="shop", run_id="run", get_task_states=get_task_states)
    publisher = SimpleNamespace(flush=lambda: None)
    tasks = AirflowTasks(ti, cast(Store, None), cast(Publisher, publisher))
    found = tasks.states(["ingest.a__chunks", "ingest.a", "core.a_1"])
    assert found["ingest.a__chunks"] in expected
    assert found.items() >= states.items()
    assert found.keys() == {*states, "ingest.a__chunks"}
