"""Which batches of a microbatch model are done, and what later tries are told of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from orrery.execute import batches
from orrery.execute.batches import BatchProgress
from orrery.execute.channel import MEMORY
from orrery.execute.memory import Memory
from support.tasks import store_of

UID = "model.shop.a"
DAYS = [(datetime(2026, 1, day, tzinfo=UTC), datetime(2026, 1, day + 1, tzinfo=UTC)) for day in range(1, 5)]
TEXTS = [[start.isoformat(), end.isoformat()] for start, end in DAYS]


def known(progress: BatchProgress) -> tuple[Any, Any] | None:
    """The successful and the failed batches of the model, if it is unfinished."""
    of_model = progress.unfinished.get(UID)
    return of_model and (of_model["successful"], of_model["failed"])


def test_what_is_not_done_counts_as_failed() -> None:
    progress = BatchProgress({}, lambda _: None)
    progress.begin(UID, DAYS)
    assert known(progress) == ([], TEXTS)
    progress.end(UID, DAYS[1:2])
    assert known(progress) == ([TEXTS[1]], [TEXTS[0], TEXTS[2], TEXTS[3]])
    progress.end(UID, ())
    again = BatchProgress(progress.unfinished, lambda _: None)
    again.begin(UID, [DAYS[0], DAYS[2], DAYS[3]])
    assert known(again) == known(progress)
    for day in (0, 2, 3):
        again.end(UID, [DAYS[day]])
    assert known(again) is None


def test_where_none_has_succeeded_dbt_begins_anew() -> None:
    progress = BatchProgress({}, lambda _: None)
    progress.begin(UID, DAYS)
    for _ in DAYS:
        assert known(progress)
        progress.end(UID, ())
    assert known(progress) is None


def test_begin_failure_and_end_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "_BEAT", 1e9)
    told: list[int | None] = []
    progress = BatchProgress({}, lambda each: told.append(len(each[UID]["failed"]) if each else None))
    progress.begin(UID, DAYS)
    assert told == [4]
    progress.end(UID, DAYS[:1])
    assert told == [4]
    progress.end(UID, ())
    assert told == [4, 3]
    progress.end(UID, DAYS[2:3])
    progress.close()
    progress.close()
    assert told == [4, 3, 2]
    for day in (DAYS[1], DAYS[3]):
        progress.end(UID, [day])
    assert told == [4, 3, 2, None]


def test_of_other_data_all_batches_run_again() -> None:
    progress = BatchProgress({}, lambda _: None)
    progress.again(UID)
    progress.begin(UID, DAYS)
    progress.end(UID, DAYS[:2])
    progress.again(UID)
    successful, failed = known(progress) or ([], [])
    assert (successful, failed) == (TEXTS[:2], TEXTS)


@pytest.mark.parametrize(
    "forged",
    [
        [],
        "a",
        {"began": "2026-01-31T00:00:00"},
        {"began": "soon", "batches": {}},
        {"batches": 1},
        {"began": "2026-01-31", "batches": {UID: {}}},
    ],
)
def test_what_no_try_has_kept_counts_as_nothing(forged: Any) -> None:
    memory = Memory(store_of({MEMORY: forged}))
    assert memory.known["batches"] == {}
    assert datetime.fromisoformat(memory.known["began"])
