"""What later tries of a task are to know of microbatch models, in Airflow's task state store."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from orrery.execute.batches import Batches
from orrery.execute.channel import MEMORY
from orrery.execute.invocation import now
from orrery.execute.publisher import Store


class Known(TypedDict):
    """When the first try of a task in a run began, and the batches that have failed since: see Assignment."""

    began: Annotated[str, AfterValidator(lambda text: datetime.fromisoformat(text).isoformat())]
    batches: Batches


class Memory:
    """What a task keeps for its later tries."""

    def __init__(self, store: Store) -> None:
        self._store = store
        kept = _read(store.get(MEMORY))
        self.known = kept or Known(began=now().isoformat(), batches={})
        if not kept:
            store.set(MEMORY, self.known)

    def learn(self, batches: Batches) -> Known:
        """What is to be kept now that these batches have failed."""
        self.known = Known(began=self.known["began"], batches=batches)
        return self.known

    def remember(self, batches: Batches) -> None:
        """Keep which batches have failed."""
        self._store.set(MEMORY, self.learn(batches))


def _read(kept: Any) -> Known | None:
    """What a try has kept; None when there is nothing, or what no try keeps."""
    try:
        return _READER.validate_python(kept)
    except ValidationError:
        return None


_READER = TypeAdapter(Known)
