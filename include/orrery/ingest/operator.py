"""The operator that loads the files of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, refusal
from orrery.ingest.errors import SetupError
from orrery.plan.model import Ingestion

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.ingest.landing import LandingFile
    from orrery.ingest.load import Loaded, Loader


class IngestFilesOperator(BaseOperator):
    """Loads what has arrived for a table of a source, every file once.

    :param stage: the stage that the task is in; a run may leave whole stages out
    :param nodes: dbt unique ids of the table
    :param ingestion: which files, and into which table
    """

    custom_operator_name = "ingest files"
    ui_color = "#f5e6cc"

    def __init__(self, *, stage: str, nodes: tuple[str, ...], ingestion: Ingestion, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.nodes = nodes
        self.ingestion = ingestion

    def execute(self, context: Context, event: Any = None) -> None:
        """Load; raises AirflowSkipException when the run leaves it out, or without a file if that is fine."""
        check_choices(self, context)
        try:
            self._load(context)
        except OrreryError as error:
            context["ti"].xcom_push(key=RESULT_KEY, value=refusal(error))
            kind = AirflowFailException if isinstance(error, SetupError) else AirflowException
            raise kind(str(error)) from error

    def _load(self, context: Context) -> None:
        # The clients of stores and the database's driver; parsing must not pay for them.
        from orrery.ingest.errors import IngestError
        from orrery.ingest.landing import LandingZone
        from orrery.ingest.load import Loader
        from orrery.ingest.target import Target
        from orrery.ingest.warehouse import connect

        spec, ingestion = self.ingestion.block, self.ingestion
        zone = LandingZone(spec.zone(Project.find()))
        target = Target(ingestion.schema, ingestion.table, ingestion.source, ingestion.columns, spec.key)
        loader = Loader(connect, target, spec, zone, context["ti"].run_id)
        loader.prepare()
        files, settled = zone.look(spec.files, settle=spec.settle, done_marker=spec.done_marker)
        if not settled:
            self.log.info(
                "Files are still being written; they are read when they have not changed for a while."
            )
            self._wait(None)
        pending = loader.pending(files)
        if not pending and spec.if_missing == "wait":
            self.log.info("No new file matches %s in %s; the task waits for one.", spec.files, zone.uri)
            self._wait(files)
        if not files:
            missing = f"No file matches {spec.files} in {zone.uri}."
            if spec.if_missing == "skip":
                raise AirflowSkipException(missing)
            raise IngestError(f"{missing}\n  Land one, or set if_missing: skip or wait.")
        loaded = self._run(loader, files, pending)
        context["ti"].xcom_push(key=RESULT_KEY, value=self._summary(loaded))

    def _wait(self, known: list[LandingFile] | None) -> None:
        """Let the triggerer wait; the task then begins anew."""
        from orrery.ingest.trigger import LandingTrigger, digest

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
