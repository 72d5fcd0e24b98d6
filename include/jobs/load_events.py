"""Loads all objects of product events at once: the driver program of a Spark application.

    EVENTS_URI=gs://orrery-lake/raw WAREHOUSE_DSN=postgresql://... \\
        python load_events.py --table landing.raw_events

It reads every `*.jsonl` object below EVENTS_URI and upserts its events by `event_id`, all in one
transaction, so that it may run again without harm. The table is the one that Orrery fills object by
object, with the same columns, types and key, and is created where it is missing. The role in
WAREHOUSE_DSN must own its schema.

Lines that are no events are left out; more of them than `--max-rejected` and nothing is loaded.
Exit codes: 0 when all is loaded, 1 when nothing is, 2 when a setting is missing.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from operator import itemgetter
from typing import IO, Any, cast

import fsspec
import psycopg2
from psycopg2.sql import SQL, Composable, Identifier, Literal

# As dbt's source `events.raw_events` declares them.
SOURCE = "events.raw_events"
KEY = "event_id"
COLUMNS = {
    "event_id": "text",
    "event_name": "text",
    "anonymous_id": "text",
    "user_id": "text",
    "source": "text",
    "device": "text",
    "path": "text",
    "amount": "numeric(12, 2)",
    "occurred_at": "timestamp",
    "sent_at": "timestamp",
}
META = {"_loaded_at": "timestamptz", "_source_file": "text", "_source_id": "text", "_row_number": "bigint"}
SHOWN = 5

Cursor = Any


class JobError(Exception):
    """Why nothing is loaded."""


def main() -> None:
    """Load what the environment and the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--table", required=True, help="the table, as schema.name")
    parser.add_argument("--max-rejected", type=float, default=0.02, help="the share of lines, from 0 to 1")
    arguments = parser.parse_args()
    uri, dsn = setting("EVENTS_URI"), setting("WAREHOUSE_DSN")
    try:
        with closing(psycopg2.connect(dsn)) as link, link, link.cursor() as cursor:
            load(cursor, uri, arguments.table, arguments.max_rejected)
    except (JobError, OSError, psycopg2.Error) as error:
        raise SystemExit(f"load_events: {str(error).strip()}") from None


def setting(name: str) -> str:
    """An environment variable; exits with 2 when it is not set."""
    if not (value := os.environ.get(name)):
        print(f"load_events: the environment variable {name} is not set.", file=sys.stderr)
        raise SystemExit(2)
    return value


def load(cursor: Cursor, uri: str, table: str, max_rejected: float) -> None:
    """Load all objects below a URI, in the transaction of the caller; raises JobError."""
    schema, _, name = table.rpartition(".")
    if not schema:
        raise JobError(f"{table!r} is no table. Name it with its schema, such as landing.raw_events.")
    # Orrery's own: a load of single objects waits until this one is done.
    lock = f"orrery.ingest:{schema}.{name}"
    cursor.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [lock])
    cursor.execute("set local timezone = 'UTC'")
    target = Identifier(schema, name)
    create(cursor, target)
    lines = copy_lines(cursor, uri)
    rejected = parse(cursor)
    for file, number, line in shown(cursor) if rejected else []:
        print(f"{file}:{number}: is no event: {line}", flush=True)
    if rejected > max_rejected * lines:
        raise JobError(f"{rejected} of {lines} lines are no events, more than --max-rejected allows.")
    upsert(cursor, target)
    print(f"{lines} lines, {cursor.rowcount} events loaded into {table}, {rejected} lines left out.")


def create(cursor: Cursor, target: Composable) -> None:
    """Create the table as Orrery does, where it is missing."""
    definitions = [
        SQL("{} {}").format(Identifier(column), SQL(kind)) for column, kind in {**COLUMNS, **META}.items()
    ]
    cursor.execute(
        SQL("create table if not exists {} ({}, primary key ({}))").format(
            target, SQL(", ").join(definitions), Identifier(KEY)
        )
    )


def copy_lines(cursor: Cursor, uri: str) -> int:
    """Put the lines of all objects, in the order of their names, into a temporary table."""
    cursor.execute(
        "create temp table lines (position bigint generated always as identity, _source_file text,"
        " _source_id text, _row_number bigint, line text) on commit drop"
    )
    found = sorted(google_objects(uri) if uri.startswith("gs://") else other_objects(uri), key=itemgetter(0))
    if not found:
        raise JobError(f"there is no *.jsonl object below {uri}.")
    total = 0
    for name, path in found:
        with path.open("rb") as stream:
            source = Lines(name, stream)
            cursor.copy_expert(
                "copy lines (_source_file, _source_id, _row_number, line) from stdin",
                cast("IO[bytes]", source),
            )
        print(f"{name}: {source.count} lines", flush=True)
        total += source.count
    return total


def google_objects(uri: str) -> Iterator[tuple[str, Any]]:
    """Name and object of all `*.jsonl` right below a URI in Google Cloud Storage."""
    # Its own client: the one of fsspec asks for another version than dbt's.
    from google.cloud import storage

    bucket, _, folder = uri.removeprefix("gs://").partition("/")
    prefix = f"{folder.rstrip('/')}/" if folder else ""
    for blob in storage.Client().list_blobs(bucket, prefix=prefix, delimiter="/"):
        if blob.name.endswith(".jsonl"):
            yield blob.name.removeprefix(prefix), blob


@dataclass(frozen=True)
class Path:
    """A path of a file system, opened as objects of Google's client are."""

    fs: Any
    path: str

    def open(self, mode: str) -> Any:
        return self.fs.open(self.path, mode)


def other_objects(uri: str) -> Iterator[tuple[str, Any]]:
    """The same for all stores that fsspec knows."""
    fs, root = fsspec.core.url_to_fs(uri)
    root = root.rstrip("/")
    for path in fs.glob(f"{glob.escape(root)}/*.jsonl"):
        yield path.removeprefix(root).lstrip("/"), Path(fs, path)


class Lines:
    """The lines of an object in the format of COPY, for psycopg2 to read.

    What is not UTF-8 becomes an escape that no JSON has, and so a line that is no event.
    """

    def __init__(self, name: str, stream: IO[bytes]) -> None:
        source_id = hashlib.sha256(f"{SOURCE}\0{name}".encode()).hexdigest()[:16]
        self._before = f"{_escaped(name)}\t{source_id}\t"
        self._lines = self._rows(stream)
        self.count = 0

    def read(self, _size: int) -> bytes:
        """The next line, or nothing at the end."""
        return next(self._lines, b"")

    def _rows(self, stream: IO[bytes]) -> Iterator[bytes]:
        for raw in stream:
            line = raw.decode(errors="backslashreplace").strip().replace("\0", "\\u0000")
            if line:
                self.count += 1
                yield f"{self._before}{self.count}\t{_escaped(line)}\n".encode()


def _escaped(text: str) -> str:
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\r", "\\r"), ("\n", "\\n")):
        text = text.replace(plain, escaped)
    return text


def parse(cursor: Cursor) -> int:
    """Parse the lines into a temporary table `events`; returns how many are no events."""
    cursor.execute(
        "create temp table events on commit drop as select *,"
        " case when pg_input_is_valid(line, 'jsonb') then line::jsonb end as event from lines"
    )
    fits: list[Composable] = [
        SQL("pg_input_is_valid({}, {}) is not false").format(_text(column), Literal(kind))
        for column, kind in COLUMNS.items()
    ]
    cursor.execute(
        SQL(
            "alter table events add is_event boolean;"
            " update events set is_event ="
            " coalesce(jsonb_typeof(event) = 'object' and {key} <> '' and {fits}, false)"
        ).format(key=_text(KEY), fits=SQL(" and ").join(fits))
    )
    cursor.execute("select count(*) from events where not is_event")
    return int(cursor.fetchone()[0])


def shown(cursor: Cursor) -> list[tuple[str, int, str]]:
    """Object, number and beginning of the first lines that are no events."""
    cursor.execute(
        "select _source_file, _row_number, left(line, 100) from events where not is_event"
        " order by position limit %s",
        [SHOWN],
    )
    return list(cursor.fetchall())


def upsert(cursor: Cursor, target: Composable) -> None:
    """Move the events into the table; of several with the same key the last one stays."""
    values = [
        SQL("cast({} as {}) as {}").format(_text(column), SQL(kind), Identifier(column))
        for column, kind in COLUMNS.items()
    ]
    names = [*COLUMNS, *META]
    cursor.execute(
        SQL(
            "insert into {target} ({names}) select distinct on ({key}) {values}, statement_timestamp(),"
            " _source_file, _source_id, _row_number from events where is_event"
            " order by {key}, position desc on conflict ({conflict}) do update set {updates}"
        ).format(
            target=target,
            names=SQL(", ").join(map(Identifier, names)),
            key=_text(KEY),
            values=SQL(", ").join(values),
            conflict=Identifier(KEY),
            updates=SQL(", ").join(
                SQL("{0} = excluded.{0}").format(Identifier(name)) for name in names if name != KEY
            ),
        )
    )


def _text(column: str) -> Composable:
    """The value of a column as text, in SQL; an empty one is null where the type is not text."""
    value = SQL("(event ->> {})").format(Literal(column))
    return value if COLUMNS[column] == "text" else SQL("nullif({}, '')").format(value)


if __name__ == "__main__":
    main()
