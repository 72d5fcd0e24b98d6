"""Big files in chunks into a real PostgreSQL: the same as without, whatever is in them and whoever dies."""

from __future__ import annotations

import multiprocessing
import random
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowSkipException, TaskDeferred

from orrery.execute.options import RunOptions
from orrery.ingest.chunk_operators import MergeChunksOperator, SplitFilesOperator, StageChunkOperator
from orrery.ingest.errors import FileError, IngestError
from orrery.ingest.operator import FilesOperator, IngestFilesOperator
from orrery.ingest.split import MOST_CHUNKS
from orrery.plan.model import Work
from support.hostile import CASES, KEYED, PAIR, Case
from support.warehouse import Warehouse

pytestmark = pytest.mark.integration

# Every row that is stored, but for the time of the load.
LOADED = (
    "select * from events order by _source_file, _row_number",
    "select _source_file, _source_id, _row_number, _line, reason, content from events__rejected"
    " order by _source_file, _row_number",
    "select table_name, file, source_id, content_hash, bytes, rows_read, inserted, updated, rejected"
    " from _orrery_ledger order by load_id",
)


@pytest.fixture
def make(postgres_uri: str, tmp_path: Path) -> Iterator[Callable[[str], Warehouse]]:
    """Makes empty schemas, each with a landing zone of its own unless they have the same folder."""
    made: list[Warehouse] = []

    def make(name: str) -> Warehouse:
        warehouse = Warehouse(postgres_uri, f"{name}_{tmp_path.name}", tmp_path / name)
        warehouse.columns = PAIR
        warehouse.query(f'create schema "{warehouse.schema}"')
        made.append(warehouse)
        return warehouse

    yield make
    for warehouse in made:
        warehouse.query(f'drop schema "{warehouse.schema}" cascade')


@pytest.fixture
def warehouse(make: Callable[[str], Warehouse]) -> Warehouse:
    """An empty schema whose files are cut wherever they can be."""
    made = make("chunked")
    made.block = {"files": "*.csv", "chunk_size": 1000, "max_rejected": 10, **KEYED}
    return made


def outcome(warehouse: Warehouse) -> list[list[tuple[Any, ...]]]:
    """What is in the three tables."""
    found = [warehouse.query(sql) for sql in LOADED]
    columns = warehouse.query(
        "select attnum - 1 from pg_attribute where attrelid = 'events'::regclass and attname = '_loaded_at'"
    )
    ((loaded_at,),) = columns
    return [[(*row[:loaded_at], *row[loaded_at + 1 :]) for row in found[0]], *found[1:]]


def rows(first: int, count: int, text: str = "a") -> str:
    """Rows with keys from `first` on."""
    return "".join(f'{key},"{text}\n{key:050}"\n' for key in range(first, first + count))


def stage_all(warehouse: Warehouse) -> list[dict[str, Any]]:
    """What the tasks do before the one that loads."""
    chunks = warehouse.split()
    for chunk in chunks:
        # What cannot be staged is left to the load.
        with suppress(FileError):
            warehouse.stage(chunk)
    return chunks


# The same as without chunks


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_file(make: Callable[[str], Warehouse], case: Case) -> None:
    outcomes: list[Any] = []
    for name in ("whole", "chunked"):
        warehouse = make(name)
        warehouse.arrange(case)
        try:
            if name == "chunked":
                # As many parts as there are records.
                warehouse.block["chunk_size"] = 1
                stage_all(warehouse)
            warehouse.load()
        except IngestError as error:
            outcomes.append(str(error))
        else:
            outcomes.append(outcome(warehouse))
            assert warehouse.staged() == []
    assert outcomes[0] == outcomes[1]
    # Were nothing staged, they would be the same, too.
    if case.error is None and case.content:
        assert len(stage_all(fresh(warehouse))) == len(warehouse.staged()) > 0


def fresh(warehouse: Warehouse) -> Warehouse:
    """The warehouse before its first load."""
    warehouse.query("delete from _orrery_ledger")
    return warehouse


@pytest.mark.parametrize("mode", ["upsert", "append", "replace"])
def test_files_that_follow_and_correct_each_other(make: Callable[[str], Warehouse], mode: str) -> None:
    outcomes: list[Any] = []
    for name in ("whole", "chunked"):
        warehouse = make(name)
        warehouse.block = {"files": "*.csv", "max_rejected": 2, "load": mode}
        warehouse.block |= KEYED if mode == "upsert" else {}
        warehouse.block |= {"chunk_size": 1000} if name == "chunked" else {}
        for wave in (
            {"a": rows(0, 100) + "x,bad\n", "b": rows(50, 100) + "1\n", "small": rows(0, 2)},
            # One that is touched, one that loses rows and gets others, and a new one.
            {"a": rows(0, 100) + "x,bad\n", "b": "y,bad\n" + rows(120, 60, "c"), "c": rows(0, 40, "d")},
            {"b": rows(50, 100, "e") + 'y,"bad\n"\nz,bad\n'},
        ):
            for file, text in wave.items():
                warehouse.land(f"{file}.csv", f"id,name\n{text}")
            if name == "chunked":
                chunks = stage_all(warehouse)
                # To replace, all that are there are read.
                there = {path.name for path in warehouse.folder.iterdir()}
                cut = (there if mode == "replace" else {f"{file}.csv" for file in wave}) - {"small.csv"}
                assert {chunk["file"] for chunk in chunks} == cut
                assert len(chunks) > 3 * len(cut)
            warehouse.load()
            outcomes.append((name, outcome(warehouse)))
        assert warehouse.staged() == []
        warehouse.check_balance()
    half = len(outcomes) // 2
    assert [each for _, each in outcomes[:half]] == [each for _, each in outcomes[half:]]


def test_max_rejected_is_for_the_whole_file(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n" + "".join(f"{rows(100 * n, 90)}x{n},bad\n" for n in range(11)))
    assert len(stage_all(warehouse)) > 11
    with pytest.raises(FileError) as caught:
        warehouse.load()
    line = 2 + 2 * 90
    assert str(caught.value).startswith(
        f"a.csv:{line}: 11 of 1,001 rows are bad, and max_rejected allows 10:"
    )
    assert f'line {line + 181}: id: invalid input syntax for type integer: "x1"' in str(caught.value)
    assert (warehouse.rows(), warehouse.rejected(), warehouse.ledger()) == ([], [], [])
    # What is staged waits for another try.
    assert len(warehouse.staged()) > 11
    warehouse.block["max_rejected"] = 11
    assert [each.merged.rejected for each in warehouse.load()] == [11]
    numbers = [number for (number,) in warehouse.query("select _row_number from events__rejected order by 1")]
    assert numbers == [91 * n for n in range(1, 12)]
    assert warehouse.staged() == []


def test_what_comes_before_a_bad_file_is_loaded(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    warehouse.land("b.csv", "id,name,extra\n" + rows(0, 100))
    warehouse.land("c.csv", "id,name\n" + rows(500, 100))
    stage_all(warehouse)
    with pytest.raises(FileError, match=r"^b.csv:1: has a column that the source does not: 'extra'"):
        warehouse.load()
    assert [name for name, *_ in warehouse.ledger()] == ["a.csv"]


# What is staged


def test_the_load_reads_the_chunks(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    assert len(stage_all(warehouse)) > 3
    for name in warehouse.staged():
        warehouse.query(f"update {name} set c2 = 'staged'")
    warehouse.load()
    assert warehouse.query("select distinct name from events") == [("staged",)]


def test_a_chunk_is_staged_once(warehouse: Warehouse) -> None:
    path = warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    chunks = warehouse.split()
    counts = {chunk["number"]: warehouse.stage(chunk) for chunk in chunks}
    assert sum(counts.values()) == 100
    # Nobody reads it a second time.
    path.unlink()
    assert {chunk["number"]: warehouse.stage(chunk) for chunk in chunks} == counts


def test_chunks_that_are_not_all_there_are_not_used(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    # PostgreSQL empties unlogged tables after a crash.
    for harm in ("drop table {}", "truncate {}"):
        stage_all(fresh(warehouse) if warehouse.exists() else warehouse)
        for name in warehouse.staged():
            warehouse.query(f"update {name} set c2 = 'staged'")
        warehouse.query(harm.format(warehouse.staged()[1]))
        assert [each.rows for each in warehouse.load()] == [100]
        assert warehouse.query("select count(*) from events where name = 'staged'") == [(0,)]
        assert warehouse.staged() == []


def test_an_emptied_chunk_is_staged_again(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    chunks = stage_all(warehouse)
    for name in warehouse.staged():
        warehouse.query(f"truncate {name}")
    assert sum(warehouse.stage(chunk) for chunk in chunks) == 100
    assert warehouse.query(f"select count(*) > 0 from {warehouse.staged()[0]}") == [(True,)]


def test_a_file_that_changes_after_it_was_cut(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    first, *others = warehouse.split()
    warehouse.stage(first)
    warehouse.land("a.csv", "id,name\n" + rows(0, 100, "new"))
    for chunk in others:
        with pytest.raises(FileError, match=r"^a.csv: changed while it was read"):
            warehouse.stage(chunk)
    assert [each.rows for each in warehouse.load()] == [100]
    assert warehouse.query("select count(*) from events where name like 'new%'") == [(100,)]
    assert warehouse.staged() == []


def test_a_file_that_changes_after_it_was_staged(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    stage_all(warehouse)
    warehouse.land("a.csv", "id,name\n" + rows(0, 100, "new"))
    warehouse.load()
    assert warehouse.query("select count(*) from events where name like 'new%'") == [(100,)]
    assert warehouse.staged() == []


def test_what_looks_like_a_byte_order_mark_inside_of_a_file(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "name,id\n" + "".join(f"\ufeff{number:0100},{number}\n" for number in range(50)))
    assert len(stage_all(warehouse)) > 3
    warehouse.load()
    assert warehouse.query("select count(*) from events where starts_with(name, '\ufeff')") == [(50,)]


def test_there_are_not_too_many_chunks(warehouse: Warehouse) -> None:
    warehouse.block["chunk_size"] = 10
    warehouse.land("a.csv", "id,name\n" + rows(0, 500))
    warehouse.land("b.csv", "id,name\n" + rows(0, 500))
    chunks = warehouse.split()
    assert MOST_CHUNKS / 3 < len(chunks) <= MOST_CHUNKS
    # An XCom is no place for data.
    assert len(str(chunks)) < 100_000
    assert {chunk["file"] for chunk in chunks} == {"a.csv", "b.csv"}


# Runs that overlap, and runs that die


def test_two_runs_at_once_load_each_file_once(make: Callable[[str], Warehouse], warehouse: Warehouse) -> None:
    for number in range(4):
        warehouse.land(f"{number}.csv", "id,name\n" + rows(100 * number, 100))
    runs = []
    for run in ("first", "second"):
        other = object.__new__(Warehouse)
        vars(other).update(vars(warehouse), run_id=run)
        runs.append(other)
    start = threading.Barrier(2)

    def load(run: Warehouse) -> int:
        start.wait()
        chunks = stage_all(run)
        assert len(chunks) > 16
        start.wait()
        return len(run.load())

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(load, runs)) == 4
    assert len(warehouse.ledger()) == 4
    assert len(warehouse.rows()) == 400
    assert warehouse.staged() == []
    warehouse.check_balance()


def test_chunks_of_ended_runs_are_removed_unless_they_are_read(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n" + rows(0, 40))
    left: dict[str, set[str]] = {}
    for run in ("ended", "alive", "own"):
        before = set(warehouse.staged())
        warehouse.run_id = run
        stage_all(warehouse)
        left[run] = set(warehouse.staged()) - before
        assert len(left[run]) > 1
    read = sorted(left["ended"])[0]
    asked = []

    def is_alive(dag_id: str, run_id: str) -> bool:
        asked.append((dag_id, run_id))
        return run_id == "alive"

    with closing(warehouse.connect()) as link, link.cursor() as cursor:
        cursor.execute(f'select from "{warehouse.schema}".{read}')
        removed = warehouse.chunks.clean(warehouse.connect, is_alive)
    assert set(removed) == left["ended"] - {read}
    assert sorted(asked) == [("trial", "alive"), ("trial", "ended")]
    assert set(warehouse.staged()) == {read} | left["alive"] | left["own"]
    assert warehouse.chunks.clean(warehouse.connect, is_alive) == [read]


def attempt(work: Callable[[], object]) -> Any:
    """A process that does something, started."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_kills_at_any_point_change_nothing(make: Callable[[str], Warehouse], warehouse: Warehouse) -> None:
    files = {f"{name}.csv": "id,name\n" + rows(2000 * n, 3000) + "x,bad\n" for n, name in enumerate("abc")}
    clean = make("clean")
    clean.block = {key: value for key, value in warehouse.block.items() if key != "chunk_size"}
    for name, text in files.items():
        clean.land(name, text)
        warehouse.land(name, text)
    clean.load()
    warehouse.block["chunk_size"] = 40_000
    chance, killed = random.Random(7), 0

    def until_done(work: Callable[[], object]) -> None:
        nonlocal killed
        seconds, tries = 0.0, 0
        while True:
            process = attempt(work)
            process.join(seconds)
            process.kill()
            process.join()
            if process.exitcode == 0:
                return
            assert process.exitcode == -signal.SIGKILL
            killed += 1
            tries += 1
            seconds += chance.uniform(0, 0.04)
            if tries >= 10:
                # On a busy machine it takes long to be done.
                seconds *= 1.3

    chunks = warehouse.split()
    assert len(chunks) > 9
    for chunk in chunks:
        until_done(lambda chunk=chunk: warehouse.stage(chunk))
    assert len(warehouse.staged()) == len(chunks)
    until_done(warehouse.load)
    print(f"{killed} were killed")
    assert killed > len(chunks)
    assert outcome(warehouse) == outcome(clean)
    assert warehouse.staged() == []
    warehouse.check_balance()


def test_an_attempt_that_goes_on_and_its_successor(warehouse: Warehouse) -> None:
    # Airflow may start a task anew that is still at work somewhere.
    warehouse.land("a.csv", "id,name\n" + rows(0, 5000))
    warehouse.block["chunk_size"] = 100_000
    chunks = [chunk for chunk in warehouse.split() for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(warehouse.stage, chunks)) == 3 * 5000
    assert [each.rows for each in warehouse.load()] == [5000]
    assert warehouse.staged() == []


# The tasks


class TaskInstance:
    """What the operators need of the one that Airflow gives them."""

    dag_id, run_id = "trial", "test"

    def __init__(self, told: dict[str, Any]) -> None:
        self.pushed: dict[str, Any] = {}
        self._told = told

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = self._told[key] = value

    def xcom_pull(self, task_ids: str, key: str) -> Any:
        """What the task before has told; no test has two of them."""
        assert task_ids == "x__split"
        return self._told.get(key)

    @staticmethod
    def get_dr_count(*_: Any, **__: Any) -> int:
        return 1


Run = Callable[..., tuple[Any, dict[str, Any]]]


@pytest.fixture
def run(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Does what a task does behind the check of the run's choices; returns what it returns and tells."""
    monkeypatch.setattr("orrery.ingest.warehouse.connect", warehouse.connect)
    monkeypatch.setattr("orrery.ingest.operator.check_choices", lambda *_: RunOptions())
    warehouse.block |= {"landing_zone": warehouse.zone.uri, "settle": 0}
    told: dict[str, Any] = {}

    def run(
        operator: type[FilesOperator], *, by: str = "scheduled", **arguments: Any
    ) -> tuple[Any, dict[str, Any]]:
        work = Work("files", warehouse.spec, "trial.events", warehouse.schema, "events", warehouse.columns)
        task = operator(task_id="x", stage="ingest", nodes=(), work=work, **arguments)
        # Outside of a task runner Airflow would warn.
        context: Any = {"ti": (ti := TaskInstance(told)), "dag_run": SimpleNamespace(run_type=by)}
        returned = type(task).execute.__wrapped__(task, context)  # type: ignore[attr-defined]
        return returned, ti.pushed["dbt"]

    return run


def test_the_three_tasks(warehouse: Warehouse, run: Run) -> None:
    warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    warehouse.land("b.csv", "id,name\n1,a\nx,b\n")
    chunks, told = run(SplitFilesOperator)
    assert (told["status"], told["message"]) == ("success", f"1 of 2 new files in {len(chunks)} chunks")
    staged = [run(StageChunkOperator, chunk=chunk)[1] for chunk in chunks]
    assert sum(each["rows_affected"] for each in staged) == 100
    assert staged[0]["message"] == f"a.csv 1/{len(chunks)}"
    _, told = run(MergeChunksOperator)
    assert (told["status"], told["rows_affected"]) == ("warn", 101)
    assert told["message"] == "2 files; 1 rows are rejected, see events__rejected"
    # There is nothing to map any more, which is fine.
    chunks, told = run(SplitFilesOperator)
    assert (chunks, told["message"]) == ([], "nothing new")
    assert run(MergeChunksOperator)[1]["message"] == "nothing new"


def test_a_chunk_that_cannot_be_staged_is_told_of_by_the_load(warehouse: Warehouse, run: Run) -> None:
    warehouse.land("a.csv", 'id,"name\n' + rows(0, 100))
    chunks, _ = run(SplitFilesOperator)
    assert len(chunks) > 1
    _, told = run(StageChunkOperator, chunk=chunks[0])
    expected = "a.csv:1: the header is no record of one line\n  Check quotes and line ends."
    assert (told["status"], told["message"]) == ("warn", expected)
    with pytest.raises(AirflowException) as caught:
        run(MergeChunksOperator)
    assert str(caught.value) == expected


def test_only_the_first_task_waits_for_files(warehouse: Warehouse, run: Run) -> None:
    warehouse.block["if_missing"] = "wait"
    with pytest.raises(TaskDeferred):
        run(SplitFilesOperator)
    assert run(MergeChunksOperator)[1]["message"] == "nothing new"
    # What is still written then is for the next run.
    warehouse.block["settle"] = 3600
    warehouse.land("a.csv", "id,name\n" + rows(0, 100))
    with pytest.raises(TaskDeferred):
        run(SplitFilesOperator)
    assert run(MergeChunksOperator)[1]["message"] == "nothing new"


def test_without_a_file(warehouse: Warehouse, run: Run) -> None:
    with pytest.raises(AirflowException, match=r"^No file matches \*\.csv in .*\n  Land one"):
        run(SplitFilesOperator)
    # There was one when the first task looked; another run has loaded it and put it away.
    assert run(MergeChunksOperator)[1]["message"] == "nothing new"
    warehouse.block["if_missing"] = "skip"
    for operator in (SplitFilesOperator, MergeChunksOperator):
        with pytest.raises(AirflowSkipException):
            run(operator)


@pytest.mark.parametrize("operator", [IngestFilesOperator, SplitFilesOperator])
def test_what_starts_a_run_may_be_of_another_source(
    warehouse: Warehouse, run: Run, operator: type[FilesOperator]
) -> None:
    with pytest.raises(AirflowException, match="No file matches"):
        run(operator, by="asset_triggered")
    # Those that there were are gone.
    warehouse.block["after_load"] = "archive"
    with pytest.raises(AirflowSkipException, match="No file matches"):
        run(operator, by="asset_triggered")
    with pytest.raises(AirflowException, match="No file matches"):
        run(operator)
