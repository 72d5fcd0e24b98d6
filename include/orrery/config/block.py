"""What all YAML blocks have in common."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_DURATION_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Block(BaseModel):
    """Base of every YAML block: unknown keys are errors, values are never converted, nothing changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def mistake(what: str, fix: str, key: str | None = None) -> PydanticCustomError:
    """A mistake in the value that is checked, or in its `key` when it is a mapping."""
    # Braces would be read as placeholders by pydantic, so the texts travel as values.
    return PydanticCustomError("orrery", "{what}", {"what": what, "fix": fix, "key": key})


def as_list(value: Any) -> Any:
    """One value or a list of them, as a tuple."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


def _duration(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return timedelta(seconds=value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise mistake(f"{value!r} is no duration", "Write for example 30s, 15m, 6h or 1d.")
    return timedelta(seconds=float(match[1]) * _DURATION_UNITS[match[2]])


Names = Annotated[tuple[str, ...], BeforeValidator(as_list, json_schema_input_type=str | list[str])]
Duration = Annotated[timedelta, BeforeValidator(_duration, json_schema_input_type=str | int)]
