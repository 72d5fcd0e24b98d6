"""Loads the files of a source: each in one transaction, exactly once, with its line in the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

from psycopg2.sql import SQL, Identifier, Literal

from orrery.config.ingest import Files
from orrery.ingest.chunks import ChunkTables
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.loader import FileLoader, Loaded
from orrery.ingest.matching import Merged
from orrery.ingest.merge import Merge
from orrery.ingest.staging import Staged, clear, stage
from orrery.ingest.target import Connect, Cursor, Target, ensure, lock, refusals

# Memory for sorting and hashing the rows of one file; what dates and times mean on every server.
_SETTINGS = (
    "set local work_mem = '64MB'; set local datestyle = 'ISO, YMD'; set local timezone = 'UTC';"
    " set local intervalstyle = 'postgres'"
)


class Loader(FileLoader):
    """Loads files into PostgreSQL.

    :param connect: opens a connection to the warehouse, as psycopg2 does
    :param chunks: what is staged already of big files
    """

    def __init__(
        self,
        connect: Connect,
        target: Target,
        spec: Files,
        zone: LandingZone,
        run_id: str,
        *,
        chunks: ChunkTables | None = None,
    ) -> None:
        super().__init__(target, spec, zone, run_id)
        self._connect, self._chunks = connect, chunks

    def prepare(self) -> None:
        with self._transaction() as cursor:
            ensure(cursor, self._target)

    def _load_all(self, files: list[LandingFile]) -> Iterator[Loaded]:
        if not files:
            return
        with closing(self._connect()) as link:
            if self._spec.load_mode == "replace":
                yield from self._replace(link, files)
                return
            for file in files:
                with _transaction(link) as cursor:
                    loaded = self._load(cursor, file)
                if loaded:
                    yield loaded

    def clear_chunks(self) -> None:
        if self._chunks:
            with self._transaction() as cursor:
                self._chunks.drop(cursor)

    def _versions(self) -> dict[str, str]:
        with self._transaction() as cursor:
            cursor.execute(
                SQL(
                    "select distinct on (file) file, version from {} where table_name = {}"
                    " order by file, load_id desc"
                ).format(self._target.ledger, Literal(self._target.table))
            )
            return dict(cursor.fetchall())

    def _replace(self, link: Any, files: list[LandingFile]) -> Iterator[Loaded]:
        """Load all files in the place of all rows, in one transaction."""
        with _transaction(link) as cursor:
            lock(cursor, self._target)
            for table in (self._target.relation, self._target.rejected):
                cursor.execute(SQL("delete from {}").format(table))
            cursor.execute(
                SQL("delete from {} where table_name = {}").format(
                    self._target.ledger, Literal(self._target.table)
                )
            )
            loaded = [self._load(cursor, file) for file in files]
        yield from (each for each in loaded if each)

    def _load(self, cursor: Cursor, file: LandingFile) -> Loaded | None:
        """Load a file; None when another run has done it in the meantime."""
        lock(cursor, self._target)
        earlier = _latest(cursor, self._target, file)
        if earlier and earlier[0] == file.version:
            return None
        cursor.execute(_SETTINGS)
        with refusals(file.name):
            return self._stage_and_merge(cursor, file, earlier)

    def _stage_and_merge(
        self, cursor: Cursor, file: LandingFile, earlier: tuple[str, str, int] | None
    ) -> Loaded | None:
        staged = self._chunks.staged(cursor, file) if self._chunks else None
        if staged is None:
            staged = stage(cursor, self._zone, file, self._spec, list(self._target.columns))
        if earlier and earlier[1] == staged.content_hash:
            # Touched, or copied anew: the same rows.
            cursor.execute(
                SQL("update {} set version = {} where load_id = {}").format(
                    self._target.ledger, Literal(file.version), Literal(earlier[2])
                )
            )
            return None
        cursor.execute("select clock_timestamp()")
        loaded_at = cursor.fetchone()[0]
        merged = Merge(
            cursor,
            self._target,
            self._spec,
            file,
            staged,
            run_id=self._run_id,
            loaded_at=loaded_at,
            replaces=earlier is not None,
        ).execute()
        self._enter(cursor, file, staged, merged, loaded_at)
        clear(cursor)
        if self._chunks:
            self._chunks.drop(cursor, file)
        return Loaded(file.name, staged.rows, merged)

    def _enter(
        self, cursor: Cursor, file: LandingFile, staged: Staged, merged: Merged, loaded_at: datetime
    ) -> None:
        """Write the file's line of the ledger."""
        line = {
            "table_name": self._target.table,
            "file": file.name,
            "source_id": file.source_id(self._target.source),
            "version": file.version,
            "content_hash": staged.content_hash,
            "bytes": file.size,
            "rows_read": staged.rows,
            **asdict(merged),
            "run_id": self._run_id,
            "loaded_at": loaded_at,
        }
        cursor.execute(
            SQL("insert into {} ({}) values ({})").format(
                self._target.ledger,
                SQL(", ").join(map(Identifier, line)),
                SQL(", ").join(map(Literal, line.values())),
            )
        )

    @contextmanager
    def _transaction(self) -> Iterator[Cursor]:
        with closing(self._connect()) as link, _transaction(link) as cursor:
            yield cursor


@contextmanager
def _transaction(link: Any) -> Iterator[Cursor]:
    with link, link.cursor() as cursor:
        yield cursor


def _latest(cursor: Cursor, target: Target, file: LandingFile) -> tuple[str, str, int] | None:
    """Version, content hash and id of the last load of a file."""
    cursor.execute(
        SQL(
            "select version, content_hash, load_id from {} where table_name = {} and source_id = {}"
            " order by load_id desc limit 1"
        ).format(target.ledger, Literal(target.table), Literal(file.source_id(target.source)))
    )
    row: tuple[str, str, int] | None = cursor.fetchone()
    return row
