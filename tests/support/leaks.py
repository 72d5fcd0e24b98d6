"""Looks for secrets where they must not be."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2 import sql


def files_with(values: Iterable[str], *folders: Path, but: Iterable[Path] = ()) -> set[Path]:
    """The files below `folders`, links not followed, that hold one of `values`; `but` leaves folders out."""
    wanted = [value.encode() for value in values]
    left_out = tuple(but)
    return {
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and not any(path.is_relative_to(out) for out in left_out)
        if any(value in path.read_bytes() for value in wanted)
    }


def tables_with(values: Iterable[str], dsn: str) -> set[str]:
    """The tables of a PostgreSQL database that hold one of `values` in any column."""
    patterns = [f"%{value}%" for value in values]
    with closing(psycopg2.connect(dsn)) as link, link.cursor() as cursor:
        cursor.execute("select tablename from pg_tables where schemaname = 'public'")
        found = set()
        for (table,) in cursor.fetchall():
            query = sql.SQL("select exists (select 1 from {name} as t where t::text like any(%s))")
            cursor.execute(query.format(name=sql.Identifier(table)), (patterns,))
            if cursor.fetchone() == (True,):
                found.add(table)
        return found
