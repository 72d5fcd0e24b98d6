"""The task state store of an Airflow in which Orrery's builds run.

Configure it for the api-server: `[state_store] backend = orrery.execute.state_store.NodeStateStore`.
It is Airflow's own store, but for the keys of orrery.execute.channel.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from airflow.state import TaskScope
from airflow.state.metastore import MetastoreBackend
from fastapi import HTTPException

from orrery.config.stages import BUILD
from orrery.execute import build_end, task_instances
from orrery.execute.channel import (
    GRAPH,
    HELD,
    HOLD,
    ORPHANED,
    PREFIX,
    PUBLISH,
    REBUILD,
    RELEASE,
    SETTLE,
    Hold,
    MessageError,
    Publish,
    Release,
    read_message,
)
from orrery.execute.run_graph import RunGraph

if TYPE_CHECKING:
    from airflow.state import StoreScope
    from sqlalchemy.orm import Session


class NodeStateStore(MetastoreBackend):
    """Writes what a build publishes to the task instances of its DAG run."""

    def get(self, scope: StoreScope, key: str, *, session: Session | None = None) -> str | None:
        """The value of a key, or what a key of the channel asks for."""
        if session is None or not _is_ours(scope, key):
            return super().get(scope, key, **_given(session))
        assert isinstance(scope, TaskScope)
        if key in (REBUILD, ORPHANED):
            return json.dumps(build_end.answer(scope, session))
        if key != HELD or scope.task_id != BUILD:
            return None
        return json.dumps({tid: asdict(each) for tid, each in task_instances.held(scope, session).items()})

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
        try:
            self._obey(scope, key, value, session)
        except MessageError as error:
            raise HTTPException(422, {"reason": "invalid_message", "message": f"{key}: {error}"}) from None

    def _obey(self, scope: TaskScope, key: str, value: str, session: Session) -> None:
        """Do what a key of the channel asks for; raises MessageError and HTTPException before that."""
        if key == REBUILD:
            build_end.rebuild(scope, self.graph(scope, session), session)
        elif key == ORPHANED:
            build_end.adopt_orphans(scope, self.graph(scope, session), session)
        elif key not in (HOLD, PUBLISH, SETTLE, RELEASE):
            raise HTTPException(422, {"reason": "unknown_key", "message": f"{key}: Orrery has no such key"})
        elif scope.task_id != BUILD:
            told = f"{key}: only the task {BUILD!r} may use it, not {scope.task_id!r}"
            raise HTTPException(403, {"reason": "not_a_build", "message": told})
        elif key == HOLD:
            self._hold(scope, read_message(Hold, value), session)
        elif key == PUBLISH:
            news = read_message(Publish, value)
            task_instances.publish(scope, news.updates, lambda: self.graph(scope, session), session)
            if news.alive:
                task_instances.keep_alive(scope, session)
        elif key == SETTLE:
            build_end.settle(scope, self.graph(scope, session), session)
        else:
            end = read_message(Release, value)
            build_end.release(scope, end.reason, end.final, self.graph(scope, session), session)

    def _hold(self, scope: TaskScope, message: Hold, session: Session) -> None:
        if message.graph:
            super().set(scope, GRAPH, json.dumps(message.graph), session=session)
        task_instances.hold(scope, message, session)

    def graph(self, scope: TaskScope, session: Session) -> RunGraph | None:
        """The graph of the run, if a build has told it."""
        text = super().get(replace(scope, task_id=BUILD), GRAPH, session=session)
        return _unpacked(text) if text else None


@lru_cache(maxsize=32)
def _unpacked(text: str) -> RunGraph:
    return RunGraph.of_text(json.loads(text))


def _is_ours(scope: StoreScope, key: str) -> bool:
    return isinstance(scope, TaskScope) and key.startswith(PREFIX)


def _given(session: Session | None) -> dict[str, Any]:
    # Airflow makes a session of its own where none is passed.
    return {} if session is None else {"session": session}
