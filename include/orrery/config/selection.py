"""A dbt node selection, as pipelines and their runs have it."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator

from orrery.config.block import as_list, mistake

ONLY_SELECTORS = "Write only node selectors here, for example: tag:my_product"


def option_in(value: str) -> str | None:
    """What dbt would take for an option of its command line: the first such part of a selection."""
    return next((token for token in value.split() if token.startswith("-")), None)


def _check_selection(value: str) -> str:
    if option := option_in(value):
        raise mistake(f"a selection cannot contain the option {option!r}", ONLY_SELECTORS)
    if not value.strip():
        raise mistake("the selection is empty", 'Name what to run, for example: "tag:my_product"')
    return value


Selection = Annotated[str, AfterValidator(_check_selection)]
Selections = Annotated[
    tuple[Selection, ...], BeforeValidator(as_list, json_schema_input_type=str | list[str])
]
