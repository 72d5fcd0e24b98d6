"""Chunks of big files: each in a staging table of its own, from which one transaction loads them all.

A chunk's table is made, filled and described in one transaction, so that it is there as a whole or not
at all. It is unlogged and belongs to one run. Nothing depends on its being there: a file whose chunks are
not all staged is read as a whole by who loads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from psycopg2 import errors
from psycopg2.sql import SQL, Composable, Identifier, Literal

from orrery.config.ingest import Files
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.staging import Into, Section, Staged, stage
from orrery.ingest.target import POSTGRESQL, Connect, Cursor, Target, refusals

# With another shape of the comments below it has to be another one.
PREFIX = "_orrery_chunk_"
# For how long to wait for a table that somebody may still read.
_PATIENCE = "set local lock_timeout = '2s'"


@dataclass(frozen=True)
class Chunk:
    """A part of a version of a file, `number` from 1 to `of`: bytes from `start` up to `end`, from `line` on.

    `content_hash` is that of the whole file, or None when the chunk is the whole and nobody has read it yet.
    """

    file: str
    version: str
    number: int
    of: int
    start: int
    end: int
    line: int
    content_hash: str | None


@dataclass(frozen=True)
class _Table:
    """A staging table with what its comment tells."""

    name: str
    dag_id: str
    run_id: str
    table: str
    chunk: Chunk
    columns: tuple[str, ...]
    rows: int
    content_hash: str


class ChunkTables:
    """The staging tables of one run for one table of a source."""

    def __init__(self, target: Target, spec: Files, dag_id: str, run_id: str) -> None:
        self._target, self._spec, self._dag_id, self._run_id = target, spec, dag_id, run_id

    def stage(self, connect: Connect, zone: LandingZone, chunk: Chunk) -> int:
        """Stage a chunk, unless that has been done, and return how many rows it has. Raises FileError."""
        name = self._name(chunk)
        with closing(connect()) as link, link, link.cursor() as cursor:
            # An attempt that was thought dead may be at it, too.
            cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
            done = next((table for table in self._found(cursor) if table.name == name), None)
            if done and not self._is_lost(cursor, done):
                return done.rows
            self._drop(cursor, name)
            file, section = zone.again(chunk.file, chunk.version), None
            if chunk.of > 1:
                section = Section(chunk.start, chunk.end, chunk.line)
            into = Into(self._relation(name), stays=True)
            with refusals(chunk.file):
                staged = stage(
                    cursor, zone, file, self._spec, list(self._target.columns), section=section, into=into
                )
            self._describe(cursor, name, chunk, staged)
            return staged.rows

    def staged(self, cursor: Cursor, file: LandingFile) -> Staged | None:
        """All rows of a file as if it had been staged as a whole, or None when a chunk of it is missing."""
        if self._spec.chunk_size is None or file.size <= self._spec.chunk_size:
            return None
        found = [table for table in self._own(cursor) if table.chunk.file == file.name]
        found = [table for table in found if table.chunk.version == file.version]
        found.sort(key=lambda table: (table.chunk.of, table.chunk.number))
        for of, group in groupby(found, key=lambda table: table.chunk.of):
            tables = list(group)
            if len(tables) == of and not any(self._is_lost(cursor, table) for table in tables):
                return self._union(cursor, tables)
        return None

    def drop(self, cursor: Cursor, file: LandingFile | None = None) -> None:
        """Remove the tables of a file, or of the run."""
        for table in self._own(cursor):
            if file is None or table.chunk.file == file.name:
                self._drop(cursor, table.name)

    def clean(self, connect: Connect, is_alive: Callable[[str, str], bool]) -> list[str]:
        """Remove the tables of runs that have ended, and return their names.

        :param is_alive: whether the run of a DAG goes on, by their ids
        """
        with closing(connect()) as link:
            with link, link.cursor() as cursor:
                found = sorted(self._found(cursor), key=lambda table: (table.dag_id, table.run_id))
            removed = []
            for (dag_id, run_id), tables in groupby(found, key=lambda table: (table.dag_id, table.run_id)):
                if (dag_id, run_id) != (self._dag_id, self._run_id) and not is_alive(dag_id, run_id):
                    removed += [table.name for table in tables if self._drop_unused(link, table.name)]
        return removed

    def _drop_unused(self, link: Any, name: str) -> bool:
        # What is left of a run that was thought dead may read it.
        with suppress(errors.LockNotAvailable), link, link.cursor() as cursor:
            cursor.execute(_PATIENCE)
            self._drop(cursor, name)
            return True
        return False

    def _drop(self, cursor: Cursor, name: str) -> None:
        cursor.execute(SQL("drop table if exists {}").format(self._relation(name)))

    def _name(self, chunk: Chunk) -> str:
        parts = (self._dag_id, self._run_id, self._target.table, *asdict(chunk).values())
        return PREFIX + hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()[:32]

    def _relation(self, name: str) -> Composable:
        return Identifier(self._target.schema, name)

    def _describe(self, cursor: Cursor, name: str, chunk: Chunk, staged: Staged) -> None:
        told = {
            "dag_id": self._dag_id,
            "run_id": self._run_id,
            "table": self._target.table,
            "chunk": asdict(chunk),
            "columns": staged.columns,
            "rows": staged.rows,
            "content_hash": chunk.content_hash or staged.content_hash,
        }
        cursor.execute(
            SQL("comment on table {} is {}").format(self._relation(name), Literal(json.dumps(told)))
        )

    def _found(self, cursor: Cursor) -> Iterator[_Table]:
        """All chunks that are staged in the schema."""
        cursor.execute(
            "select relname, obj_description(pg_class.oid, 'pg_class') from pg_class"
            " join pg_namespace on pg_namespace.oid = relnamespace"
            " where nspname = %s and relkind = 'r' and starts_with(relname, %s) order by relname",
            [self._target.schema, PREFIX],
        )
        for name, comment in cursor.fetchall():
            told = json.loads(comment or "{}")
            if told:
                chunk, columns = Chunk(**told.pop("chunk")), tuple(told.pop("columns"))
                yield _Table(name=name, chunk=chunk, columns=columns, **told)

    def _own(self, cursor: Cursor) -> Iterable[_Table]:
        own = (self._dag_id, self._run_id, self._target.table)
        return [table for table in self._found(cursor) if (table.dag_id, table.run_id, table.table) == own]

    def _is_lost(self, cursor: Cursor, table: _Table) -> bool:
        """Whether PostgreSQL has emptied the table, which it does with unlogged ones after a crash."""
        if not table.rows:
            return False
        cursor.execute(SQL("select not exists (select from {})").format(self._relation(table.name)))
        return bool(cursor.fetchone()[0])

    def _union(self, cursor: Cursor, tables: list[_Table]) -> Staged:
        """The rows of all tables, numbered through."""
        columns = tables[0].columns
        if self._spec.file_format == "jsonl":
            # Each chunk has the keys of its own lines.
            keys = list({key for table in tables for key in table.columns})
            cursor.execute("select distinct key from unnest(%s::text[]) key order by 1", [keys])
            columns = tuple(key for (key,) in cursor.fetchall())
            POSTGRESQL.check_columns(tables[0].chunk.file, columns)
        parts, rows = [], 0
        for table in tables:
            values = (
                [Identifier(f"c{number}") for number in range(1, len(columns) + 1)]
                if table.columns == columns
                else _values(table.columns, columns)
            )
            parts.append(
                SQL("select _row + {} as _row, _line, _reason, {} from {}").format(
                    Literal(rows),
                    SQL(", ").join(values or [Identifier("c1")]),
                    self._relation(table.name),
                )
            )
            rows += table.rows
        relation = SQL("({})").format(SQL(" union all ").join(parts))
        return Staged(relation, columns, rows, tables[0].content_hash)


def _values(own: tuple[str, ...], columns: tuple[str, ...]) -> list[Composable]:
    """What is in a staged row for each of `columns`, in SQL; the text of a bad row is in the first."""
    values: list[Composable] = []
    for number, name in enumerate(columns, start=1):
        value: Composable = SQL("null::text")
        if name in own:
            value = Identifier(f"c{own.index(name) + 1}")
        bad = SQL("c1") if number == 1 else SQL("null::text")
        values.append(
            SQL("case when _reason is null then {} else {} end as {}").format(
                value, bad, Identifier(f"c{number}")
            )
        )
    return values
