"""What all YAML blocks have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError


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


Names = Annotated[tuple[str, ...], BeforeValidator(as_list, json_schema_input_type=str | list[str])]
