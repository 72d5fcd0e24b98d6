"""What stands for tasks beside dbt's own: the kinds of `ingest` and `run` blocks.

They stand below `config.meta.orrery` of sources and of exposures, in dbt's own YAML.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from orrery.config.airbyte import Airbyte
from orrery.config.block import Block
from orrery.config.exposure import HttpRun, PipelineRun
from orrery.config.ingest import Files
from orrery.config.kubernetes import JobIngest, SparkIngest
from orrery.config.transfer import Transfer

# One block, or several that run one after the other.
Steps = dict[str, Any] | list[dict[str, Any]]


class SourceMeta(Block):
    """What may stand below `config.meta.orrery` of a source or a table."""

    ingest: Steps | None = Field(
        None, description="How data comes into the table: a block, or a list of blocks that run in order."
    )
    ingest_full_refresh: Steps | None = Field(
        None, description="The same for pipelines with full_refresh: true, which load all history at once."
    )


class ExposureMeta(Block):
    """What may stand below `config.meta.orrery` of an exposure."""

    run: dict[str, Any] | None = Field(None, description="What runs after the models of the exposure.")


# The kinds of blocks, each by the key that makes a block one of its kind.
INGEST_KINDS: dict[str, type[Block]] = {
    "files": Files,
    "airbyte": Airbyte,
    "transfer": Transfer,
    "job": JobIngest,
    "spark": SparkIngest,
}
RUN_KINDS: dict[str, type[Block]] = {"http": HttpRun, "pipeline": PipelineRun, "job": JobIngest}
# Those that fill one table; the others can fill all tables of a source at once.
PER_TABLE = frozenset({"files"})
