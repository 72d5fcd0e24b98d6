"""The operators that load big files in chunks: one cuts them, one stages a chunk, one loads them all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orrery.execute.results import RESULT_KEY, outcome
from orrery.ingest.errors import FileError, explained
from orrery.ingest.operator import FilesOperator, IngestFilesOperator
from orrery.plan.model import Step

if TYPE_CHECKING:
    from airflow.sdk import Context

    from orrery.ingest.landing import LandingFile

# The XCom of the files that have settled while the run waited for them.
_SETTLED = "settled"


class SplitFilesOperator(IngestFilesOperator):
    """Waits for files, and cuts the big ones; its return value has an entry for each chunk.

    What it raises is what IngestFilesOperator would raise in its place.
    """

    custom_operator_name = "split files"

    def _execute(self, context: Context, only: str | None, event: Any) -> list[dict[str, Any]]:
        from orrery.ingest.load import Loader
        from orrery.ingest.split import as_values, split
        from orrery.ingest.warehouse import connect

        ti, zone = context["ti"], self._zone()
        removed = self._chunks(context).clean(connect, lambda dag_id, run_id: _is_alive(ti, dag_id, run_id))
        if removed:
            self.log.info("Removed %s chunks of runs that have ended.", len(removed))
        loader = Loader(connect, self._target(), self.work.block, zone, ti.run_id)
        loader.prepare()
        settled = self._settled(context, event)
        _, pending = self._find(loader, zone, only, settled)
        ti.xcom_push(key=_SETTLED, value=settled or {})
        values = as_values(split(zone, pending, self.work.block))
        files = len({value["file"] for value in values})
        message = f"{files} of {len(pending)} new files in {len(values)} chunks"
        self.log.info(message)
        ti.xcom_push(key=RESULT_KEY, value=outcome(message if pending else "nothing new"))
        return values


class StageChunkOperator(FilesOperator):
    """Stages one chunk of a file.

    It does not look at the choices of the run: without the task that cuts files there are no chunks.

    :param chunk: a value of SplitFilesOperator
    """

    custom_operator_name = "stage chunk"

    def __init__(self, *, chunk: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.chunk = chunk

    @property
    def chunk_label(self) -> str:
        """The name of the task instance; Airflow keeps 250 characters."""
        return f"{self.chunk['file'].rpartition('/')[2][-200:]} {self.chunk['number']}/{self.chunk['of']}"

    def execute(self, context: Context) -> None:
        """Stage; a file that cannot be read is left to the task that loads it, which tells why."""
        from orrery.ingest.chunks import Chunk
        from orrery.ingest.warehouse import connect

        with explained(context):
            try:
                rows = self._chunks(context).stage(connect, self._zone(), Chunk(**self.chunk))
            except FileError as error:
                self.log.warning("The chunk cannot be staged; its file is loaded without: %s", error)
                result = outcome(str(error), status="warn")
            else:
                result = outcome(self.chunk_label, rows=rows)
        context["ti"].xcom_push(key=RESULT_KEY, value=result)


class MergeChunksOperator(IngestFilesOperator):
    """Loads files when those before it have waited for them, and staged the big ones."""

    def _settled(self, context: Context, event: Any) -> dict[str, str] | None:
        """What the task that cuts files has found; it has waited in the place of this one."""
        found: dict[str, str] = (
            context["ti"].xcom_pull(task_ids=f"{self.task_id}{Step.SPLIT}", key=_SETTLED) or {}
        )
        return found

    def _wait(
        self, known: list[LandingFile], why: str, *, settling: bool = False, only: str | None = None
    ) -> None:
        """What is not complete yet is for the next run."""

    def _miss(self, what: str) -> None:
        """Without a file that is fine: another run may have put away those that were there."""
        if self._may_be_missing:
            super()._miss(what)


def _is_alive(ti: Any, dag_id: str, run_id: str) -> bool:
    return bool(ti.get_dr_count(dag_id, run_ids=[run_id], states=["queued", "running"]))
