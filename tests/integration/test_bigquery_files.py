"""Files into BigQuery, on an emulator: the same rows, rejects and ledger as in PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orrery.config.ingest import Files
from orrery.ingest.bigquery import BigQuery
from orrery.ingest.bigquery_load import BigQueryLoader
from orrery.ingest.errors import FileError
from orrery.ingest.landing import LandingZone
from orrery.ingest.load import Loaded
from orrery.ingest.target import Target
from services.bigquery import BigQueryServer
from support.hostile import ENCODINGS, LINES, Case
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
        self._server = server

    def load(self, zone: LandingZone | None = None) -> list[Loaded]:
        loader = BigQueryLoader(
            BigQuery(self._server.client), self.target, self.spec, zone or self.zone, self.run_id
        )
        loader.prepare()
        files = self.zone.find(self.spec.files)
        loaded = list(loader.load(loader.pending(files)))
        loader.put_away(files)
        return loaded

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        assert not values
        return self._server.query(sql)

    def exists(self, table: str = "events") -> bool:
        return table in {each.table_id for each in self._server.client.list_tables(self.schema)}

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


@pytest.mark.parametrize(
    "case", [case for case in (*ENCODINGS, *LINES) if case.name not in NO_MEMORY], ids=lambda case: case.name
)
def test_hostile_file(landed: Landed, case: Case) -> None:
    landed.arrange(case)
    if case.error is not None:
        with pytest.raises(FileError) as caught:
            landed.load()
        assert str(caught.value).startswith(case.error)
        assert landed.ledger() == []
    else:
        landed.load()
    assert (landed.rows(), landed.rejected()) == (list(case.rows), list(case.rejected))


GOOD = 'id,name,amount\n1,a,1.50\n2,,2.5\n3,"",\n'


def test_a_file_is_loaded_once(landed: Landed) -> None:
    landed.land("a.csv", GOOD)
    (loaded,) = landed.load()
    assert (loaded.rows, loaded.merged.inserted) == (3, 3)
    assert landed.load() == []
    assert [tuple(map(str, row)) for row in landed.rows()] == [
        ("1", "a", "1.5"),
        ("2", "None", "2.5"),
        ("3", "", "None"),
    ]
    assert landed.ledger() == [("a.csv", 3, 3, 0, 0)]
    (stamp,) = {row for row in landed.rows("_loaded_at, _source_file")}
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
        (3, "id: is no INT64: x"),
        (4, "amount: is no NUMERIC(8,2): 12345678.9"),
    ]
    assert landed.ledger() == [("a.csv", 3, 1, 0, 2)]


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


def test_another_run_was_faster(landed: Landed) -> None:
    """Both have staged the file; the one that comes second finds out, and loads nothing."""
    landed.land("a.csv", GOOD)
    warehouse = BigQuery(landed._server.client)
    target = Target(landed.schema, "events", "trial.events", COLUMNS, ())
    loaders = [BigQueryLoader(warehouse, target, Files(files="*.csv"), landed.zone, run) for run in "ab"]
    loaders[0].prepare()
    files = loaders[0].pending(landed.zone.find("*.csv"))
    with loaders[1]._staged(files) as staged:
        before = loaders[1]._ledger()
        assert len(list(loaders[0].load(files))) == 1
        # What it knows is out of date: the transaction is ended.
        loaders[1]._ledger = lambda: before  # type: ignore[method-assign]
        loaders[1]._known = dict  # type: ignore[method-assign]
        with pytest.raises(Exception, match="concurrent update"):
            loaders[1]._move(staged)
    assert len(landed.rows("id")) == 3
    assert len(landed.ledger()) == 1
