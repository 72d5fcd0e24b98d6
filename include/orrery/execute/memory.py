"""What later tries of a task are to know of microbatch models, in Airflow's task state store."""

from __future__ import annotations

from typing import Any

from orrery.execute.batches import Batches
from orrery.execute.channel import MEMORY
from orrery.execute.invocation import now
from orrery.execute.publisher import Store


class Memory:
    """When the first try of a task in a run began, from which dbt counts days, and which batches have failed.

    :ivar known: `began` and `batches`, as in Assignment
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        kept: Any = store.get(MEMORY)
        self.known: dict[str, Any] = kept or {"began": now().isoformat(), "batches": {}}
        if not kept:
            store.set(MEMORY, self.known)

    def remember(self, batches: Batches) -> None:
        """Keep which batches have failed."""
        known = {**self.known, "batches": dict(batches)}
        if known != self.known:
            self.known = known
            self._store.set(MEMORY, known)
