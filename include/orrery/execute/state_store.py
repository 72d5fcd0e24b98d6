"""The task state store of an Airflow in which Orrery's builds run.

Configure it for the api-server: `[state_store] backend = orrery.execute.state_store.NodeStateStore`.
It is Airflow's own store, but for the keys of orrery.execute.channel.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.state import TaskScope
from airflow.state.metastore import MetastoreBackend

from orrery.config.stages import BUILD
from orrery.execute import task_instances
from orrery.execute.channel import HELD, HOLD, ORPHANED, PREFIX, PUBLISH, REBUILD, RELEASE, Update

if TYPE_CHECKING:
    from airflow.state import StoreScope
    from sqlalchemy.orm import Session


class NodeStateStore(MetastoreBackend):
    """Writes what a build publishes to the task instances of its DAG run."""

    def get(self, scope: StoreScope, key: str, *, session: Session | None = None) -> str | None:
        """The value of a key; HELD: the held tasks with the number of their next try."""
        if session is None or not _is_ours(scope, key):
            return super().get(scope, key, **_given(session))
        assert isinstance(scope, TaskScope)
        if key != HELD or scope.task_id != BUILD:
            return None
        return json.dumps(task_instances.held(scope, session))

    def set(
        self,
        scope: StoreScope,
        key: str,
        value: str,
        *,
        expires_at: datetime | None = None,
        session: Session | None = None,
    ) -> None:
        """Store a value, or do what a key of the channel asks for."""
        if session is None or not _is_ours(scope, key):
            super().set(scope, key, value, expires_at=expires_at, **_given(session))
            return
        assert isinstance(scope, TaskScope)
        content = json.loads(value)
        if key == REBUILD:
            task_instances.rebuild(scope, session)
        elif key == ORPHANED:
            task_instances.adopt_orphans(scope, session)
        elif scope.task_id != BUILD:
            raise ValueError(f"only the task {BUILD!r} may use {key}, not {scope.task_id!r}")
        elif key == HOLD:
            task_instances.hold(scope, content["tasks"], content["host"], content["pid"], session)
        elif key == PUBLISH:
            updates = [Update.of(update) for update in content["updates"]]
            task_instances.publish(scope, updates, session)
            if content["alive"]:
                task_instances.keep_alive(scope, session)
        elif key == RELEASE:
            task_instances.release(scope, session)


def _is_ours(scope: StoreScope, key: str) -> bool:
    return isinstance(scope, TaskScope) and key.startswith(PREFIX)


def _given(session: Session | None) -> dict[str, Any]:
    # Airflow makes a session of its own where none is passed.
    return {} if session is None else {"session": session}
