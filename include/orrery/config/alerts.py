"""The `alerts` block of a pipeline, and when its runs are late: who is told of what."""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from orrery.config.block import Block, Duration, as_list, mistake

Event = Literal["failure", "warning", "late", "recovery", "success"]
DEFAULT_EVENTS: tuple[Event, ...] = ("failure", "warning", "late", "recovery")
MOST_SAMPLES = 5

_MENTION = re.compile(r"@(here|channel|everyone)|<@[UW][A-Z0-9]+>|<!subteam\^[A-Z0-9]+>")
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def _check_mention(value: str) -> str:
    if not _MENTION.fullmatch(value):
        raise mistake(
            f"{value!r} is nobody whom Slack knows",
            'Write "<@U123>" for a person, "<!subteam^S123>" for a group, "@here" or "@channel".',
        )
    return value


Mention = Annotated[str, AfterValidator(_check_mention)]


class Slack(Block):
    """Where in Slack a message goes."""

    channel: str | None = Field(
        None,
        min_length=1,
        description="The channel, such as #data-alerts; an incoming webhook has one of its own.",
    )
    connection: str = Field(
        "slack_default",
        min_length=1,
        description="The Airflow connection. Type Slack API: replies in threads; Slack Incoming Webhook: "
        "messages only.",
    )
    mention: Mention | None = Field(None, description="Who is called, such as <@U123> or @here.")


def _as_slack(value: Any) -> Any:
    return {"channel": value} if isinstance(value, str) else value


SlackRoute = Annotated[Slack, BeforeValidator(_as_slack, json_schema_input_type=str | Slack)]


class Alerts(Block):
    """Who is told of what."""

    slack: SlackRoute | None = Field(None, description="A channel, or channel, connection and mention.")
    webhook: str | None = Field(
        None, min_length=1, description="An Airflow connection of type http that gets each message as JSON."
    )
    on: Annotated[tuple[Event, ...], BeforeValidator(as_list, json_schema_input_type=Event | list[Event])] = (
        Field(DEFAULT_EVENTS, description="What is told.")
    )
    samples: int = Field(
        MOST_SAMPLES,
        ge=0,
        le=MOST_SAMPLES,
        description="At most so many rows of a failed test are shown, where the model allows it.",
    )

    def over(self, other: Alerts | None) -> Alerts:
        """These alerts, with what they do not say from `other`."""
        return other.model_copy(update=self._said()) if other else self

    def _said(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


class GroupAlerts(Block):
    """What a dbt group says about alerts of its nodes, below its `config.meta.orrery.alerts`."""

    slack: SlackRoute | None = Field(None, description="Where the group is told of its nodes.")
    mention: Mention | None = Field(None, description="Who of the group is called.")

    def route(self, otherwise: Slack | None) -> Slack | None:
        """Where to tell the group; `otherwise` is for those that name no place."""
        found = self.slack or otherwise
        return found.model_copy(update={"mention": self.mention}) if found and self.mention else found


class GroupMeta(Block):
    """What may stand below `config.meta.orrery` of a dbt group."""

    alerts: GroupAlerts | None = None


def _as_sla(value: Any) -> Any:
    if isinstance(value, str):
        return {"by": value} if ":" in value else {"within": value}
    if isinstance(value, int) and 10 * 60 <= value < 24 * 60:
        # YAML 1.1 reads 17:30 without quotes as a number to the base of 60; 07:30 it does not.
        return {"by": f"{value // 60}:{value % 60:02}"}
    return value


def _as_time(value: Any) -> Any:
    match = _TIME.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise mistake(f"{value!r} is no time of day", 'Write for example "07:00", in quotes.')
    return time(int(match[1]), int(match[2]))


def _check_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise mistake(f"{value!r} is no time zone", "Write for example Europe/Vienna, or UTC.") from None
    return value


class SlaBlock(Block):
    """When a run has to have ended."""

    by: Annotated[time, BeforeValidator(_as_time, json_schema_input_type=str)] | None = Field(
        None, description='A time of day, such as "07:00": the first one after the time the run is for.'
    )
    within: Duration | None = Field(None, description="Or how long after it was queued, such as 2h.")
    timezone: Annotated[str, AfterValidator(_check_zone)] = Field("UTC", description="The time zone of `by`.")

    @model_validator(mode="after")
    def _check_together(self) -> SlaBlock:
        if (self.by is None) == (self.within is None):
            raise mistake("an sla is either a time of day or a duration", 'Write sla: "07:00", or sla: 2h.')
        if self.within is not None and self.within <= timedelta(0):
            raise mistake("no run ends within no time", "Write a longer duration.", key="within")
        return self


Sla = Annotated[SlaBlock, BeforeValidator(_as_sla, json_schema_input_type=str | SlaBlock)]
