"""What the alerts of a pipeline remember: which messages are where, over tasks and runs.

It is kept in Airflow's store of state for assets, under an asset that stands for the alerts of the pipeline:
XComs are deleted when a task starts again, and Airflow cannot say which run came before one that was started
by hand. Nothing of it is secret. Who cannot read or write it goes on without.
"""

from __future__ import annotations

import hashlib
import logging
from typing import Any

from airflow.sdk import Asset

# The public way, context["asset_state_store"], is for tasks that name the asset among their inlets; with
# alerts every task of a DAG would, and triggers have no context.
from airflow.sdk.execution_time.context import AssetStateStoreAccessor

log = logging.getLogger(__name__)

# The last run that failed, and what was told of it.
OPEN = "open"


def asset_of_alerts(pipeline: str) -> Asset:
    """The asset that stands for the alerts of a pipeline."""
    return Asset(name=f"orrery_alerts_{pipeline}", uri=f"orrery://alerts/{pipeline}")


class Memory:
    """The memory of the alerts of one pipeline; values are JSON."""

    def __init__(self, pipeline: str) -> None:
        self._store: Any = AssetStateStoreAccessor(name=asset_of_alerts(pipeline).name)

    def recall(self, key: str) -> Any:
        """What was kept; None when there is nothing."""
        try:
            return self._store.get(key)
        except Exception as error:
            log.info("What was told before is not known: %s", type(error).__name__)
            return None

    def keep(self, key: str, value: Any) -> None:
        """Keep a value."""
        try:
            self._store.set(key, value)
        except Exception as error:
            log.info("What is told now will not be known later: %s", type(error).__name__)

    def forget(self, key: str) -> None:
        """Forget a value, if it is there."""
        try:
            self._store.delete(key)
        except Exception as error:
            log.info("What was told before is not forgotten: %s", type(error).__name__)


def root_key(run_id: str, task: str) -> str:
    """The key of what was told of a failed task; a mapped one is `<task>_<index>`."""
    return f"root-{_digest(run_id, task)}"


def late_key(run_id: str) -> str:
    """The key of what was told of a late run."""
    return f"late-{_digest(run_id)}"


def warned_key(run_id: str) -> str:
    """The key of the tasks of whose warnings was told."""
    return f"warned-{_digest(run_id)}"


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()
