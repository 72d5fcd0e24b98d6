"""Files into BigQuery, on an emulator: the same rows, rejects and ledger as in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pytest
from google.api_core import exceptions
from pyarrow import parquet

from orrery.ingest import bigquery_load
from orrery.ingest.bigquery import BigQuery, ConflictError, RefusedError
from orrery.ingest.bigquery_load import BigQueryLoader
from orrery.ingest.bigquery_staging import stage
from orrery.ingest.errors import FileError, IngestError
from orrery.ingest.landing import LandingZone
from orrery.ingest.loader import Loaded
from services.bigquery import PROJECT, BigQueryServer
from support.hostile import ENCODINGS, LINES, Case, parquet_file
from support.warehouse import Warehouse

pytestmark = pytest.mark.integration

COLUMNS = {"id": "integer", "name": "text", "amount": "numeric(8,2)"}
NO_MEMORY = ("quoted CRLF over megabytes", "a line that never ends")


@pytest.fixture(scope="module")
def bigquery() -> Iterator[BigQueryServer]:
    """The emulator."""
    with BigQueryServer() as server:
        yield server


class Landed(Warehouse):
    """The same as for PostgreSQL, with a dataset instead of a schema."""

    def __init__(self, server: BigQueryServer, dataset: str, zone: Path) -> None:
        super().__init__("", dataset, zone)
        self.server = server

    def loader(self, zone: LandingZone | None = None) -> BigQueryLoader:  # type: ignore[override]
        warehouse = BigQuery(self.server.client, PROJECT, {"node": "trial_events"})
        return BigQueryLoader(warehouse, self.target, self.spec, zone or self.zone, self.run_id)

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        assert not values
        return self.server.query(sql)

    def exists(self, table: str = "events") -> bool:
        return table in {each.table_id for each in self.server.client.list_tables(self.schema)}

    def rows(self, columns: str = "") -> list[tuple[Any, ...]]:
        names = columns or ", ".join(self.columns)
        return self.query(f"select {names} from {self.schema}.events order by _source_file, _row_number")

    def rejected(self) -> list[tuple[int, str]]:
        return self.query(
            f"select coalesce(_line, _row_number), reason from {self.schema}.events__rejected"
            " order by _source_file, _row_number"
        )

    def ledger(self) -> list[tuple[Any, ...]]:
        return self.query(
            "select file, rows_read, inserted, updated, rejected"
            f" from {self.schema}._orrery_ledger order by load_id"
        )


@pytest.fixture
def landed(bigquery: BigQueryServer, tmp_path: Path) -> Iterator[Landed]:
    """A landing zone and a dataset of its own."""
    dataset = f"landing_{abs(hash(tmp_path.name))}"
    made = Landed(bigquery, dataset, tmp_path / "zone")
    made.columns = COLUMNS
    yield made
    left = {each.table_id for each in bigquery.client.list_tables(dataset)}
    assert not {name for name in left if name.startswith("_orrery_stage")}
    bigquery.client.delete_dataset(dataset, delete_contents=True)


class Loads:
    """Takes what would be loaded."""

    def load(self, content: IO[bytes], _dataset: str, _table: str, columns: dict[str, str]) -> None:
        content.seek(0)
        self.table = parquet.read_table(content)
        assert self.table.column_names == list(columns)


@pytest.mark.parametrize(
    "case", [case for case in (*ENCODINGS, *LINES) if case.name not in NO_MEMORY], ids=lambda case: case.name
)
def test_a_file_means_what_it_means_in_postgresql(tmp_path: Path, case: Case) -> None:
    """The same hostile files give the same rows, as text, and the same rejected lines."""
    landed = Warehouse("", "landing", tmp_path / "zone")
    landed.arrange(case)
    (file,) = landed.zone.find(landed.spec.files)
    taken: Any = Loads()

    def staged() -> None:
        stage(taken, landed.zone, file, landed.spec, list(case.columns), dataset="landing", table="stage")

    if case.error is not None:
        with pytest.raises(FileError) as caught:
            staged()
        assert str(caught.value).startswith(case.error)
        return
    staged()
    rows = [tuple(row.values()) for row in taken.table.to_pylist()]
    assert [values for _, _, reason, *values in rows if reason is None] == [
        [None if value is None else str(value) for value in row] for row in case.rows
    ]
    assert [(line, reason) for _, line, reason, *_ in rows if reason is not None] == list(case.rejected)


GOOD = 'id,name,amount\n1,a,1.50\n2,,2.5\n3,"",\n'


def test_a_file_is_loaded_once(landed: Landed) -> None:
    landed.land("a.csv", GOOD)
    (loaded,) = landed.load()
    assert (loaded.rows, loaded.merged.inserted) == (3, 3)
    assert landed.load() == []
    assert [tuple(map(str, row)) for row in landed.rows()] == [
        ("1", "a", "1.50"),
        ("2", "None", "2.50"),
        ("3", "", "None"),
    ]
    assert landed.ledger() == [("a.csv", 3, 3, 0, 0)]
    (stamp,) = set(landed.rows("_loaded_at, _source_file"))
    assert stamp[1] == "a.csv"
    # Touched, but the same.
    landed.land("a.csv", GOOD)
    assert landed.load() == []


def test_a_key_is_upserted(landed: Landed) -> None:
    landed.block = {"files": "*.csv", "key": ["id"]}
    landed.land("a.csv", GOOD)
    landed.land("b.csv", "id,name,amount\n2,first,1\n2,last,7\n4,new,4\n")
    first, second = landed.load()
    assert (first.merged.inserted, first.merged.updated) == (3, 0)
    assert (second.merged.inserted, second.merged.updated) == (1, 2)
    assert sorted(landed.rows("id, name")) == [(1, "a"), (2, "last"), (3, ""), (4, "new")]
    # A corrected file takes back what it does not have any more.
    landed.land("b.csv", "id,name,amount\n4,newer,4\n")
    landed.load()
    assert sorted(landed.rows("id, name")) == [(1, "a"), (3, ""), (4, "newer")]
    assert landed.ledger()[-1] == ("b.csv", 1, 0, 1, 0)


def test_bad_rows_are_rejected_or_the_file_is(landed: Landed) -> None:
    content = "id,name,amount\n1,a,1\nx,b,2\n3,c,12345678.9\n"
    landed.land("a.csv", content)
    with pytest.raises(FileError) as caught:
        landed.load()
    assert str(caught.value).startswith(
        "a.csv:3: 2 of 3 rows are bad, and max_rejected allows 0:\n    line 3: id"
    )
    assert (landed.rows(), landed.rejected(), landed.ledger()) == ([], [], [])
    landed.block = {"files": "*.csv", "max_rejected": 2}
    landed.load()
    assert landed.rows("id") == [(1,)]
    assert landed.rejected() == [
        (3, 'id: no valid INT64: "x"'),
        (4, 'amount: no valid NUMERIC(8, 2): "12345678.9"'),
    ]
    assert landed.ledger() == [("a.csv", 3, 1, 0, 2)]


TYPED = """\
id;n;b;d;t;j;s
1;1.234,5;yes;2026-01-31;2026-01-31 06:00:00+02;"{""a"": 1}";longer
2;NA;;;;;""
3;1.5;maybe;2026-02-31;soon;{;x
"""


def test_values_get_their_types(landed: Landed) -> None:
    landed.columns = {
        "id": "integer",
        "n": "numeric(12, 3)",
        "b": "boolean",
        "d": "date",
        "t": "timestamp with time zone",
        "j": "jsonb",
        "s": "varchar(5)",
    }
    csv = {"delimiter": ";", "decimal": ",", "null_values": ["NA"]}
    landed.block = {"files": "*.csv", "max_rejected": "50%", "csv": csv}
    landed.land("a.csv", TYPED)
    landed.load()
    moment = datetime(2026, 1, 31, 4, tzinfo=UTC)
    assert landed.rows() == [
        (1, Decimal("1234.500"), True, date(2026, 1, 31), moment, {"a": 1}, "longer"),
        (2, None, None, None, None, None, ""),
    ]
    assert landed.rejected() == [(4, 'n: no valid NUMERIC(12, 3): "1.5 (with a decimal comma)"')]
    ((content,),) = landed.query(f"select content from {landed.schema}.events__rejected")
    values = TYPED.splitlines()[-1].split(";")
    assert json.loads(content) == dict(zip(landed.columns, values, strict=True))


def test_words_are_no_dates_and_names_may_be_long(landed: Landed) -> None:
    """As in PostgreSQL, also where BigQuery is more lenient; its names may be longer."""
    landed.columns = {"id": "integer", "d": "date", "t": "timestamp", "n": "numeric", "f": "real"}
    landed.block = {"files": "*.csv", "max_rejected": 10, "on_new_column": "add"}
    long = "a_name_" * 40
    lines = [
        "2026-01-31,2026-01-31 10:00:00,1.5,nan",
        "today,,,",
        ",epoch,,",
        ",TODAY 10:00,,",
        ",,NaN,",
        "Infinity,,,",
    ]
    rows = "".join(f"{number},{line},x\n" for number, line in enumerate(lines))
    landed.land("a.csv", f"id,d,t,n,f,{long}\n{rows}")
    landed.load()
    assert landed.rows(f"id, d, {long}") == [(0, date(2026, 1, 31), "x")]
    word = "is a word, not a date or a time"
    assert landed.rejected() == [
        (3, f'd: "today" {word}'),
        (4, f't: "epoch" {word}'),
        (5, f't: "TODAY 10:00" {word}'),
        (6, 'n: "NaN" is not a finite number'),
        (7, f'd: "Infinity" {word}'),
    ]
    landed.columns = {"x" * 301: "text"}
    with pytest.raises(IngestError, match=r"is too long\.\n  BigQuery allows 300 characters\.$"):
        landed.load()


def test_parquet(landed: Landed) -> None:
    """With nanoseconds, which BigQuery does not have."""
    landed.columns = {"id": "integer", "t": "timestamp"}
    landed.block = {"files": "*.parquet", "key": ["id"]}
    times = pa.array([1_769_839_200_123_456_789, None], pa.timestamp("ns", "UTC"))
    landed.land("a.parquet", parquet_file(id=pa.array([1, 2]), t=times))
    landed.load()
    moment = datetime(2026, 1, 31, 6, 0, 0, 123_456, tzinfo=UTC)
    assert landed.rows() == [(1, moment), (2, None)]


def test_a_type_that_is_none(landed: Landed) -> None:
    """Nothing is left of the attempt, and the job's labels say whose it was."""
    landed.columns = {"id": "integer", "name": "nothing"}
    landed.land("a.csv", "id,name\n1,a\n")
    with pytest.raises(
        IngestError, match=r"(?s)^source trial.events: .*\n  Correct the columns of the source."
    ):
        landed.load()
    assert not landed.exists()
    jobs = landed.server.client.list_jobs(max_results=5)
    assert {"node": "trial_events"} in [job.labels for job in jobs]


def test_json_lines(landed: Landed) -> None:
    landed.block = {"files": "*.jsonl", "max_rejected": 3, "on_new_column": "add"}
    landed.land("a.jsonl", '{"id": 1, "more": {"n": 1.50}}\nnone\n[1]\n{"id": "x"}\n{"id": 5, "name": "e"}\n')
    landed.load()
    assert landed.rows("id, name, more") == [(1, None, '{"n": 1.5}'), (5, "e", None)]
    assert [line for line, _ in landed.rejected()] == [2, 3, 4]


def test_replace(landed: Landed) -> None:
    landed.block = {"files": "*.csv", "load": "replace"}
    landed.land("a.csv", GOOD)
    landed.land("b.csv", "id,name,amount\n9,z,1\n")
    assert len(landed.load()) == 2
    (landed.folder / "a.csv").unlink()
    assert [loaded.file for loaded in landed.load()] == ["b.csv"]
    assert landed.rows("id") == [(9,)]
    assert landed.ledger() == [("b.csv", 1, 1, 0, 0)]


def test_a_refusal_of_many_files_blames_none(landed: Landed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What replaces a table is one script of all files."""
    landed.block = {"files": "*.csv", "load": "replace"}
    for name in "abcdefg":
        landed.land(f"{name}.csv", GOOD)

    def refuse(*_: object) -> None:
        raise RefusedError("It is too large.")

    monkeypatch.setattr(BigQueryLoader, "_commit", refuse)
    with pytest.raises(FileError) as caught:
        landed.load()
    assert str(caught.value) == (
        "a.csv, b.csv, c.csv and 4 more files: BigQuery does not take them together: It is too large.\n"
        "  Correct the files or the source, or land fewer files; nothing of them is loaded."
    )
    for name in "bcdefg":
        (landed.folder / f"{name}.csv").unlink()
    with pytest.raises(FileError, match=r"^a\.csv: BigQuery does not take it: "):
        landed.load()


@pytest.fixture
def kept(landed: Landed, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Staging tables that were not removed when that was tried: the first, and the first with types."""
    client, kept = landed.server.client, list[str]()
    delete = client.delete_table

    def delete_table(name: str, **options: Any) -> None:
        if name.endswith("_typed") not in {each.endswith("_typed") for each in kept}:
            kept.append(name)
            raise exceptions.Forbidden("No right to delete.")
        delete(name, **options)

    monkeypatch.setattr(client, "delete_table", delete_table)
    yield kept
    for name in kept:
        delete(name, not_found_ok=True)


def test_staging_tables_that_cannot_be_removed(
    landed: Landed, kept: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """They expire: a load that is done does not fail for them, and the others are removed."""
    landed.block = {"files": "*.csv", "load": "replace"}
    landed.land("a.csv", GOOD)
    landed.land("b.csv", GOOD)
    assert len(landed.load()) == 2
    told = [record.getMessage() for record in caplog.records if "until it expires" in record.getMessage()]
    assert [each.partition(" ")[0] for each in told] == kept
    left = {each.table_id for each in landed.server.client.list_tables(landed.schema)}
    assert {name for name in left if "_stage_" in name} == {name.rpartition(".")[2] for name in kept}


def test_staging_tables_that_stay_hide_no_error(landed: Landed, kept: list[str]) -> None:
    landed.land("a.csv", "id,name,amount\nx,z,1\n")
    with pytest.raises(FileError, match=r"^a\.csv:"):
        landed.load()
    assert len(kept) == 2


def test_a_staging_table_that_stays_is_not_in_the_way_of_the_next_try(
    landed: Landed, kept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, tries = BigQueryLoader._commit, list[int]()

    def commit_the_second(*arguments: Any) -> list[Loaded]:
        tries.append(1)
        if len(tries) == 1:
            raise ConflictError("concurrent update")
        return commit(*arguments)

    monkeypatch.setattr(BigQueryLoader, "_commit", commit_the_second)
    monkeypatch.setattr(bigquery_load, "_PAUSE", 0)
    landed.land("a.csv", GOOD)
    assert [loaded.rows for loaded in landed.load()] == [3]
    assert (len(tries), len(kept)) == (2, 2)


def test_another_run_was_faster(landed: Landed) -> None:
    """Both have staged the file; the one that comes second finds out, and loads nothing."""
    landed.land("a.csv", GOOD)
    first, second = landed.loader(), landed.loader()
    first.prepare()
    files = first.pending(landed.zone.find("*.csv"))
    with second._staged(files) as staged:
        before = second._warehouse.run(f"select {second._state}")[0][0]
        assert len(list(first.load(files))) == 1
        # As if it had looked before the other one was done.
        with pytest.raises(ConflictError):
            second._commit(before, ["select 1"], {})
        assert second._move_with_patience(staged) == []
    assert len(landed.rows("id")) == 3
    assert len(landed.ledger()) == 1


class Late(BigQuery):
    """Before a query of this number, somebody else does something."""

    def __init__(self, client: Any, number: int, before: Callable[[], object]) -> None:
        super().__init__(client, PROJECT)
        self._left, self._before = number, before

    def run(self, sql: str) -> list[tuple[Any, ...]]:
        self._left -= 1
        if not self._left:
            self._before()
        return super().run(sql)


@pytest.mark.parametrize("number", [1, 2])
def test_two_loads_make_the_table(landed: Landed, number: int) -> None:
    """Both find none. The one that is faster makes it, and loads; the other forgets nothing of that."""
    content = "id,name,amount\n1,a,1\nx,b,2\n"
    landed.block = {"files": "*.csv", "max_rejected": 1}
    landed.land("a.csv", content)
    late = Late(landed.server.client, number, landed.load)
    loader = BigQueryLoader(late, landed.target, landed.spec, landed.zone, landed.run_id)
    loader.prepare()
    assert loader.pending(landed.zone.find("*.csv")) == []
    assert landed.ledger() == [("a.csv", 2, 1, 0, 1)]
    assert landed.load() == []
    assert (landed.rows("id"), len(landed.rejected())) == ([(1,)], 1)


def test_a_table_that_was_dropped_is_loaded_again(landed: Landed) -> None:
    landed.block = {"files": "*.csv", "max_rejected": 1}
    landed.land("a.csv", "id,name,amount\n1,a,1\nx,b,2\n")
    landed.load()
    (landed.folder / "a.csv").unlink()
    landed.land("b.csv", GOOD)
    landed.query(f"drop table {landed.schema}.events")
    assert [loaded.file for loaded in landed.load()] == ["b.csv"]
    assert landed.ledger() == [("b.csv", 3, 3, 0, 0)]
    assert landed.rejected() == []


def test_a_load_is_there_as_a_whole_or_not_at_all(landed: Landed) -> None:
    landed.land("a.csv", GOOD)
    landed.load()
    loader = landed.loader()
    state = loader._warehouse.run(f"select {loader._state}")[0][0]
    with pytest.raises(RefusedError, match="stop"):
        loader._commit(
            state, [f"delete from {loader._tables.relation} where true", "select error('stop')"], {}
        )
    assert len(landed.rows("id")) == 3
