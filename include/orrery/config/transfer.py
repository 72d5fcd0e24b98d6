"""The `ingest` block of kind `transfer`: objects that are copied from one store to another."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from orrery.config.block import Block, mistake
from orrery.config.objects import split_pattern

_STORES = ("s3://", "gs://", "file:///")


def _check_uri(value: str) -> str:
    if not value.startswith(_STORES) or ".." in value.split("/"):
        raise mistake(
            f"{value!r} is no place in a store", "Write a URI such as s3://my_connection@bucket/folder/*.csv"
        )
    return value


Uri = Annotated[str, AfterValidator(_check_uri)]


class Transfer(Block):
    """Copies objects between stores."""

    transfer: Uri = Field(
        description="Which objects, such as s3://my_connection@bucket/folder/*.csv; what stands before @ is "
        "a connection of Airflow."
    )
    to: Uri = Field(
        description="The folder to which they are copied; names are relative to the last folder before the "
        "first wildcard."
    )
    if_missing: Literal["skip", "fail"] = Field("fail", description="What to do when no object matches.")

    @model_validator(mode="after")
    def _check_folder(self) -> Transfer:
        if split_pattern(self.to)[1]:
            raise mistake(f"{self.to!r} is no folder", "Write it without wildcards.", key="to")
        return self
