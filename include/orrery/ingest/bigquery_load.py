"""Loads the files of a source into BigQuery: each in one transaction, exactly once, as into PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import uuid4

from orrery.config.ingest import Files
from orrery.ingest.bigquery import CONFLICT, BigQuery, ConflictError, RefusedError, literal, script
from orrery.ingest.bigquery_merge import DECLARED, FileMerge
from orrery.ingest.bigquery_staging import Staged, stage
from orrery.ingest.bigquery_tables import META, Tables
from orrery.ingest.errors import FileError, IngestError
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.load import Loaded
from orrery.ingest.merge import SHOWN, Merged, is_allowed, match_columns, too_many
from orrery.ingest.target import Target

# How often a transaction that lost against another one is tried again, and after how many seconds.
_TRIES, _PAUSE = 6, 5.0


@dataclass(frozen=True)
class _Known:
    """The last load of a file, as the ledger has it."""

    load_id: str
    version: str
    content_hash: str


class BigQueryLoader:
    """Loads files of a landing zone into the table of a source, with the methods of Loader.

    BigQuery locks nothing: of two transactions that change the same rows it ends one. So each changes the
    line of its table in `_orrery_locks`, and who loses begins anew.

    :param run_id: what the ledger says about who has loaded a file
    """

    def __init__(
        self, warehouse: BigQuery, target: Target, spec: Files, zone: LandingZone, run_id: str
    ) -> None:
        self._warehouse, self._target, self._spec, self._zone = warehouse, target, spec, zone
        self._run_id, self._tables = run_id, Tables(target)

    def prepare(self) -> None:
        """Create what is missing of the tables. Raises IngestError."""
        self._tables.ensure(self._warehouse)

    def pending(self, files: list[LandingFile]) -> list[LandingFile]:
        """Those of `files` that are not loaded yet, or not as they are now; to replace, all or none."""
        loaded = {file: known.version for file, known in self._known().items()}
        pending = [file for file in files if loaded.get(file.name) != file.version]
        if self._spec.load_mode != "replace":
            return pending
        gone = self._spec.after_load == "keep" and loaded.keys() - {file.name for file in files}
        return files if pending or gone else []

    def load(self, files: list[LandingFile]) -> Iterator[Loaded]:
        """Load files in their order, each in a transaction; raises FileError for the first that is bad."""
        if self._spec.load_mode == "replace":
            yield from self._load(files) if files else ()
            return
        for file in files:
            yield from self._load([file])

    def clear_chunks(self) -> None:
        """There are none: a load job reads a big file with many workers as it is."""

    def put_away(self, files: list[LandingFile]) -> None:
        """Do with loaded files what the source says."""
        if self._spec.after_load == "keep":
            return
        pending = {file.name for file in self.pending(files)}
        for file in files:
            if file.name not in pending:
                self._zone.put_away(file, self._spec.after_load, self._spec.done_marker)

    def _load(self, files: list[LandingFile]) -> list[Loaded]:
        """Load files in one transaction; none of them when another run has done so in the meantime."""
        with self._staged(files) as staged:
            for attempt in range(1, _TRIES + 1):
                try:
                    return self._move(staged)
                except ConflictError as error:
                    if attempt == _TRIES:
                        raise IngestError(
                            f"{self._target.source}: others change its tables all the time: {error}\n  Try again."
                        ) from error
                    time.sleep(_PAUSE * attempt)
        raise AssertionError

    @contextmanager
    def _staged(self, files: list[LandingFile]) -> Iterator[list[tuple[LandingFile, Staged]]]:
        staged: list[tuple[LandingFile, Staged]] = []
        tables = [f"_orrery_stage_{uuid4().hex}" for _ in files]
        try:
            for file, table in zip(files, tables, strict=True):
                with _refusals(file):
                    rows = stage(
                        self._warehouse,
                        self._zone,
                        file,
                        self._spec,
                        list(self._target.columns),
                        dataset=self._target.schema,
                        table=table,
                    )
                staged.append((file, rows))
            yield staged
        finally:
            for table in tables:
                self._warehouse.drop(self._target.schema, table)

    def _move(self, staged: list[tuple[LandingFile, Staged]]) -> list[Loaded]:
        """Move what is staged into the table, in one transaction."""
        before, known = self._ledger(), self._known()
        statements, moved = list[str](), dict[str, tuple[LandingFile, Staged]]()
        for file, rows in staged:
            earlier = None if self._spec.load_mode == "replace" else known.get(file.name)
            if earlier and earlier.version == file.version:
                continue
            if earlier and earlier.content_hash == rows.content_hash:
                # Touched, or copied anew: the same rows.
                statements.append(
                    f"update {self._tables.ledger} set version = {literal(file.version)}"
                    f" where load_id = {literal(earlier.load_id)}"
                )
                continue
            with _refusals(file):
                merge = self._merge(file, rows)
            statements += merge.statements(replaces=earlier is not None, run_id=self._run_id)
            load_id = f"{time.time_ns():020d}-{uuid4().hex}"
            statements.append(self._enter(load_id, file, rows))
            moved[load_id] = (file, rows)
        if not statements:
            return []
        ids = ", ".join(map(literal, moved)) or "''"
        with _refusals(staged[0][0]):
            counts = self._warehouse.run(
                script(
                    [
                        *self._begin(before),
                        *statements,
                        "commit transaction",
                        "select load_id, inserted, updated, rejected from"
                        f" {self._tables.ledger} where load_id in ({ids}) order by load_id",
                    ]
                )
            )
        return [
            Loaded(file.name, rows.rows, Merged(*numbers))
            for load_id, *numbers in counts
            for file, rows in [moved[load_id]]
        ]

    def _begin(self, before: str) -> list[str]:
        """The head of the script; `before` is the state of the ledger by which the rest was chosen."""
        table, ledger = literal(self._target.table), self._tables.ledger
        emptied = [
            f"delete from {self._tables.relation} where true",
            f"delete from {self._tables.rejected} where true",
            f"delete from {ledger} where table_name = {table}",
        ]
        return [
            *DECLARED,
            "begin transaction",
            f"update {self._tables.locks} set taken_at = current_timestamp() where table_name = {table}",
            f"if ({_state(ledger, table)}) <> {literal(before)} then"
            f" raise using message = '{CONFLICT} of the ledger'; end if",
            "set load_time = current_timestamp()",
            *(emptied if self._spec.load_mode == "replace" else []),
        ]

    def _merge(self, file: LandingFile, rows: Staged) -> FileMerge:
        """What moves the rows of a file; raises FileError when it cannot be, or too many of them are bad."""
        existing = self._warehouse.columns(self._target.schema, self._target.table)
        existing = {column: kind for column, kind in existing.items() if column not in META}
        names, new = match_columns(file, rows.columns, self._target, existing, self._spec)
        kinds = existing | dict.fromkeys(new, "STRING")
        for statement in self._tables.add(kinds, existing):
            self._warehouse.run(statement)
        merge = FileMerge(self._tables, self._spec, file, rows, names=names, kinds=kinds)
        bad = self._warehouse.run(merge.bad(SHOWN))
        if bad and not is_allowed(self._spec, bad[0][0], rows.rows):
            raise too_many(file, self._spec, bad[0][0], rows.rows, [(line, why) for _, line, why in bad])
        return merge

    def _enter(self, load_id: str, file: LandingFile, rows: Staged) -> str:
        """The statement that writes the file's line of the ledger."""
        line = {
            "load_id": literal(load_id),
            "table_name": literal(self._target.table),
            "file": literal(file.name),
            "source_id": literal(file.source_id(self._target.source)),
            "version": literal(file.version),
            "content_hash": literal(rows.content_hash),
            "bytes": literal(file.size),
            "rows_read": literal(rows.rows),
            "inserted": "inserted_rows",
            "updated": f"{rows.rows} - inserted_rows - rejected_rows",
            "rejected": "rejected_rows",
            "run_id": literal(self._run_id),
            "loaded_at": "load_time",
        }
        return f"insert into {self._tables.ledger} ({', '.join(line)}) values ({', '.join(line.values())})"

    def _known(self) -> dict[str, _Known]:
        """The last load of each file, by its name."""
        found = self._warehouse.run(
            f"select file, load_id, version, content_hash from {self._tables.ledger}"
            f" where table_name = {literal(self._target.table)} order by loaded_at, load_id"
        )
        return {file: _Known(*known) for file, *known in found}

    def _ledger(self) -> str:
        """The state of the ledger, which each load changes."""
        ((state,),) = self._warehouse.run(_state(self._tables.ledger, literal(self._target.table)))
        return str(state)


def _state(ledger: str, table: str) -> str:
    return (
        "select concat(cast(count(*) as STRING), ' ', coalesce(max(load_id), ''))"
        f" from {ledger} where table_name = {table}"
    )


@contextmanager
def _refusals(file: LandingFile) -> Iterator[None]:
    """Make a FileError of what BigQuery says of the data of a file."""
    try:
        yield
    except RefusedError as error:
        raise FileError(
            file.name,
            f"BigQuery does not take it: {error}",
            "Correct the file or the source; nothing of the file is loaded.",
        ) from error
