"""The operator that loads the files of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from orrery.config.ingest import Files
from orrery.config.project import Project
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY
from orrery.ingest.errors import IngestError, explained
from orrery.plan.model import Work
from orrery.plan.objects import taken_name

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.ingest.landing import LandingFile
    from orrery.ingest.load import Loaded, Loader


class IngestFilesOperator(BaseOperator):
    """Loads what has arrived for a table of a source, every file once.

    :param stage: the stage that the task is in; a run may leave whole stages out
    :param nodes: dbt unique ids of the table
    :param work: which files, and into which table
    """

    custom_operator_name = "ingest files"
    ui_color = "#f5e6cc"

    def __init__(self, *, stage: str, nodes: tuple[str, ...], work: Work, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.nodes = nodes
        self.work = work

    def execute(self, context: Context, event: Any = None) -> None:
        """Load; raises AirflowSkipException when the run leaves it out, or without a file if that is fine."""
        options = check_choices(self, context)
        with explained(context):
            self._load(context, options.uri)

    def _load(self, context: Context, uri: str | None) -> None:
        # Airflow's object storage and the database's driver; parsing must not pay for them.
        from orrery.ingest.landing import LandingZone
        from orrery.ingest.load import Loader
        from orrery.ingest.target import Target
        from orrery.ingest.warehouse import connect

        spec: Files = self.work.block
        work = self.work
        project = Project.find()
        zone = LandingZone(spec.zone(project))
        # What replaces a table are all files that are there.
        only = taken_name(work, uri, project) if uri and spec.load_mode != "replace" else None
        if uri and only is None and spec.load_mode != "replace":
            raise AirflowSkipException(f"This run is for {uri}, which does not match {spec.files}.")
        target = Target(work.schema, work.table, work.of, work.columns, spec.key)
        loader = Loader(connect, target, spec, zone, context["ti"].run_id)
        loader.prepare()
        files, settled = zone.look(spec.files, settle=spec.settle, done_marker=spec.done_marker, only=only)
        if not settled:
            self.log.info(
                "Files are still being written; they are read when they have not changed for a while."
            )
            self._wait(None)
        pending = loader.pending(files)
        if only is not None and not files:
            raise IngestError(f"There is no {only} in {zone.uri}.\n  Land it, or start a run without uri.")
        if not pending and spec.if_missing == "wait" and only is None:
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

        spec: Files = self.work.block
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
            message += f"; {rejected:,} rows are rejected, see {self.work.table}__rejected"
        return {
            "status": "warn" if rejected else "success",
            "seconds": None,
            "rows_affected": sum(each.rows for each in loaded) - rejected,
            "message": message if loaded else "nothing new",
            "nodes": [],
        }
