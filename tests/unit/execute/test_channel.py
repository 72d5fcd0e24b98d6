"""What a build and the api-server say to each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from orrery.execute.channel import MessageError, NodeState, Publish, Update, read_message

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


def test_characters_that_no_database_stores_are_replaced() -> None:
    failure = {"lines": [["t", "error", "a\0b \ud800"]], "compiled_sql": "a\0b"}
    told = Update("a", NodeState.FAILED, failure=failure).as_dict()
    assert told["failure"] == {"lines": [["t", "error", "a\ufffdb ?"]], "compiled_sql": "a\ufffdb"}
    assert Update.of(told).failure == told["failure"]


WRONG = [
    [],
    "core.a",
    {"state": "running"},
    {"task_id": "a", "state": "lost"},
    {"task_id": "a", "state": "running", "color": "red"},
    {"task_id": 1, "state": "running"},
    {"task_id": "a", "state": "running", "start": "yesterday"},
    {"task_id": "a", "state": "running", "start": "2026-01-31T00:00:00"},
    {"task_id": "a", "state": "success", "result": "fine"},
    {"task_id": "a", "state": "success", "result": {"seconds": float("nan")}},
    {"task_id": "a", "state": "success", "note": "a\0b"},
    {"task_id": "a", "state": "success", "rendered": {"compiled_sql": None}},
    {"task_id": "a", "state": "failed", "failure": {"result": {"__classname__": "builtins.eval"}}},
]


@pytest.mark.parametrize("values", WRONG, ids=str)
def test_what_is_no_update_is_refused(values: Any) -> None:
    with pytest.raises(MessageError, match=r"^not a valid Update: "):
        Update.of(values)
    message = json.dumps({"updates": [values], "alive": True})
    with pytest.raises(MessageError, match=r"^not a valid Publish: (updates\.0|Invalid JSON)"):
        read_message(Publish, message)
