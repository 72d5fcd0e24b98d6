"""The `airbyte` block: a sync of an Airbyte connection."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field, field_validator

from orrery.config.block import Block, Duration, mistake


class Airbyte(Block):
    """A sync that Airbyte runs."""

    airbyte: str = Field(
        min_length=1,
        description="The connection in Airbyte that is synchronised: its id (a UUID) or its name.",
    )
    connection: str = Field(
        "airbyte_default", min_length=1, description="The Airflow connection that leads to Airbyte."
    )
    timeout: Duration = Field(
        timedelta(hours=1), description="How long a sync may take; then it is cancelled, and the task fails."
    )
    poll: Duration = Field(
        timedelta(seconds=3), description="How often Airbyte is asked for the job's state."
    )

    @field_validator("timeout", "poll")
    @classmethod
    def _check_positive(cls, value: timedelta) -> timedelta:
        if not value:
            raise mistake("0 is no duration to wait", "Write for example 3s or 1h.")
        return value
