"""By when a run has to end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import DeadlineReference
from airflow.serialization.decoders import decode_deadline_alert
from airflow.serialization.encoders import encode_deadline_alert

from orrery.alert.late import TimeOfDayDeadline, deadline_of, text_of
from orrery.config.alerts import Alerts, SlaBlock
from orrery.config.pipeline import Pipeline

ALERTS = Alerts.model_validate({"slack": "#data-alerts"})


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "run_after", "expected"),
    [
        ("UTC", "2026-01-10T05:00", "2026-01-10T07:00"),
        ("UTC", "2026-01-10T07:00", "2026-01-11T07:00"),
        ("UTC", "2026-01-10T23:00", "2026-01-11T07:00"),
        ("Europe/Vienna", "2026-01-10T05:00", "2026-01-10T06:00"),
        # Summer time begins in the night between.
        ("Europe/Vienna", "2026-03-28T22:00", "2026-03-29T05:00"),
        ("America/New_York", "2026-01-10T02:00", "2026-01-10T12:00"),
    ],
)
def test_the_first_time_of_day_after_a_run_is_due(zone: str, run_after: str, expected: str) -> None:
    deadline = TimeOfDayDeadline(7, 0, zone)
    assert deadline.after(at(run_after), at(run_after) + timedelta(seconds=1)) == at(expected)


def test_what_makes_up_for_a_missed_run_is_not_late() -> None:
    due = at("2026-01-10T05:00")
    assert TimeOfDayDeadline(7).after(due, due + timedelta(hours=23)) is not None
    assert TimeOfDayDeadline(7).after(due, due + timedelta(hours=25)) is None


def sla(value: object) -> SlaBlock:
    found = Pipeline.model_validate({"select": "tag:a", "sla": value}).sla
    assert found
    return found


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("07:00", "by 07:00 UTC"),
        # What YAML 1.1 makes of 17:30 without quotes.
        (1050, "by 17:30 UTC"),
        ({"by": "07:30", "timezone": "Europe/Vienna"}, "by 07:30 Europe/Vienna"),
        ("2h", "within 2 hours"),
        ("90m", "within 1 hour 30 minutes"),
    ],
)
def test_ways_to_write_it(value: object, text: str) -> None:
    assert text_of(sla(value)) == text


def test_airflow_stores_and_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow import plugins_manager

    found = {"orrery.alert.late.TimeOfDayDeadline": TimeOfDayDeadline}
    monkeypatch.setattr(plugins_manager, "get_deadline_references_plugins", lambda: found)
    stored = encode_deadline_alert(deadline_of(sla("07:30"), ALERTS, None))
    reference = decode_deadline_alert(stored).reference
    assert reference.inner_ref.serialize_reference() == {
        "reference_type": "TimeOfDayDeadline",
        "hour": 7,
        "minute": 30,
        "timezone": "UTC",
    }
    within = deadline_of(sla("2h"), ALERTS, None)
    assert (within.reference, within.interval) == (DeadlineReference.DAGRUN_QUEUED_AT, timedelta(hours=2))
    assert hash(within.callback)
