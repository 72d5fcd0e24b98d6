"""What later tries of a task are to know of microbatch models, in Airflow's task state store."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from orrery.execute.batches import Batches
from orrery.execute.channel import MEMORY
from orrery.execute.invocation import now
from orrery.execute.publisher import Store

log = logging.getLogger(__name__)


def _moment(text: str) -> str:
    datetime.fromisoformat(text)
    return text


def _naive(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is not None:
        raise ValueError("dbt's times have no time zone")
    return text


_Batch = Annotated[list[Annotated[str, AfterValidator(_moment)]], Field(min_length=2, max_length=2)]


class _Model(TypedDict):
    successful: list[_Batch]
    failed: list[_Batch]


class _Kept(TypedDict):
    began: Annotated[str, AfterValidator(_naive)]
    batches: dict[str, _Model]


_READER = TypeAdapter(_Kept)


class Memory:
    """When the first try of a task in a run began, from which dbt counts days, and which batches have failed.

    :ivar known: `began` and `batches`, as in Assignment
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        kept = _read(store.get(MEMORY))
        self.known: dict[str, Any] = kept or {"began": now().isoformat(), "batches": {}}
        if not kept:
            store.set(MEMORY, self.known)

    def learn(self, batches: Batches) -> dict[str, Any]:
        """What is to be kept now that these batches have failed."""
        self.known = {**self.known, "batches": batches}
        return self.known

    def remember(self, batches: Batches) -> None:
        """Keep which batches have failed, unless Airflow is away: for that, no batch fails."""
        try:
            self._store.set(MEMORY, self.learn(batches))
        except Exception as error:
            log.warning("Airflow does not keep which batches have failed: %s", error)


def _read(kept: Any) -> dict[str, Any] | None:
    """What a try has kept; None when there is nothing, or what no try keeps."""
    try:
        return {**_READER.validate_python(kept)}
    except ValidationError:
        return None
