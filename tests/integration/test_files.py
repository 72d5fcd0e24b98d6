"""Files into a real PostgreSQL: each once, as a whole or not at all, whatever is in them."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import timedelta
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from orrery.config.ingest import Csv, Files
from orrery.ingest.errors import FileError, IngestError, SetupError
from orrery.ingest.landing import LandingFile, LandingZone, archived
from orrery.ingest.load import Loader
from orrery.ingest.records import Dialect, Records
from orrery.ingest.target import Target
from support.hostile import CASES, KEYED, PAIR, Case
from support.warehouse import Warehouse

pytestmark = pytest.mark.integration


@pytest.fixture
def warehouse(postgres_uri: str, tmp_path: Path) -> Iterator[Warehouse]:
    """An empty schema and an empty landing zone."""
    made = Warehouse(postgres_uri, f"landing_{tmp_path.name}", tmp_path / "zone")
    made.columns = PAIR
    made.query(f'create schema "{made.schema}"')
    yield made
    made.query(f'drop schema "{made.schema}" cascade')


class Meddled(LandingZone):
    """A landing zone where something happens when a file has just been opened, or is first read."""

    def __init__(self, warehouse: Warehouse, meddle: Callable[[], object], *, of_read: bool = False) -> None:
        super().__init__(warehouse.zone.uri)
        self._meddle, self._of_read = meddle, of_read

    def open(self, file: LandingFile) -> Any:
        stream = super().open(file)
        if self._of_read:
            stream.read = lambda size: self._meddle()
        else:
            self._meddle()
        return stream


def same_length(count: int) -> str:
    return "id,name\n" + "".join(f"{number},{number:0100}\n" for number in range(count))


# What is in the files


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_file(warehouse: Warehouse, case: Case) -> None:
    warehouse.arrange(case)
    if case.error is not None:
        with pytest.raises(IngestError) as caught:
            warehouse.load()
        assert str(caught.value).startswith(case.error)
        assert len(str(caught.value)) < 2500
        check_nothing_loaded(warehouse, case)
        return
    warehouse.load()
    assert warehouse.rows() == [*case.rows]
    assert warehouse.rejected() == [*case.rejected]
    warehouse.check_balance()
    ((file, _, inserted, _, rejected),) = warehouse.ledger()
    assert (file, rejected) == (case.file, len(case.rejected))
    assert inserted + len(case.before) == len(case.rows)
    assert {*warehouse.rows("_source_file")} <= {(case.file,), (None,)}
    # A second run finds nothing to do.
    assert warehouse.pending() == []
    assert warehouse.load() == []


def check_nothing_loaded(warehouse: Warehouse, case: Case) -> None:
    if warehouse.exists():
        assert warehouse.query("select count(*) from events") == [(len(case.before),)]
    if warehouse.exists("_orrery_ledger"):
        assert (warehouse.rejected(), warehouse.ledger()) == ([], [])
    assert warehouse.query("select 1 from pg_class where relname in ('_orrery_stage', '_orrery_lines')") == []


def test_an_accepted_record_has_the_fields_that_copy_gives(warehouse: Warehouse) -> None:
    chance = random.Random(3)
    for escape in (None, "\\"):
        dialect = Dialect.of(Csv(escape=escape))
        text = "".join(chance.choices('ab,"\\\n\r.', (4, 4, 4, 2, 2, 4, 0.3, 1), k=20_000))
        reader = Records("a.csv", dialect, 2, first_line=1)
        options = f"format csv, quote '\"', escape '{dialect.escape}'"
        with closing(warehouse.connect()) as link, link.cursor() as cursor:
            cursor.execute("create temp table ours (row int, line int, reason text, a text, b text)")
            cursor.execute("create temp table theirs (line int, a text, b text)")
            cursor.execute("create temp table one (a text, b text)")
            staged = b"".join(reader.copy_blocks(iter([text.encode()])))
            cursor.copy_expert(f"copy ours from stdin ({options})", BytesIO(staged))
            cursor.execute("select line, reason from ours order by row")
            records = cursor.fetchall()
            lines = text.split("\n")
            ends = [*(line for line, _ in records[1:]), len(lines) + 1]
            for (begin, reason), end in zip(records, ends, strict=True):
                # What is between two records is one of them with its line end, and blank lines.
                record = "\n".join(lines[begin - 1 : end - 1]).rstrip("\r\n")
                if reason is None:
                    cursor.copy_expert(f"copy one from stdin ({options})", StringIO(record + "\n"))
                    cursor.execute("insert into theirs select %s, a, b from one; truncate one", [begin])
            cursor.execute("select line, a, b from ours where reason is null except table theirs")
            assert cursor.fetchall() == []
            cursor.execute("select count(*), (select count(*) from theirs) from ours where reason is null")
            assert cursor.fetchone() == (good := sum(reason is None for _, reason in records), good)
            assert good > 300


# What PostgreSQL takes for more than it says: per type what is loaded, as text, or why it is not.
# docs/ingestion.md has the same, below "What values mean".
WORD, NO_NUMBER = "is a word, not a date or a time", "is not a finite number"
VALUES: dict[str, dict[str, str]] = {
    "date": {
        **dict.fromkeys(("now", "today", "tomorrow", "yesterday", "epoch", "infinity", "-infinity"), WORD),
        **dict.fromkeys((" Today ", "NOW", "2026-01-01 allballs", "+infinity", "today 10:00"), WORD),
        "2026-01-31": "2026-01-31",
        "20260131": "2026-01-31",
        "26-01-31": "2026-01-31",
        "31 January 2026": "2026-01-31",
        "2026-01-31 23:59": "2026-01-31",
        "2026.031": "2026-01-31",
        "J2451187": "1999-01-08",
    },
    "timestamp": {
        **dict.fromkeys(("now", "epoch", "today 10:00", "TODAY10:00", "10:00tomorrow", "infinity"), WORD),
        "2026-01-31T10:00:00Z": "2026-01-31 10:00:00",
        # As PostgreSQL has it, a type without a zone has no use for one.
        "2026-01-31 10:00+02": "2026-01-31 10:00:00",
    },
    "timestamptz": {
        "now": WORD,
        "2026-01-31 10:00": "2026-01-31 10:00:00+00",
        "2026-01-31 10:00+02": "2026-01-31 08:00:00+00",
        "2026-01-31T10:00 Europe/Berlin": "2026-01-31 09:00:00+00",
        "Sat Jan 31 10:00:00 2026 PST": "2026-01-31 18:00:00+00",
    },
    "time": {"now": WORD, "allballs": WORD, "10:00": "10:00:00", "10:00 PM": "22:00:00"},
    "interval": {"infinity": WORD, "-Infinity": WORD, "1 day": "1 day", "5": "00:00:05", "P1D": "1 day"},
    "date[]": {"{2026-01-31,today}": WORD, "{2026-01-31,NULL}": "{2026-01-31,NULL}"},
    "daterange": {"[2026-01-01,infinity)": WORD, "[2026-01-01,)": "[2026-01-01,)"},
    "orrery_day": {"today": WORD, "2026-01-31": "2026-01-31"},
    "numeric": {
        **dict.fromkeys(("NaN", "nan", " Infinity", "-inf"), NO_NUMBER),
        "1e3": "1000",
        " 1.50 ": "1.50",
        "0x1F": "31",
        "1_000": "1000",
    },
    "numeric(5,2)": {"NaN": NO_NUMBER, "1.005": "1.01"},
    "numeric[]": {"{1,NaN}": NO_NUMBER, "{1,NULL}": "{1,NULL}"},
    "integer": {"0x1F": "31", "0o17": "15", "0b11": "3", "1_000": "1000", " 7 ": "7"},
    "double precision": {"NaN": "NaN", "inf": "Infinity", "-Infinity": "-Infinity"},
    "boolean": {
        **dict.fromkeys(("t", "TRUE", "tru", "y", "yes", "on", "1"), "true"),
        **dict.fromkeys(("f", "False", "n", "no", "of", "0"), "false"),
    },
    "text": {"now": "now", "NaN": "NaN", " a ": " a "},
    "name": {"x" * 64: "is longer than 63 bytes", "é" * 31: "é" * 31},
    "bytea": {"\\x00fF": "\\x00ff", "abc": "\\x616263"},
    "uuid": {"{A0EEBC99-9C0B4EF8-BB6D6BB9-BD380A11}": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},
}


@pytest.mark.parametrize("kind", VALUES)
def test_no_value_is_taken_for_another_without_a_word(warehouse: Warehouse, kind: str) -> None:
    expected = VALUES[kind]
    warehouse.columns = {"id": "integer", "v": kind}
    warehouse.block = {"files": "*.csv", "max_rejected": "100%"}
    quoted = ['"' + text.replace('"', '""') + '"' for text in expected]
    warehouse.land("a.csv", "id,v\n" + "".join(f"{number},{text}\n" for number, text in enumerate(quoted)))
    if kind == "orrery_day":
        warehouse.query("create domain public.orrery_day as date check (value > '2000-01-01')")
    try:
        warehouse.load()
        loaded = warehouse.query("set timezone to 'UTC'; select id, v::text from events")
    finally:
        if kind == "orrery_day":
            warehouse.query("drop domain public.orrery_day cascade")
    found = dict(loaded) | {line - 2: reason for line, reason in warehouse.rejected()}
    words = (WORD, NO_NUMBER, "is longer than 63 bytes")
    assert found == {
        number: f'v: "{text[:100]}" {value}' if value in words else value
        for number, (text, value) in enumerate(expected.items())
    }


# Which files there are


def test_a_pattern_cannot_leave_the_landing_zone() -> None:
    for pattern in ("../*.csv", "a/../../b.csv", "/etc/*.csv", "file:///etc/*.csv"):
        with pytest.raises(ValidationError, match="is no pattern below the landing zone"):
            Files(files=pattern)


@pytest.mark.parametrize("pattern", ["*.csv", "**/*.csv", "link.csv"])
def test_a_link_out_of_the_landing_zone(warehouse: Warehouse, tmp_path: Path, pattern: str) -> None:
    (tmp_path / "secret.csv").write_text("id,name\n1,secret\n")
    warehouse.block = {"files": pattern}
    (warehouse.folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(FileError, match=r"^link.csv: is a link that leads out of the landing zone\n  Copy "):
        warehouse.load()
    assert warehouse.rows() == []


def test_a_linked_directory_out_of_the_landing_zone(warehouse: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.csv").write_text("id,name\n1,secret\n")
    (warehouse.folder / "link").symlink_to(tmp_path / "secret")
    (warehouse.folder / "link.csv").symlink_to(tmp_path / "secret")
    warehouse.block = {"files": "link/*.csv"}
    with pytest.raises(FileError, match=r"^link/a.csv: is a link that leads out of the landing zone"):
        warehouse.load()
    # Nobody goes down where a pattern does not name the link.
    warehouse.block = {"files": "**/*.csv"}
    assert warehouse.load() == []


def test_a_link_within_the_landing_zone(warehouse: Warehouse) -> None:
    warehouse.land("data/real.csv", "id,name\n1,a\n")
    (warehouse.folder / "link.csv").symlink_to("data/real.csv")
    assert [each.file for each in warehouse.load()] == ["link.csv"]
    assert warehouse.load() == []
    # It is the file that counts, not the link.
    warehouse.land("data/real.csv", "id,name\n2,b\n")
    warehouse.load()
    assert warehouse.rows() == [(2, "b")]


def test_what_is_no_file_is_left_out(warehouse: Warehouse) -> None:
    (warehouse.folder / "directory.csv").mkdir()
    (warehouse.folder / "nowhere.csv").symlink_to("gone")
    (warehouse.folder / "itself.csv").symlink_to("itself.csv")
    os.mkfifo(warehouse.folder / "pipe.csv")
    warehouse.land("real.csv", "id,name\n1,a\n")
    assert [each.file for each in warehouse.load()] == ["real.csv"]


def test_a_name_that_is_not_utf_8(warehouse: Warehouse) -> None:
    warehouse.land(os.fsdecode(b"caf\xe9.csv"), "id,name\n1,a\n")
    with pytest.raises(FileError, match=r"^'caf\\udce9.csv': the name is not valid UTF-8\n  Rename the file"):
        warehouse.load()


def test_a_landing_zone_whose_name_is_a_pattern(warehouse: Warehouse) -> None:
    warehouse.land("a/secret.csv", "id,name\n1,secret\n")
    warehouse.folder = warehouse.folder / "[a]*"
    warehouse.land("a.csv", "id,name\n1,a\n")
    assert [each.file for each in warehouse.load()] == ["a.csv"]


def test_folders_are_parts_of_names(warehouse: Warehouse) -> None:
    warehouse.block = {"files": "**/*.csv"}
    for folder in ("b", "a/deep", "_archive"):
        warehouse.land(f"{folder}/same.csv", f"id,name\n1,{folder}\n")
    assert [each.file for each in warehouse.load()] == ["a/deep/same.csv", "b/same.csv"]


def test_a_file_that_nobody_may_read(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n1,a\n").chmod(0)
    (file,) = warehouse.zone.find("*.csv")
    with as_a_user(warehouse.folder):
        if os.access(file.path, os.R_OK, effective_ids=True):
            pytest.fail("the file is readable in spite of its permissions")
        with pytest.raises(FileError, match=r"^a.csv: cannot be read: Permission denied\n  Check its perm"):
            warehouse.zone.open(file)


@contextmanager
def as_a_user(folder: Path) -> Iterator[None]:
    """Not as root, who may read whatever there is; every directory above `folder` is made passable."""
    if os.geteuid() != 0:
        yield
        return
    print("root ignores permissions: the file is opened as nobody")
    for parent in [folder, *folder.parents]:
        if not parent.stat().st_mode & 0o001:
            parent.chmod(0o711)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_files_that_are_still_written_settle_first(warehouse: Warehouse) -> None:
    path = warehouse.land("a.csv", "id,name\n1,a\n")
    zone = warehouse.zone

    def complete() -> list[LandingFile]:
        return zone.look("*.csv", settle=timedelta(minutes=1), done_marker=None).complete

    assert complete() == []
    os.utime(path, (time.time() - 50,) * 2)
    assert complete() == []
    os.utime(path, (time.time() - 70,) * 2)
    assert [file.name for file in complete()] == ["a.csv"]


def test_a_done_marker(warehouse: Warehouse) -> None:
    zone = warehouse.zone
    warehouse.land("a.csv", "id,name\n1,a\n")
    warehouse.land("b.csv", "id,name\n2,b\n")
    warehouse.land("b.csv.done", "")

    def complete() -> list[str]:
        look = zone.look("*", settle=timedelta(hours=1), done_marker=".done")
        return [file.name for file in look.complete]

    assert complete() == ["b.csv"]
    warehouse.land("a.csv.done", "")
    assert complete() == ["a.csv", "b.csv"]


# Files that change under the reader


def test_a_file_that_grows_while_it_is_read(warehouse: Warehouse) -> None:
    path = warehouse.land("a.csv", same_length(10))

    def grow() -> None:
        with path.open("a") as file:
            file.write("10,b\n")

    with pytest.raises(FileError, match=r"^a.csv: changed while it was read\n  Write it under another name"):
        warehouse.load(Meddled(warehouse, grow))
    assert (warehouse.rows(), warehouse.ledger()) == ([], [])
    assert [each.rows for each in warehouse.load()] == [11]


def test_a_file_that_vanishes(warehouse: Warehouse) -> None:
    path = warehouse.land("a.csv", same_length(10))
    expected = r"^a.csv: has vanished while it was to be loaded\n  Nothing of it is loaded\.$"
    with pytest.raises(FileError, match=expected):
        warehouse.load(Meddled(warehouse, path.unlink))
    warehouse.land("a.csv", same_length(10))
    pending = warehouse.pending()
    path.unlink()
    with pytest.raises(FileError, match=expected):
        list(warehouse.loader().load(pending))
    assert (warehouse.rows(), warehouse.ledger()) == ([], [])


def test_a_file_that_is_replaced_by_another_of_its_size_and_time(warehouse: Warehouse) -> None:
    path = warehouse.land("a.csv", "id,name\n1,a\n")
    times = path.stat()

    def replace() -> None:
        new = warehouse.land("b.part", "id,name\n1,b\n")
        os.utime(new, ns=(times.st_atime_ns, times.st_mtime_ns))
        new.rename(path)

    with pytest.raises(FileError, match=r"^a.csv: changed while it was read"):
        warehouse.load(Meddled(warehouse, replace))
    assert (warehouse.rows(), warehouse.ledger()) == ([], [])
    warehouse.load()
    assert warehouse.rows() == [(1, "b")]
    # Between two runs as well.
    warehouse.land("b.part", "id,name\n1,c\n")
    os.utime(warehouse.folder / "b.part", ns=(times.st_atime_ns, times.st_mtime_ns))
    (warehouse.folder / "b.part").rename(path)
    warehouse.load()
    assert warehouse.rows() == [(1, "c")]


def test_an_interrupted_load_ends_with_what_interrupted_it(warehouse: Warehouse) -> None:
    # Airflow ends a task that takes too long with an exception of this kind.
    warehouse.block["csv"] = {"header": False}
    warehouse.land("a.csv", same_length(10).partition("\n")[2])

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        warehouse.load(Meddled(warehouse, interrupt, of_read=True))
    assert (warehouse.rows(), warehouse.ledger()) == ([], [])
    assert [each.rows for each in warehouse.load()] == [10]


def test_tables_of_others_stay(warehouse: Warehouse) -> None:
    names = ("_orrery_stage", "_orrery_lines", "_orrery_json", "_orrery_declared")
    for name in names:
        warehouse.query(f"create table public.{name} (id integer)")
    warehouse.land("a.csv", "id,name\n1,a\n")
    warehouse.load()
    for name in names:
        warehouse.query(f"drop table public.{name}")
    assert warehouse.rows() == [(1, "a")]


def test_a_bad_file_holds_up_those_behind_it(warehouse: Warehouse) -> None:
    for name, text in {"a": "1,a", "b": "x,b", "c": "3,c"}.items():
        warehouse.land(f"{name}.csv", f"id,name\n{text}\n")
    with pytest.raises(FileError, match=r"^b.csv:2: 1 of 1 rows are bad, and max_rejected allows 0:"):
        warehouse.load()
    assert warehouse.rows() == [(1, "a")]
    assert warehouse.rejected() == []
    warehouse.land("b.csv", "id,name\n2,b\n")
    assert [each.file for each in warehouse.load()] == ["b.csv", "c.csv"]


# How often a file is loaded


@pytest.mark.parametrize(
    ("allowed", "loads"),
    [(0, False), (28, False), (29, True), ("28.9%", False), ("29%", True), ("100%", True)],
)
def test_max_rejected(warehouse: Warehouse, allowed: int | str, loads: bool) -> None:
    warehouse.land("a.csv", "id,name\n" + "1,a\n" * 71 + "x,b\n" * 29)
    warehouse.block = {"files": "*.csv", "max_rejected": allowed}
    if loads:
        assert [each.merged.rejected for each in warehouse.load()] == [29]
        assert (len(warehouse.rows()), len(warehouse.rejected())) == (71, 29)
        warehouse.check_balance()
        return
    with pytest.raises(FileError) as caught:
        warehouse.load()
    shown = "28.90%" if allowed == "28.9%" else allowed
    lines = "".join(
        f'\n    line {line}: id: invalid input syntax for type integer: "x"' for line in range(73, 78)
    )
    assert str(caught.value) == (
        f"a.csv:73: 29 of 100 rows are bad, and max_rejected allows {shown}:{lines}\n    and 24 more\n"
        "  Correct the file, or allow more; nothing of it is loaded."
    )
    assert (warehouse.rows(), warehouse.rejected(), warehouse.ledger()) == ([], [], [])


def test_a_corrected_file_that_is_too_bad_leaves_the_first_in_place(warehouse: Warehouse) -> None:
    warehouse.block = {"files": "*.csv", "max_rejected": 1}
    warehouse.land("a.csv", "id,name\n1,a\nx,b\n")
    warehouse.load()
    before = (warehouse.rows(), warehouse.rejected(), warehouse.ledger())
    warehouse.land("a.csv", "id,name\nx,a\ny,b\n")
    with pytest.raises(FileError, match="max_rejected allows 1"):
        warehouse.load()
    assert (warehouse.rows(), warehouse.rejected(), warehouse.ledger()) == before


@pytest.mark.parametrize("mode", ["upsert", "append"])
def test_a_corrected_file_replaces_exactly_its_own_rows(warehouse: Warehouse, mode: str) -> None:
    warehouse.block = {"files": "*.csv", "max_rejected": 2, **(KEYED if mode == "upsert" else {})}
    warehouse.land("a.csv", "id,name\n1,a\n2,a\nx,a\n")
    warehouse.land("b.csv", "id,name\n2,b\n3,b\ny,b\n")
    warehouse.load()
    both = [(1, "a"), *([(2, "a")] if mode == "append" else []), (2, "b"), (3, "b")]
    assert warehouse.rows() == both
    warehouse.land("a.csv", "id,name\n4,a\nz,a\nw,a\n")
    assert [(each.file, each.rows) for each in warehouse.load()] == [("a.csv", 3)]
    assert warehouse.rows() == [(4, "a"), (2, "b"), (3, "b")]
    assert [reason[-3:] for _, reason in warehouse.rejected()] == ['"z"', '"w"', '"y"']
    warehouse.check_balance()
    # One that keeps a key keeps its row, and one that takes a key has it.
    warehouse.land("a.csv", "id,name\n4,new\n3,new\n")
    ((_, _, merged),) = [(each.file, each.rows, each.merged) for each in warehouse.load()]
    if mode == "upsert":
        assert warehouse.rows() == [(4, "new"), (3, "new"), (2, "b")]
        assert (merged.inserted, merged.updated, merged.rejected) == (0, 2, 0)
    else:
        assert warehouse.rows() == [(4, "new"), (3, "new"), (2, "b"), (3, "b")]
    warehouse.check_balance()


def test_rows_of_others_stay(warehouse: Warehouse) -> None:
    warehouse.block = {"files": "*.csv", **KEYED}
    warehouse.query("create table events (id integer primary key, name text)")
    warehouse.query("insert into events values (1, 'own'), (2, 'own')")
    warehouse.land("a.csv", "id,name\n2,a\n")
    warehouse.load()
    warehouse.land("a.csv", "id,name\n3,a\n")
    warehouse.load()
    assert warehouse.rows() == [(3, "a"), (1, "own")]


def test_replace(warehouse: Warehouse) -> None:
    warehouse.block = {"files": "*.csv", "load": "replace", "max_rejected": 1}
    warehouse.land("a.csv", "id,name\n1,a\nx,a\n")
    warehouse.land("b.csv", "id,name\n2,b\n")
    assert len(warehouse.load()) == 2
    assert warehouse.rows() == [(1, "a"), (2, "b")]
    # Without a change nothing is done, above all nothing is deleted.
    assert warehouse.load() == []
    assert warehouse.rows() == [(1, "a"), (2, "b")]
    # A change of one file reads all of them.
    warehouse.land("b.csv", "id,name\n3,b\n")
    assert len(warehouse.load()) == 2
    assert warehouse.rows() == [(1, "a"), (3, "b")]
    # A bad one keeps all as it was.
    warehouse.land("c.csv", "id,name\nx,c\ny,c\n")
    with pytest.raises(FileError, match=r"^c.csv:2: "):
        warehouse.load()
    assert warehouse.rows() == [(1, "a"), (3, "b")]
    assert len(warehouse.rejected()) == 1
    # The table holds what the files hold that are there.
    (warehouse.folder / "c.csv").unlink()
    (warehouse.folder / "a.csv").unlink()
    assert len(warehouse.load()) == 1
    assert (warehouse.rows(), warehouse.rejected()) == ([(3, "b")], [])
    warehouse.check_balance()


def test_replace_with_files_that_are_put_away(warehouse: Warehouse) -> None:
    warehouse.block = {"files": "*.csv", "load": "replace", "after_load": "archive"}
    warehouse.land("a.csv", "id,name\n1,a\n")
    warehouse.land("b.csv", "id,name\n2,b\n")
    warehouse.load()
    # The process died when it had put away the first of them.
    archived = next((warehouse.folder / "_archive").glob("b.csv.*"))
    archived.rename(warehouse.folder / "b.csv")
    assert warehouse.load() == []
    assert warehouse.rows() == [(1, "a"), (2, "b")]
    assert [*warehouse.folder.glob("*.csv")] == []


def test_the_same_file_twice_loads_nothing(warehouse: Warehouse) -> None:
    path = warehouse.land("a.csv", "id,name\n1,a\n")
    warehouse.load()
    ledger = warehouse.ledger()
    assert warehouse.pending() == []
    assert warehouse.load() == []
    # Touched, and copied anew: read, but equal.
    os.utime(path, (1, 1))
    assert [file.name for file in warehouse.pending()] == ["a.csv"]
    assert warehouse.load() == []
    assert warehouse.pending() == []
    warehouse.land("a.csv", "id,name\n1,a\n")
    assert warehouse.load() == []
    assert (warehouse.rows(), warehouse.ledger()) == ([(1, "a")], ledger)


def test_the_same_content_under_another_name_is_another_file(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n1,a\n")
    warehouse.land("b.csv", "id,name\n1,a\n")
    assert len(warehouse.load()) == 2
    assert warehouse.rows() == [(1, "a"), (1, "a")]


@pytest.mark.parametrize("block", [KEYED, {}])
def test_a_file_that_returns_to_what_it_was(warehouse: Warehouse, block: dict[str, Any]) -> None:
    warehouse.block = {"files": "*.csv", **block}
    for text, rows in (("1,a\n2,a", 2), ("2,b", 1), ("1,a\n2,a", 2)):
        warehouse.land("a.csv", f"id,name\n{text}\n")
        assert len(warehouse.load()) == 1
        assert len(warehouse.rows()) == rows
    assert warehouse.rows() == [(1, "a"), (2, "a")]
    assert len(warehouse.ledger()) == 3
    warehouse.check_balance()


def test_a_dropped_table_is_loaded_again(warehouse: Warehouse) -> None:
    warehouse.block = {"files": "*.csv", "max_rejected": 1}
    warehouse.land("a.csv", "id,name\n1,a\nx,b\n")
    warehouse.load()
    warehouse.query("drop table events")
    assert len(warehouse.load()) == 1
    assert (warehouse.rows(), len(warehouse.rejected()), len(warehouse.ledger())) == ([(1, "a")], 1, 1)
    warehouse.check_balance()


def test_a_clock_that_is_set_back_leaves_no_rows(warehouse: Warehouse) -> None:
    warehouse.block = {"files": "*.csv", **KEYED}
    warehouse.land("a.csv", "id,name\n1,a\n2,a\n")
    warehouse.load()
    warehouse.query("update events set _loaded_at = now() + interval '1 hour'")
    warehouse.land("a.csv", "id,name\n2,b\n")
    warehouse.load()
    assert warehouse.rows() == [(2, "b")]


@pytest.mark.parametrize("block", [KEYED, {}])
def test_two_loaders_at_once_load_each_file_once(warehouse: Warehouse, block: dict[str, Any]) -> None:
    warehouse.block = {"files": "*.csv", **block}
    for number in range(20):
        warehouse.land(f"{number:02}.csv", same_length(200))
    start = threading.Barrier(4)

    def load(_: int) -> int:
        loader = warehouse.loader()
        start.wait()
        loader.prepare()
        pending = loader.pending(warehouse.zone.find("*.csv"))
        start.wait()
        return len([*loader.load(pending)])

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(load, range(4))) == 20
    assert len(warehouse.ledger()) == 20
    assert len(warehouse.rows()) == (200 if block else 20 * 200)
    warehouse.check_balance()


def test_a_type_that_the_table_no_longer_has(warehouse: Warehouse) -> None:
    warehouse.land("a.csv", "id,name\n1,a\n")
    warehouse.load()
    warehouse.columns = {"id": "bigint", "name": "text"}
    with pytest.raises(IngestError, match=r"column 'id' is integer in the table, but declared as bigint\.\n"):
        warehouse.load()
    # The same type in other words, and a new column, are fine.
    warehouse.columns = {"id": "int4", "name": "TEXT", "more": "varchar(3)[]"}
    warehouse.land("a.csv", 'id,name,more\n1,a,"{x,y}"\n')
    warehouse.load()
    assert warehouse.rows() == [(1, "a", ["x", "y"])]


@pytest.mark.parametrize(
    "kind",
    ["nonsense", "integer foo", "varchar(0)", "numeric(2000)", "text; drop table events", "int not null"],
)
def test_what_is_no_type(warehouse: Warehouse, kind: str) -> None:
    warehouse.columns = {"id": kind}
    with pytest.raises(IngestError, match=r"^source trial.events: .*\n  Correct its data_type\.$"):
        warehouse.load()


def test_declarations_that_make_no_table(warehouse: Warehouse) -> None:
    warehouse.columns = {"id": "integer", "_source_file": "text"}
    with pytest.raises(
        IngestError, match=r"^source trial.events: the column name '_source_file' is reserved"
    ):
        warehouse.load()
    warehouse.columns, warehouse.block = PAIR, {"files": "*.csv", "key": ["nmae"]}
    with pytest.raises(IngestError, match=r"the key column 'nmae' is not declared\.\n  .*name"):
        warehouse.load()
    target = Target("nowhere", "events", "trial.events", PAIR, ())
    with pytest.raises(IngestError, match=r"cannot write the schema 'nowhere'.*\n  Let it own the schema"):
        Loader(warehouse.connect, target, warehouse.spec, warehouse.zone, "test").prepare()


def test_names_with_per_cent_signs(warehouse: Warehouse) -> None:
    warehouse.query('create schema "%s"')
    warehouse.land("a.csv", "id,name\n1,a\n")
    target = Target("%s", "a%b{}", "trial.events", PAIR, ("id",))
    for _ in range(2):
        loader = Loader(warehouse.connect, target, Files(files="*.csv"), warehouse.zone, "test")
        loader.prepare()
        loaded = [*loader.load(loader.pending(warehouse.zone.find("*.csv")))]
    assert loaded == []
    assert warehouse.query('select id, name from "%s"."a%b{}"') == [(1, "a")]
    warehouse.query('drop schema "%s" cascade')


# What becomes of loaded files


@pytest.mark.parametrize("after_load", ["archive", "delete"])
def test_loaded_files_are_put_away(warehouse: Warehouse, after_load: str) -> None:
    warehouse.block = {"files": "**/*.csv", "after_load": after_load, "done_marker": ".done"}
    archive = warehouse.folder / "_archive"
    for name in ("a.csv", "deep/[a]*.csv"):
        for text in ("1,a", "2,b"):
            warehouse.land(name, f"id,name\n{text}\n")
            warehouse.land(f"{name}.done", "")
            assert len(warehouse.load()) == 1
    left = [path for path in warehouse.folder.rglob("*") if path.is_file() and archive not in path.parents]
    assert left == []
    archived = sorted(path.read_text() for path in archive.rglob("*") if path.is_file())
    expected = [f"id,name\n{text}\n" for text in ("1,a", "1,a", "2,b", "2,b")]
    assert archived == (expected if after_load == "archive" else [])
    assert warehouse.rows() == [(2, "b"), (2, "b")]


@pytest.mark.parametrize("after_load", ["archive", "delete"])
def test_a_file_is_put_away_when_the_process_died_before(warehouse: Warehouse, after_load: str) -> None:
    path = warehouse.land("a.csv", "id,name\n1,a\n")
    warehouse.load()
    assert path.exists()
    warehouse.block["after_load"] = after_load
    assert warehouse.load() == []
    assert not path.exists()
    assert warehouse.rows() == [(1, "a")]


@pytest.mark.parametrize("after_load", ["archive", "delete"])
def test_a_file_that_arrives_meanwhile_is_not_put_away(warehouse: Warehouse, after_load: str) -> None:
    warehouse.block["after_load"] = after_load
    warehouse.land("a.csv", "id,name\n1,a\n")
    loader = warehouse.loader()
    loader.prepare()
    files = warehouse.zone.find("*.csv")
    assert len([*loader.load(files)]) == 1
    path = warehouse.land("a.csv", "id,name\n2,b\n")
    loader.put_away(files)
    assert path.read_text() == "id,name\n2,b\n"
    warehouse.load()
    assert warehouse.rows() == [(2, "b")]
    assert not path.exists()


@pytest.mark.parametrize("after_load", ["archive", "delete"])
@pytest.mark.parametrize("linked", [False, True])
def test_a_corrected_file_that_arrives_right_before_the_rename_is_loaded_later(
    warehouse: Warehouse, after_load: str, linked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes behind all looks at the file, with a marker that says it is complete."""
    warehouse.block |= {"after_load": after_load, "done_marker": ".done"}
    warehouse.land("data/a.txt" if linked else "a.csv", "id,name\n1,a\n")
    if linked:
        (warehouse.folder / "a.csv").symlink_to("data/a.txt")
    warehouse.land("a.csv.done", "")
    replace, pending = Path.replace, [True]

    def late(path: Path, target: Path) -> Path:
        if path.name == "a.csv" and pending:
            pending.clear()
            warehouse.land("data/a.txt" if linked else "a.csv", "id,name\n2,b\n")
            warehouse.land("a.csv.done", "")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", late)
    assert len(warehouse.load()) == 1
    assert not pending
    assert (warehouse.folder / "a.csv").read_text() == "id,name\n2,b\n"
    assert (warehouse.folder / "a.csv").is_symlink() == linked
    assert [each.file for each in warehouse.load()] == ["a.csv"]
    assert warehouse.rows() == [(2, "b")]
    assert [path.name for path in warehouse.folder.iterdir() if path.is_file()] == []


def test_a_file_that_its_writer_replaces_twice_is_not_put_back_over_the_last(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.land("a.csv", "1")
    (file,) = warehouse.zone.find("*.csv")
    replace = Path.replace

    def late(path: Path, target: Path) -> Path:
        warehouse.land("a.csv", "2")
        done = replace(path, target)
        warehouse.land("a.csv", "3")
        return done

    monkeypatch.setattr(Path, "replace", late)
    warehouse.zone.put_away(file, "delete", None)
    assert [path.name for path in warehouse.folder.iterdir()] == ["a.csv"]
    assert (warehouse.folder / "a.csv").read_text() == "3"


LONG = "é" * 125 + ".csv"


@pytest.mark.parametrize("name", [LONG, "a" * 251 + ".csv", "deep/" + "a" * 251 + ".csv"])
def test_a_file_with_the_longest_name_that_there_is_can_be_archived(warehouse: Warehouse, name: str) -> None:
    warehouse.block = {"files": "**/*.csv", "after_load": "archive"}
    for number in (1, 2):
        (warehouse.folder / name).parent.mkdir(exist_ok=True)
        (warehouse.folder / name).write_text(f"id,name\n{number},a\n")
        assert [each.file for each in warehouse.load()] == [name]
    kept = [path for path in (warehouse.folder / "_archive").rglob("*") if path.is_file()]
    assert len(kept) == 2
    assert warehouse.load() == []
    # What begins alike is told apart.
    begin, digit = (
        name[:-6],
        len({archived(LandingFile(f"{name[:-5]}{n}.csv", 1, "v", None, "")) for n in "12"}),
    )
    assert (bool(begin), digit) == (True, 2)


@pytest.mark.parametrize("after_load", ["archive", "delete"])
def test_nothing_is_loaded_that_cannot_be_put_away(warehouse: Warehouse, after_load: str) -> None:
    warehouse.block = {"files": "**/*.csv", "after_load": after_load}
    warehouse.land("deep/a.csv", "id,name\n1,a\n")
    for occupied in ("_archive", "_archive/deep"):
        if after_load == "archive":
            shutil.rmtree(warehouse.folder / "_archive", ignore_errors=True)
            warehouse.land(occupied, "mine")
            with pytest.raises(
                SetupError, match=r"_archive/deep is no folder, but loaded files are to go"
            ) as told:
                warehouse.load()
            assert "set after_load: keep" in str(told.value)
            (warehouse.folder / occupied).unlink()
    files = warehouse.zone.find("**/*.csv")
    (warehouse.folder / "deep").chmod(0o555)
    with as_a_user(warehouse.folder), pytest.raises(FileError) as caught:
        warehouse.zone.check_put_away(files, after_load)
    assert str(caught.value).startswith("deep/a.csv: c")


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(warehouse: Warehouse) -> None:
    warehouse.land("a/a.csv", "id,name\n1,a\n")
    warehouse.land("b/b.csv", "id,name\n2,b\n")
    (warehouse.folder / "b").chmod(0)
    with (
        as_a_user(warehouse.folder),
        pytest.raises(FileError, match=r"/b: cannot be read: Permission denied"),
    ):
        warehouse.zone.find("*/*.csv")
    (warehouse.folder / "b").chmod(0o755)
    assert [file.name for file in warehouse.zone.find("*/*.csv")] == ["a/a.csv", "b/b.csv"]


def test_a_file_that_is_not_loaded_is_not_put_away(warehouse: Warehouse) -> None:
    warehouse.block["after_load"] = "delete"
    path = warehouse.land("a.csv", "id,name\n1,a\n")
    loader = warehouse.loader()
    loader.prepare()
    loader.put_away(warehouse.zone.find("*.csv"))
    assert path.exists()


# How much, and how often it dies


def test_many_tiny_files(warehouse: Warehouse) -> None:
    count = 2_000
    for number in range(count):
        warehouse.land(f"{number}.csv", f"id,name\n{number},a\n")
    began = time.monotonic()
    assert len(warehouse.load()) == count
    loaded = time.monotonic()
    assert warehouse.load() == []
    print(f"{count} files: {loaded - began:.1f} s; again: {time.monotonic() - loaded:.1f} s")
    assert len(warehouse.rows()) == count
    warehouse.check_balance()


LOAD = """
import sys
from pathlib import Path
import psycopg2
from orrery.config.ingest import Files
from orrery.ingest.landing import LandingZone
from orrery.ingest.load import Loader
from orrery.ingest.target import Target

uri, schema, zone, name = sys.argv[1:]
target = Target(schema, "events", "trial.events", {"id": "integer", "name": "text"}, ("id",))
spec = Files(files=name, key=("id",), max_rejected="1%")
loader = Loader(lambda: psycopg2.connect(uri), target, spec, LandingZone(zone), "test")
loader.prepare()
(loaded,) = loader.load(LandingZone(zone).find(name))
status = Path("/proc/self/status").read_text()
print(status.partition("VmHWM:")[2].split()[0], loaded.rows, loaded.merged.rejected)
"""


def test_memory_does_not_grow_with_the_file(warehouse: Warehouse) -> None:
    peaks = []
    for megabytes in (5, 200):
        rows = megabytes * 1000
        path = warehouse.folder / f"{megabytes}.csv"
        with path.open("w") as file:
            file.write("id,name\n")
            for number in range(rows):
                key = "x" if number % 1000 == 0 else number
                file.write(f'{key},"{number:0980}"\n')
        command = [sys.executable, "-c", LOAD, warehouse.uri, warehouse.schema, warehouse.zone.uri, path.name]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        peak, read, rejected = map(int, done.stdout.splitlines()[-1].split())
        assert (read, rejected) == (rows, megabytes)
        peaks.append(peak / 1000)
        path.unlink()
    print(f"peak memory in MB: {peaks}")
    assert peaks[1] - peaks[0] < 60


def test_the_time_for_json_lines_grows_with_their_values_and_not_with_their_keys(
    warehouse: Warehouse,
) -> None:
    """As many values in lines of many keys as in lines of few."""
    warehouse.columns = {"id": "integer"}
    seconds = {}
    for keys in (20, 1000):
        warehouse.block = {"files": f"{keys}.jsonl", "on_new_column": "ignore"}
        names = [f'"some key {number}": "value"' for number in range(keys)]
        line = '{"id": 1, ' + ", ".join(names) + "}\n"
        warehouse.land(f"{keys}.jsonl", line * (100_000 // keys))
        began = time.monotonic()
        (loaded,) = warehouse.load()
        seconds[keys] = time.monotonic() - began
        assert loaded.rows == 100_000 // keys
    print(f"seconds by keys: {seconds}")
    assert seconds[1000] < 5 * seconds[20]


def test_kills_at_any_point_leave_no_trace(warehouse: Warehouse) -> None:
    warehouse.block = {"files": "*.csv", "max_rejected": 10, "after_load": "archive", **KEYED}
    waves = ({name: text(name, "first") for name in "abcdef"}, {name: text(name, "second") for name in "bde"})
    clean, seconds = [], []
    for wave in waves:
        land(warehouse, wave)
        began = time.monotonic()
        assert ended(attempt(warehouse)) == 0
        seconds.append(time.monotonic() - began)
        clean.append(outcome(warehouse))
    assert len(clean[0][0]) == 3000 + 5 * 1000
    assert clean[0] != clean[1]
    chance, killed = random.Random(4), 0
    for _ in range(5):
        warehouse.query("drop table events, events__rejected, _orrery_ledger")
        shutil.rmtree(warehouse.folder)
        warehouse.folder.mkdir()
        for wave, expected, duration in zip(waves, clean, seconds, strict=True):
            land(warehouse, wave)
            for _ in range(5):
                process = attempt(warehouse)
                # What an earlier one has loaded takes no time any more.
                left = len([*warehouse.folder.glob("*.csv")]) / len(wave)
                process.join(chance.uniform(0, duration) * left)
                process.kill()
                process.join()
                killed += process.exitcode == -signal.SIGKILL
            assert ended(attempt(warehouse)) == 0
            assert outcome(warehouse) == expected
            assert [*warehouse.folder.glob("*.csv")] == []
            assert len([*(warehouse.folder / "_archive").iterdir()]) == len(expected[2])
            warehouse.check_balance()
    print(f"{killed} of 50 were killed")
    assert killed >= 25


def text(name: str, version: str) -> str:
    """3000 rows, of which 2000 keys are in the next file too, and three bad ones."""
    first = 1000 * (ord(name) - ord("a"))
    rows = [f"{key},{name} {version} {key:0200}" for key in range(first, first + 3000)]
    if version == "second":
        # What was there at the end is gone.
        rows = rows[:2500]
    return "\n".join(["id,name", "x,bad", *rows, "1", 'y,"bad\nbad"', ""])


def land(warehouse: Warehouse, files: dict[str, str]) -> None:
    for name, content in files.items():
        warehouse.land(f"{name}.csv", content)


def attempt(warehouse: Warehouse) -> Any:
    """A process that loads, started."""
    process = multiprocessing.get_context("fork").Process(target=warehouse.load)
    process.start()
    return process


def ended(process: Any) -> int | None:
    """The exit code of an attempt that nobody kills."""
    process.join(300)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("the load does not end")
    code: int = process.exitcode
    return code


def outcome(warehouse: Warehouse) -> tuple[list[tuple[Any, ...]], ...]:
    """What is in the three tables but for ids and stamps."""
    return (
        warehouse.rows("id, name, _source_file, _source_id, _row_number"),
        warehouse.query(
            "select _source_file, _source_id, _row_number, _line, reason, content from events__rejected"
            " order by _source_file, _row_number"
        ),
        warehouse.query(
            "select table_name, file, source_id, content_hash, bytes, rows_read, inserted, updated, rejected,"
            " run_id from _orrery_ledger order by load_id"
        ),
    )
