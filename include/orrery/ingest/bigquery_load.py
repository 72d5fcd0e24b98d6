"""Loads the files of a source into BigQuery: each in one transaction, exactly once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from orrery.config.ingest import Files
from orrery.ingest.bigquery import BigQuery, ConflictError, RefusedError
from orrery.ingest.bigquery_merge import FileMerge
from orrery.ingest.bigquery_staging import Staged, stage
from orrery.ingest.bigquery_target import Tables, literal
from orrery.ingest.errors import FileError, IngestError
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.loader import FileLoader, Loaded
from orrery.ingest.matching import Merged
from orrery.ingest.target import Target

# How often a transaction that lost against another one is tried again, and after how many seconds.
_TRIES, _PAUSE = 6, 5.0
# How many files an error names.
_SHOWN = 3


@dataclass(frozen=True)
class _Known:
    """The last load of a file, as the ledger has it."""

    load_id: str
    version: str
    content_hash: str


class BigQueryLoader(FileLoader):
    """Loads files into BigQuery.

    What a transaction does is chosen by the ledger as it was before. The transaction fails when another load
    of the table has changed the ledger since, or does so at the same time, and is then chosen anew.
    """

    def __init__(
        self, warehouse: BigQuery, target: Target, spec: Files, zone: LandingZone, run_id: str
    ) -> None:
        super().__init__(target, spec, zone, run_id)
        self._warehouse, self._tables = warehouse, Tables(warehouse, target)

    def prepare(self) -> None:
        self._tables.ensure()

    def _load_all(self, files: list[LandingFile]) -> Iterator[Loaded]:
        together = [files] if self._spec.load_mode == "replace" else [[file] for file in files]
        for group in together if files else ():
            with self._staged(group) as staged:
                yield from self._move_with_patience(staged)

    def clear_chunks(self) -> None:
        """There are none."""

    def _versions(self) -> dict[str, str]:
        return {file: known.version for file, known in self._known().items()}

    @contextmanager
    def _staged(self, files: list[LandingFile]) -> Iterator[list[tuple[LandingFile, Staged]]]:
        """Files in staging tables, which are gone afterwards."""
        dataset, tables = self._target.schema, [f"_orrery_stage_{uuid4().hex}" for _ in files]
        declared = list(self._target.columns)
        try:
            staged = []
            for file, table in zip(files, tables, strict=True):
                with _refusals(file.name):
                    rows = stage(
                        self._warehouse, self._zone, file, self._spec, declared, dataset=dataset, table=table
                    )
                staged.append((file, rows))
            yield staged
        finally:
            self._warehouse.discard(dataset, tables)

    def _move_with_patience(self, staged: list[tuple[LandingFile, Staged]]) -> list[Loaded]:
        for attempt in range(1, _TRIES):
            try:
                return self._move(staged)
            except ConflictError:
                time.sleep(_PAUSE * attempt)
        try:
            return self._move(staged)
        except ConflictError as error:
            what = f"{self._target.source}: BigQuery has ended the transaction {_TRIES} times: {error}"
            fix = "Try again when no other load of the table is at work, or correct what it says."
            raise IngestError(f"{what}\n  {fix}") from error

    def _move(self, staged: list[tuple[LandingFile, Staged]]) -> list[Loaded]:
        """Move what is staged into the table; what another run has loaded in the meantime is left out."""
        ((before, now),) = self._warehouse.run(f"select {self._state}, current_timestamp()")
        known = self._known(file.name for file, _ in staged)
        is_replaced = self._spec.load_mode == "replace"
        loaded_at, statements = f"timestamp '{now.isoformat()}'", list[str]()
        moved = dict[str, tuple[LandingFile, int]]()
        typed = []
        try:
            for file, rows in staged:
                earlier = None if is_replaced else known.get(file.name)
                if earlier and earlier.version == file.version:
                    continue
                if earlier and earlier.content_hash == rows.content_hash:
                    # Touched, or copied anew: the same rows.
                    statements.append(
                        f"update {self._tables.ledger} set version = {literal(file.version)}"
                        f" where load_id = {literal(earlier.load_id)}"
                    )
                    continue
                merge = FileMerge(self._warehouse, self._tables, self._spec, file, rows, run_id=self._run_id)
                typed.append(merge)
                with _refusals(file.name):
                    merge.prepare()
                load_id = f"{time.time_ns():020d}-{uuid4().hex}"
                moved[load_id] = file, rows.rows
                statements.append(self._enter(load_id, file, rows, merge, loaded_at))
                statements += merge.statements(loaded_at, replaces=earlier is not None)
            try:
                return self._commit(before, statements, moved) if statements else []
            except ConflictError:
                raise
            except RefusedError as error:
                raise _refused(error, *(file.name for file, _ in staged)) from error
        finally:
            self._warehouse.discard(self._target.schema, [merge.table for merge in typed])

    def _commit(
        self, before: str, statements: list[str], moved: dict[str, tuple[LandingFile, int]]
    ) -> list[Loaded]:
        """Run the transaction; returns what the ledger then says of the files, by their load's id."""
        tables, table = self._tables, literal(self._target.table)
        emptied = [
            f"delete from {tables.relation} where true",
            f"delete from {tables.rejected} where true",
            f"delete from {tables.ledger} where table_name = {table}",
        ]
        ids = ", ".join(map(literal, moved)) or "''"
        counts = self._warehouse.run_transaction(
            [
                f"update {tables.lock} set taken_at = current_timestamp() where true",
                f"select if({self._state} = {literal(before)}, '', error('The ledger has changed'))",
                *(emptied if self._spec.load_mode == "replace" else []),
                *statements,
            ],
            f"select load_id, inserted, updated, rejected from {tables.ledger}"
            f" where load_id in ({ids}) order by load_id",
        )
        found = {load_id: Merged(*numbers) for load_id, *numbers in counts}
        return [Loaded(file.name, rows, found[load_id]) for load_id, (file, rows) in moved.items()]

    def _enter(self, load_id: str, file: LandingFile, rows: Staged, merge: FileMerge, loaded_at: str) -> str:
        """The statement that writes the file's line of the ledger; it comes before the rows are moved."""
        line = {
            "load_id": literal(load_id),
            "table_name": literal(self._target.table),
            "file": literal(file.name),
            "source_id": literal(file.source_id(self._target.source)),
            "version": literal(file.version),
            "content_hash": literal(rows.content_hash),
            "bytes": literal(file.size),
            "rows_read": literal(rows.rows),
            "inserted": "n",
            "updated": f"{rows.rows - merge.rejected} - n",
            "rejected": literal(merge.rejected),
            "run_id": literal(self._run_id),
            "loaded_at": loaded_at,
        }
        return (
            f"insert into {self._tables.ledger} ({', '.join(line)})"
            f" select {', '.join(line.values())} from (select {merge.inserted()} as n)"
        )

    @property
    def _state(self) -> str:
        """What each load of the table changes in the ledger, in SQL."""
        return (
            "(select concat(cast(count(*) as STRING), ' ', coalesce(max(load_id), ''))"
            f" from {self._tables.ledger} where table_name = {literal(self._target.table)})"
        )

    def _known(self, files: Iterable[str] | None = None) -> dict[str, _Known]:
        """The last load of each file, or of some, by name."""
        only = "" if files is None else f" and file in ({', '.join(map(literal, files))})"
        found = self._warehouse.run(
            f"select file, load_id, version, content_hash from {self._tables.ledger}"
            f" where table_name = {literal(self._target.table)}{only}"
            " qualify row_number() over (partition by file order by loaded_at desc, load_id desc) = 1"
        )
        return {file: _Known(*known) for file, *known in found}


@contextmanager
def _refusals(file: str) -> Iterator[None]:
    """Make a FileError of what BigQuery says of the data of a file."""
    try:
        yield
    except RefusedError as error:
        raise _refused(error, file) from error


def _refused(error: RefusedError, *files: str) -> FileError:
    if len(files) == 1:
        what, fix = "does not take it", "Correct the file or the source; nothing of the file is loaded."
    else:
        what = "does not take them together"
        fix = "Correct the files or the source, or land fewer files; nothing of them is loaded."
    more = f" and {len(files) - _SHOWN} more files" if len(files) > _SHOWN else ""
    return FileError(", ".join(files[:_SHOWN]) + more, f"BigQuery {what}: {error}", fix)
