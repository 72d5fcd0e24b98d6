"""Who loads the files of a source: there is a loader for each kind of warehouse."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Protocol

from orrery.config.ingest import Files
from orrery.config.project import Project
from orrery.ingest.chunks import ChunkTables
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.load import Loaded, Loader
from orrery.ingest.target import Target
from orrery.manifest.profile import read_profile

_BIGQUERY = "bigquery"


class AnyLoader(Protocol):
    """What a loader can do; see orrery.ingest.load.Loader."""

    def prepare(self) -> None:
        """Create what is missing of the tables."""

    def pending(self, files: list[LandingFile]) -> list[LandingFile]:
        """Those of `files` that are not loaded yet."""

    def load(self, files: list[LandingFile]) -> Iterator[Loaded]:
        """Load files in their order."""

    def clear_chunks(self) -> None:
        """Remove what is staged and not needed."""

    def put_away(self, files: list[LandingFile]) -> None:
        """Do with loaded files what the source says."""


def has_chunks() -> bool:
    """Whether big files are cut: BigQuery reads them with many workers as they are."""
    return not _in_bigquery()


def make_loader(
    target: Target, spec: Files, zone: LandingZone, ti: Any, *, chunks: ChunkTables | None = None
) -> AnyLoader:
    """The loader for the warehouse of dbt's target, for a task instance; raises SetupError."""
    if not _in_bigquery():
        from orrery.ingest.warehouse import connect

        return Loader(connect, target, spec, zone, ti.run_id, chunks=chunks)
    from orrery.ingest import bigquery
    from orrery.ingest.bigquery_load import BigQueryLoader

    told = {"pipeline": ti.dag_id, "run": ti.run_id, "node": target.table}
    labels = {name: re.sub(r"[^a-z0-9_-]", "_", value.lower())[:63] for name, value in told.items()}
    return BigQueryLoader(bigquery.connect(labels), target, spec, zone, ti.run_id)


def _in_bigquery() -> bool:
    return read_profile(Project.find()).adapter == _BIGQUERY
