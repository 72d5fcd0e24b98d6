"""The `transfer` block: objects that are copied from one store to another."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from orrery.config.block import Block, mistake
from orrery.config.stores import Place, check_place, place_mistake, split_pattern


def _check_pattern(value: str) -> str:
    try:
        place, pattern = split_pattern(value)
    except ValueError as error:
        raise place_mistake(error) from None
    parts = [*place.path.split("/"), *pattern.split("/")]
    if (
        ".." in parts
        or "//" in value.partition("://")[2].lstrip("/")
        or any("**" in part and part != "**" for part in parts)
    ):
        raise mistake(
            f"{place.below(pattern).uri!r} is no pattern of objects",
            "Leave out .. and empty parts, and let ** stand alone between slashes.",
        )
    return value


class Transfer(Block):
    """Objects of a store, copied to another one."""

    transfer: Annotated[str, AfterValidator(_check_pattern)] = Field(
        description="Which objects, such as s3://my_aws@bucket/incoming/*.jsonl: before the @ stands the "
        "Airflow connection; *, ** and ? as in a shell."
    )
    to: Annotated[str, AfterValidator(check_place)] = Field(
        description="Where they are copied to, such as gs://my_google@bucket/raw: each below it with its "
        "name behind the last folder before the first wildcard."
    )
    if_missing: Literal["skip", "fail"] = Field(
        "fail", description="What to do when no object matches. skip: what reads the source runs on."
    )

    @model_validator(mode="after")
    def _check_apart(self) -> Transfer:
        source, pattern = self.source
        target = Place.parse(self.to)
        if (source.scheme, source.bucket) != (target.scheme, target.bucket):
            return self
        if source.path == target.path:
            raise mistake("the objects are copied onto themselves", "Write another place.", key="to")
        inside = source.name_of(replace(target, connection=None).uri)
        if inside and re.search(r"\*\*|^\*/", pattern):
            raise mistake(
                "the copies would match the pattern, and be copied again", "Write another place.", key="to"
            )
        return self

    @property
    def source(self) -> tuple[Place, str]:
        """Where the objects are, and the pattern of their names below it."""
        return split_pattern(self.transfer)

    @property
    def target(self) -> Place:
        """Where they go."""
        return Place.parse(self.to)

    def name_of(self, uri: str) -> str | None:
        """The name of the object `uri`, which may leave out the connection; None when it is not copied.

        Raises ValueError for what is no URI.
        """
        place, pattern = self.source
        return place.match(uri, pattern)

    def copy_of(self, uri: str) -> str | None:
        """The URI that the object `uri` gets; None when it is not copied."""
        name = self.name_of(uri)
        return None if name is None else self.target.below(name).uri
