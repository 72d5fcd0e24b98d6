"""Slack being down, slow or unwilling: one warning that names the connection, and nothing else."""

from __future__ import annotations

import logging
import time

import pytest

from orrery.alert import failure, send
from orrery.config.alerts import Alerts
from services.slack import TOKEN, WEBHOOK_TOKEN, SlackServer
from unit.alert.airflow import Run, node, result
from unit.alert.shop import MARTS

API = Alerts.model_validate({"slack": "#data-alerts"})
INCOMING = Alerts.model_validate({"slack": {"connection": "slack_incoming"}})
SERVICE = Alerts.model_validate({"webhook": "alert_service"})
BROKEN = result(node(MARTS[0], "error", "no such table"))


def fail(run: Run, alerts: Alerts, caplog: pytest.LogCaptureFixture) -> list[str]:
    """A task fails; returns all that is logged."""
    caplog.set_level(logging.DEBUG)
    run.fail(alerts, "core.mart_00", BROKEN)
    lines = [record.getMessage() for record in caplog.records]
    text = "\n".join(lines)
    for secret in (TOKEN, WEBHOOK_TOKEN, "service-token"):
        assert secret not in text
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


WAYS = {"slack_default": API, "slack_incoming": INCOMING, "alert_service": SERVICE}


def warning(connection: str, reason: str) -> str:
    return f"Alerts are not sent through the connection {connection!r}: {reason}"


@pytest.mark.parametrize("way", WAYS)
def test_500(way: str, slack: SlackServer, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    slack.fail(status=500)
    (line,) = fail(run, WAYS[way], caplog)
    assert line.startswith(warning(way, ""))
    assert " answers 500" in line
    assert len(slack.calls) == 1


@pytest.mark.parametrize("way", WAYS)
def test_timeout(
    way: str,
    slack: SlackServer,
    run: Run,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(send, "SECONDS", 1.0)
    slack.fail(hang=True)
    began = time.monotonic()
    assert fail(run, WAYS[way], caplog) == [warning(way, "no answer within 1 s")]
    # It hangs for longer.
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("way", WAYS)
def test_refused(way: str, slack: SlackServer, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    slack.close()
    assert fail(run, WAYS[way], caplog) == [warning(way, "[Errno 111] Connection refused")]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("slack")
def test_no_connection(
    way: str, run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(f"AIRFLOW_CONN_{way.upper()}")
    (line,) = fail(run, WAYS[way], caplog)
    assert line.startswith(warning(way, f"Airflow has no connection {way!r}"))


@pytest.mark.parametrize("way", ["slack_default", "slack_incoming"])
def test_a_rate_limit_is_waited_for_once(
    way: str, slack: SlackServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    slack.fail(status=429, retry_after=0, times=1)
    assert fail(run, WAYS[way], caplog) == []
    assert len(slack.calls) == 2
    # Not when that would take long.
    slack.fail(status=429, retry_after=60)
    (line,) = fail(run, WAYS[way], caplog)
    assert " answers 429" in line
    assert len(slack.calls) == 3


@pytest.mark.parametrize("error", ["invalid_auth", "channel_not_found"])
def test_slack_refuses(error: str, slack: SlackServer, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    slack.fail(error=error)
    assert fail(run, API, caplog) == [warning("slack_default", f"Slack answers {error}")]


def test_a_connection_of_another_type(slack: SlackServer, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    alerts = Alerts.model_validate({"slack": {"channel": "#a", "connection": "alert_service"}})
    reason = "it is of type 'http', and neither slack nor slackwebhook"
    assert fail(run, alerts, caplog) == [warning("alert_service", reason)]


def test_a_broken_connection_is_left_alone(
    slack: SlackServer, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    slack.fail(status=500)
    run.states = {"core.mart_00": "failed", "core.mart_01": "failed"}
    run.end(API)
    assert len(slack.calls) == 1
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


def test_nothing_is_raised(
    run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(ti: object) -> bool:
        raise RuntimeError("Nobody has foreseen this.")

    monkeypatch.setattr(failure, "_first", broken)
    assert fail(run, API, caplog) == ["This failure is not told: RuntimeError"]
