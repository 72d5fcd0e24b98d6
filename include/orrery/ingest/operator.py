"""The operator that loads the files of a source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowSkipException

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, refusal
from orrery.plan.model import Ingestion

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.ingest.chunks import ChunkTables
    from orrery.ingest.landing import LandingFile, LandingZone
    from orrery.ingest.load import Loaded, Loader
    from orrery.ingest.target import Target


@contextmanager
def telling(context: Context) -> Iterator[None]:
    """Tell of an error in the task's XCom, and fail the task with it."""
    try:
        yield
    except OrreryError as error:
        context["ti"].xcom_push(key=RESULT_KEY, value=refusal(error))
        raise AirflowException(str(error)) from error
    except AirflowException:
        raise
    except Exception as error:
        # Such as a database that does not answer: another try may help.
        context["ti"].xcom_push(key=RESULT_KEY, value=refusal(error))
        raise


class FilesOperator(BaseOperator):
    """What all tasks have in common that bring files into a table of a source.

    :param stage: the stage that the task is in; a run may leave whole stages out
    :param nodes: dbt unique ids of the table
    :param ingestion: which files, and into which table
    """

    ui_color = "#f5e6cc"

    def __init__(self, *, stage: str, nodes: tuple[str, ...], ingestion: Ingestion, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.nodes = nodes
        self.ingestion = ingestion

    def _target(self) -> Target:
        from orrery.ingest.target import Target

        ingestion = self.ingestion
        key = ingestion.block.key
        return Target(ingestion.schema, ingestion.table, ingestion.source, ingestion.columns, key)

    def _zone(self) -> LandingZone:
        from orrery.ingest.landing import LandingZone

        return LandingZone(self.ingestion.block.zone(Project.find()))

    def _chunks(self, context: Context) -> ChunkTables:
        from orrery.ingest.chunks import ChunkTables

        ti = context["ti"]
        return ChunkTables(self._target(), self.ingestion.block, ti.dag_id, ti.run_id)


class IngestFilesOperator(FilesOperator):
    """Loads what has arrived for a table of a source, every file once.

    Big files whose chunks this run has staged are loaded from there.
    """

    custom_operator_name = "ingest files"

    def execute(self, context: Context, event: Any = None) -> Any:
        """Load; raises AirflowSkipException when the run leaves it out, or without a file if that is fine."""
        check_choices(self, context)
        with telling(context):
            return self._execute(context)

    def _execute(self, context: Context) -> Any:
        # Airflow's object storage and the database's driver; parsing must not pay for them.
        from orrery.ingest.load import Loader
        from orrery.ingest.warehouse import connect

        spec, zone = self.ingestion.block, self._zone()
        chunks = self._chunks(context) if spec.chunk_size else None
        loader = Loader(connect, self._target(), spec, zone, context["ti"].run_id, chunks=chunks)
        loader.prepare()
        files, pending = self._find(loader, zone)
        loaded = self._run(loader, files, pending)
        context["ti"].xcom_push(key=RESULT_KEY, value=self._summary(loaded))

    def _find(self, loader: Loader, zone: LandingZone) -> tuple[list[LandingFile], list[LandingFile]]:
        """The files that are there and complete, and those that are to be loaded."""
        spec = self.ingestion.block
        files, settled = zone.look(spec.files, settle=spec.settle, done_marker=spec.done_marker)
        if not settled:
            self._wait(None, "Files are still being written; they are read when they have settled.")
        pending = loader.pending(files)
        if not pending and spec.if_missing == "wait":
            self._wait(files, f"No new file matches {spec.files} in {zone.uri}; the task waits for one.")
        if not files:
            self._miss(f"No file matches {spec.files} in {zone.uri}.")
        return files, pending

    def _miss(self, what: str) -> None:
        """Say that there is no file at all."""
        from orrery.ingest.errors import IngestError

        if self.ingestion.block.if_missing == "skip":
            raise AirflowSkipException(what)
        raise IngestError(f"{what}\n  Land one, or set if_missing: skip or wait.")

    def _wait(self, known: list[LandingFile] | None, why: str) -> None:
        """Let the triggerer wait; the task then begins anew."""
        from orrery.ingest.trigger import LandingTrigger, digest

        self.log.info(why)
        spec = self.ingestion.block
        trigger = LandingTrigger.of(spec, Project.find(), known=None if known is None else digest(known))
        self.defer(trigger=trigger, method_name="execute", timeout=spec.timeout)

    def _run(self, loader: Loader, files: list[LandingFile], pending: list[LandingFile]) -> list[Loaded]:
        loaded = []
        for each in loader.load(pending):
            loaded.append(each)
            self.log.info(
                "%s: %s rows; %s inserted, %s updated, %s rejected",
                each.file,
                each.rows,
                each.merged.inserted,
                each.merged.updated,
                each.merged.rejected,
            )
        loader.put_away(files)
        loader.clear_chunks()
        return loaded

    def _summary(self, loaded: list[Loaded]) -> dict[str, Any]:
        """The XCom value, in the shape of orrery.execute.results.summary."""
        rejected = sum(each.merged.rejected for each in loaded)
        message = f"{len(loaded)} files" if len(loaded) != 1 else loaded[0].file
        if rejected:
            message += f"; {rejected:,} rows are rejected, see {self.ingestion.table}__rejected"
        return {
            "status": "warn" if rejected else "success",
            "seconds": None,
            "rows_affected": sum(each.rows for each in loaded) - rejected,
            "message": message if loaded else "nothing new",
            "nodes": [],
        }
