"""What a build and the api-server say to each other."""

from __future__ import annotations

import json

import pytest

from orrery.execute.channel import NodeState, Update

FULL = Update(
    "core.a",
    NodeState.FAILED,
    start="2026-01-31T00:00:00+00:00",
    end="2026-01-31T00:00:01+00:00",
    result={"status": "error", "nodes": [{"seconds": 1.5, "message": None}]},
    rendered={"compiled_sql": "select 1"},
    note="A note.",
    failure={"lines": [["t", "error", "é"]]},
)


@pytest.mark.parametrize("update", [FULL, Update("core.a", NodeState.RELEASED)])
def test_an_update_survives_the_way(update: Update) -> None:
    assert Update.of(json.loads(json.dumps(update.as_dict()))) == update


def test_what_is_not_set_does_not_travel() -> None:
    assert Update("a", NodeState.RUNNING, start="t").as_dict() == {
        "task_id": "a",
        "state": "running",
        "start": "t",
    }
    # An empty result is one.
    assert Update("a", NodeState.SUCCESS, result={}).as_dict()["result"] == {}


@pytest.mark.parametrize("values", [{"task_id": "a", "state": "lost"}, {"state": "running"}])
def test_what_is_no_update_is_refused(values: dict[str, str]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Update.of(values)
