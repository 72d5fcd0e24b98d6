"""Who loads the files of a source: there is a loader for each type of warehouse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from orrery.config.ingest import Files
from orrery.config.project import Project
from orrery.ingest.landing import LandingZone
from orrery.ingest.loader import FileLoader
from orrery.ingest.target import Target
from orrery.manifest.profile import read_profile

if TYPE_CHECKING:
    from orrery.ingest.chunks import ChunkTables

# What a label of BigQuery cannot hold, and how long it may be: as dbt has it.
_NO_LABEL, _LONGEST_LABEL = re.compile(r"[^a-z0-9_-]"), 63


def make_loader(
    target: Target, spec: Files, zone: LandingZone, ti: Any, *, chunks: ChunkTables | None = None
) -> FileLoader:
    """The loader for the warehouse of dbt's target, for a task instance; raises SetupError or ProfileError.

    :param chunks: what is staged already of big files, in PostgreSQL
    """
    project = Project.find()
    profile = read_profile(project)
    if profile.adapter != "bigquery":
        from orrery.ingest.load import Loader
        from orrery.ingest.warehouse import connect

        return Loader(connect, target, spec, zone, ti.run_id, chunks=chunks)
    from orrery.execute.profile import use_connection
    from orrery.execute.run_folder import folder_of
    from orrery.ingest import bigquery
    from orrery.ingest.bigquery_load import BigQueryLoader

    use_connection(project, folder_of(project, ti.dag_id, ti.run_id))
    # The same that the macro query_comment tells of dbt's jobs.
    told = {"app": "orrery", "target": profile.target, "kind": "ingest", "node": target.source}
    told |= {"pipeline": ti.dag_id, "run": ti.run_id}
    labels = {name: _NO_LABEL.sub("_", value.lower())[:_LONGEST_LABEL] for name, value in told.items()}
    return BigQueryLoader(bigquery.connect(labels), target, spec, zone, ti.run_id)
