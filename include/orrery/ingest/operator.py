"""The operator that loads the files of a source."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException

from orrery.config.project import Project
from orrery.execute.entry import check_choices
from orrery.execute.results import RESULT_KEY, outcome
from orrery.ingest.errors import IngestError, explained
from orrery.plan.model import Work
from orrery.plan.objects import taken_name

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.ingest.chunks import ChunkTables
    from orrery.ingest.landing import LandingFile, LandingZone
    from orrery.ingest.loader import FileLoader, Loaded
    from orrery.ingest.target import Target


# Of files, in a message.
_SHOWN = 3
# The type of runs that files start.
_BY_FILES = "asset_triggered"


class FilesOperator(BaseOperator):
    """What all tasks have in common that bring files into a table of a source.

    :param stage: the stage that the task is in; a run may leave whole stages out
    :param nodes: dbt unique ids of the table
    :param work: which files, and into which table
    """

    ui_color = "#f5e6cc"

    def __init__(self, *, stage: str, nodes: tuple[str, ...], work: Work, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stage = stage
        self.nodes = nodes
        self.work = work

    def _target(self) -> Target:
        from orrery.ingest.target import Target

        work = self.work
        return Target(work.schema, work.table, work.of, work.columns, work.block.key)

    def _zone(self) -> LandingZone:
        from orrery.ingest.landing import LandingZone

        return LandingZone(self.work.block.zone(Project.find()))

    def _chunks(self, context: Context) -> ChunkTables:
        from orrery.ingest.chunks import ChunkTables

        ti = context["ti"]
        return ChunkTables(self._target(), self.work.block, ti.dag_id, ti.run_id)


class IngestFilesOperator(FilesOperator):
    """Loads what has arrived for a table of a source, every file once.

    Big files whose chunks this run has staged are loaded from there.
    """

    custom_operator_name = "ingest files"
    # Whether the try may find no file at all.
    _may_be_missing = False

    def execute(self, context: Context, event: Any = None) -> Any:
        """Load; raises AirflowSkipException when the run leaves it out, or without a file if that is fine."""
        uri = check_choices(self, context).uri
        only = taken_name(self.work, uri, Project.find()) if uri else None
        if uri and only is None:
            raise AirflowSkipException(
                f"This run is for {uri}, which does not match {self.work.block.files}."
            )
        if self.work.block.load_mode == "replace":
            # What replaces a table are all files that are there.
            only = None
        self._may_be_missing = self._expects_none(context)
        with explained(context):
            return self._execute(context, only, event)

    def _execute(self, context: Context, only: str | None, event: Any) -> Any:
        # The clients of stores and the database's driver; parsing must not pay for them.
        from orrery.ingest.loaders import make_loader

        spec, zone = self.work.block, self._zone()
        chunks = self._chunks(context) if spec.chunk_size else None
        loader = make_loader(self._target(), spec, zone, context["ti"], chunks=chunks)
        loader.prepare()
        files, pending = self._find(loader, zone, only, self._settled(context, event))
        loaded = self._run(loader, files, pending)
        context["ti"].xcom_push(key=RESULT_KEY, value=self._summary(loaded))

    def _settled(self, context: Context, event: Any) -> dict[str, str] | None:
        """Which files have settled while the task waited for them; None when it has not waited yet."""
        return None if event is None else event.get("settled", {})

    def _find(
        self, loader: FileLoader, zone: LandingZone, only: str | None, settled: dict[str, str] | None
    ) -> tuple[list[LandingFile], list[LandingFile]]:
        """The files that are there and complete, and those that are to be loaded.

        :param only: the one file that the run is for
        :param settled: as from `_settled`
        """
        from orrery.ingest.landing import Watch

        spec = self.work.block
        look = zone.look(
            spec.files,
            settle=spec.settle,
            done_marker=spec.done_marker,
            only=only,
            watch=Watch(settled),
        )
        files = look.free(spec.load_mode)
        pending = loader.pending(files)
        if look.unsettled and (settled is None or not pending):
            done = [file for file in files if file not in pending]
            self._wait(done, f"Still being written: {_names(look.unsettled)}.", settling=True, only=only)
        if look.unsettled:
            self.log.warning(
                "Still being written, and left for the next run: %s%s.",
                _names(look.unsettled),
                "" if spec.load_mode == "append" else " and all files behind it",
            )
        elif only is not None and not files:
            raise IngestError(f"There is no {only} in {zone.uri}.\n  Land it, or start a run without uri.")
        if not pending and only is None and spec.if_missing == "wait":
            self._wait(files, f"No new file matches {spec.files} in {zone.uri}; the task waits for one.")
        if not files and not look.unsettled:
            self._miss(f"No file matches {spec.files} in {zone.uri}.")
        return files, pending

    def _expects_none(self, context: Context) -> bool:
        block = self.work.block
        # What has started the run may be of another source, or an earlier run has taken it and put it away.
        by_files = context["dag_run"].run_type == _BY_FILES and block.after_load != "keep"
        return block.if_missing == "skip" or by_files

    def _miss(self, what: str) -> None:
        """Say that there is no file at all."""
        if self._may_be_missing:
            raise AirflowSkipException(what)
        raise IngestError(f"{what}\n  Land one, or set if_missing: skip or wait.")

    def _wait(
        self, known: list[LandingFile], why: str, *, settling: bool = False, only: str | None = None
    ) -> None:
        """Let the triggerer wait; the task then begins anew.

        :param known: the files that are no news
        :param settling: whether the task waits for files that are still written
        """
        from orrery.ingest.trigger import LandingTrigger, digest

        self.log.info(why)
        spec = self.work.block
        trigger = LandingTrigger.of(spec, Project.find(), known=digest(known), settling=settling, only=only)
        self.defer(trigger=trigger, method_name="execute", timeout=spec.timeout)

    def _run(self, loader: FileLoader, files: list[LandingFile], pending: list[LandingFile]) -> list[Loaded]:
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
        """The XCom value."""
        rejected = sum(each.merged.rejected for each in loaded)
        message = f"{len(loaded)} files" if len(loaded) != 1 else loaded[0].file
        if rejected:
            message += f"; {rejected:,} rows are rejected, see {self.work.table}__rejected"
        return outcome(
            message if loaded else "nothing new",
            status="warn" if rejected else "success",
            rows=sum(each.rows for each in loaded) - rejected,
        )


def _names(files: list[LandingFile]) -> str:
    more = f" and {len(files) - _SHOWN:,} more" if len(files) > _SHOWN else ""
    return ", ".join(file.name for file in files[:_SHOWN]) + more
