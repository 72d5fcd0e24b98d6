"""What a build and Airflow's api-server say to each other, through Airflow's task state store.

A build task publishes the states of its nodes with `task_state_store.set(PUBLISH, ...)`; the store of
orrery.execute.state_store, which runs in the api-server, writes them to the task instances in the same
transaction. Nothing else travels: the task instances are the state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

PREFIX = "orrery/"
# By a build: take tasks ({"tasks": [...], "host": ..., "pid": ...}); read which ones it holds.
HOLD = PREFIX + "hold"
HELD = PREFIX + "held"
# By a build: {"updates": [Update as a dict, ...], "alive": bool}.
PUBLISH = PREFIX + "publish"
# By a build: give back what it still holds.
RELEASE = PREFIX + "release"
# By a node's task: the build has to run (again).
REBUILD = PREFIX + "rebuild"

# By a node's task: nothing has been heard from the build for long.
ORPHANED = PREFIX + "orphaned"
# The method of a node's task that ends it as failed; its argument is `failure` of the Update.
FAIL_METHOD = "fail"


class NodeState(StrEnum):
    """What has become of the nodes of one task."""

    RUNNING = "running"
    SUCCESS = "success"
    SKIPPED = "skipped"
    # Ends on a worker, so that retries and callbacks are those of any task.
    FAILED = "failed"
    # Back to where Airflow's own rules decide: the build did not run it.
    RELEASED = "released"


@dataclass(frozen=True)
class Update:
    """The news of one task. Times are ISO 8601 in UTC.

    `result` becomes the XCom `dbt`, `rendered` is shown under Rendered Templates, `note` as the note
    of the task, and `failure` holds the arguments of FAIL_METHOD.
    """

    task_id: str
    state: NodeState
    start: str | None = None
    end: str | None = None
    result: dict[str, Any] | None = None
    rendered: dict[str, str] | None = None
    note: str | None = None
    failure: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The update as JSON has it; what is not set is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Update:
        """The update that `as_dict` has written."""
        return cls(**{**values, "state": NodeState(values["state"])})
