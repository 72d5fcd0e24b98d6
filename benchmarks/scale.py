"""How much faster more Celery workers on this machine get through many tasks, and what limits them.

    python benchmarks/scale.py [--workers N ...] [--slots S] [--files F] [--models M] [--smoke]

It needs redis-server. It generates a project, starts a stack of its own with CeleryExecutor for it, and
removes both at the end.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg2

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "include"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from generate import generate_landed
from harness import BenchmarkError, Figures, call, complete, started, tree_cpu

from orrery.cli.airflow_api import FINISHED_RUN, AirflowApi, Json
from orrery.config.errors import OrreryError
from orrery.config.stages import BUILD, INGEST
from orrery.local import Stack
from services.redis import RedisServer

# What else runs on the machine.
OTHERS = "other processes"
ROWS = 1000
# The share from which on something is called the limit.
FULL = 0.85
POLL_SECONDS = 1.0
PARSE_SECONDS = 180
READY_SECONDS = 120
LONGEST_SECONDS = 1800
# More than any number of slots here: only the workers are to limit the tasks.
PARALLELISM = "64"
HEADER = """\
{pipelines} pipelines at the same time, together {files} files of {rows} rows, each for a table of its own,
and {models} models. A load and a build are a task on a worker each; the nodes of a build are tasks that take
no worker. Wall seconds are from the first trigger to the end of the last run; tables are new each time. One
pipeline runs before, and is not counted."""


@dataclass(frozen=True)
class Measured:
    """The runs of all pipelines with some workers.

    `cpu` are CPU seconds by component, and of OTHERS; `busy` is the share (0 to 1)
    of the slots' time in which a task ran, `tasks` the number of tasks on workers.
    """

    workers: int
    wall: float
    tasks: int
    nodes: int
    busy: float
    cpu: Figures

    @property
    def per_minute(self) -> float:
        """Tasks on workers."""
        return self.tasks / self.wall * 60


def main() -> int:
    """Print figures per number of workers and a summary; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3], metavar="N")
    parser.add_argument("--slots", type=int, default=2, metavar="S", help="of each worker; default 2")
    parser.add_argument("--files", type=int, default=300, metavar="F", help="default 300")
    parser.add_argument("--models", type=int, default=200, metavar="M", help="default 200")
    parser.add_argument("--pipelines", type=int, default=10, metavar="P", help="that share them; default 10")
    parser.add_argument("--smoke", action="store_true", help="once and tiny: to see that all of it works")
    options = parser.parse_args()
    if options.smoke:
        options.workers, options.pipelines, options.files, options.models = [1], 1, 2, 2
    # Ends like Ctrl-C: the stack is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(HEADER.format(rows=ROWS, **vars(options)), flush=True)
    measured: list[Measured] = []
    try:
        with prepared(options.pipelines, options.files, options.models) as bench:
            bench.wait_until_parsed()
            if not options.smoke:
                bench.warm_up(options.slots)
            for workers in sorted(options.workers):
                load = os.getloadavg()[0]
                bench.grow(workers, options.slots)
                measured.append(bench.run(workers, options.slots))
                show(measured[-1], measured[0], options.slots, load)
    except OrreryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; everything is stopped and removed.", file=sys.stderr)
        return 130
    return 0


@contextmanager
def prepared(pipelines: int, files: int, models: int) -> Iterator[Bench]:
    """A running stack with a project of pipelines that share files and models, and no worker yet."""
    with (
        RedisServer() as redis,
        tempfile.TemporaryDirectory(prefix="orrery-benchmark-") as folder,
        ExitStack() as workers,
    ):
        root = Path(folder)
        # The database's user, if it is another one, has to pass through.
        root.chmod(0o755)
        names = generate_landed(root / "dbt", pipelines, files // pipelines, models // pipelines, ROWS)
        complete(
            root,
            AIRFLOW__CORE__EXECUTOR="CeleryExecutor",
            AIRFLOW__CORE__PARALLELISM=PARALLELISM,
            AIRFLOW__CELERY__BROKER_URL=redis.url,
            ORRERY_DBT_QUEUE="dbt",
        )
        with started(root) as stack:
            call([sys.executable, "-m", "orrery.cli", "build"])
            info = stack.info()
            assert info
            with AirflowApi(info.url, info.username, info.password) as api:
                yield Bench(root, stack, api, names, workers)
                workers.close()


class Bench:
    """Runs the pipelines of a project with more and more workers."""

    def __init__(
        self, root: Path, stack: Stack, api: AirflowApi, names: list[str], workers: ExitStack
    ) -> None:
        self._root, self._stack, self._api, self._names, self._open = root, stack, api, names, workers
        self._parts = {part.name: [psutil.Process(part.pid)] for part in stack.status() if part.pid}
        self._parts["workers"] = []

    def grow(self, workers: int, slots: int) -> None:
        """Start workers until there are so many, and wait until they take tasks."""
        logs = []
        while len(self._parts["workers"]) < workers:
            log = self._root / f"worker-{len(self._parts['workers'])}.log"
            command = [sys.executable, "-m", "orrery.cli", "worker", "--slots", str(slots)]
            with log.open("wb") as output:
                process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
            self._open.callback(process.wait)
            self._open.callback(process.kill)
            self._parts["workers"].append(psutil.Process(process.pid))
            logs.append(log)
        deadline = time.monotonic() + READY_SECONDS
        while not all(" ready" in log.read_text() for log in logs):
            if time.monotonic() > deadline:
                raise BenchmarkError(f"A worker does not become ready.\n{logs[0].read_text()[-4000:]}")
            time.sleep(0.5)

    def wait_until_parsed(self) -> None:
        """Wait until Airflow has all DAGs."""
        deadline = time.monotonic() + PARSE_SECONDS
        while not all(self._api.dag(name) for name in self._names):
            if time.monotonic() > deadline:
                errors = "\n".join(error["stack_trace"] for error in self._api.import_errors())
                raise BenchmarkError(f"The DAGs are not parsed within {PARSE_SECONDS} s.\n{errors}")
            time.sleep(1)

    def warm_up(self, slots: int) -> None:
        """One run of one pipeline, which is not counted."""
        self.grow(1, slots)
        self._runs(self._names[:1])

    def run(self, workers: int, slots: int) -> Measured:
        """All pipelines at once, from files that are new to them."""
        self._forget()
        before, began = self._cpu(), time.time()
        runs = self._runs(self._names)
        wall = time.time() - began
        cpu = {name: total - before[name] for name, total in self._cpu().items()}
        tasks = [task for run in runs for task in self._api.task_instances(run["dag_id"], run["dag_run_id"])]
        on_workers = [task for task in tasks if _runs_on_worker(task)]
        self._check(tasks)
        at_work = sum(task["duration"] for task in on_workers)
        machine = cpu.pop("machine")
        cpu[OTHERS] = max(0.0, machine - sum(cpu.values()))
        nodes = len([task for task in tasks if task["operator"] == "BuiltNodeOperator"])
        return Measured(workers, wall, len(on_workers), nodes, at_work / (wall * workers * slots), cpu)

    def _runs(self, names: list[str]) -> list[Json]:
        """Runs of pipelines that begin together, when all of them have ended."""
        ids = {name: self._api.trigger(name, {}) for name in names}
        deadline = time.monotonic() + LONGEST_SECONDS
        ended: dict[str, Json] = {}
        while len(ended) < len(ids):
            for name in ids.keys() - ended.keys():
                run = self._api.run(name, ids[name])
                if run["state"] not in FINISHED_RUN:
                    break  # one question at a time, so that asking costs next to nothing
                ended[name] = run
            if time.monotonic() > deadline:
                raise BenchmarkError(f"Not done within {LONGEST_SECONDS} s.")
            time.sleep(POLL_SECONDS)
        failed = [name for name, run in ended.items() if run["state"] != "success"]
        if failed:
            raise BenchmarkError(f"Runs of these pipelines have failed: {', '.join(failed)}")
        return [ended[name] for name in names]

    def _forget(self) -> None:
        """Drop the tables into which files were loaded, and with them that they were."""
        with closing(psycopg2.connect(self._stack.warehouse_dsn("loader"))) as link, link.cursor() as cursor:
            link.autocommit = True
            cursor.execute("select format('drop table landing.%I cascade', tablename) from pg_tables"
                           " where schemaname = 'landing'")  # fmt: skip
            for (sql,) in cursor.fetchall():
                cursor.execute(sql)

    def _check(self, tasks: list[Json]) -> None:
        """Every file is in its table, once, and every task has succeeded."""
        states = {task["state"] for task in tasks}
        with closing(psycopg2.connect(self._stack.warehouse_dsn("loader"))) as link, link.cursor() as cursor:
            cursor.execute("select count(*), sum(inserted) from landing._orrery_ledger")
            found = cursor.fetchone()
        loads = len([task for task in tasks if _is_load(task)])
        if states != {"success"} or found != (loads, loads * ROWS):
            raise BenchmarkError(f"Not what was to be done: states {states}; files and rows {found}")

    def _cpu(self) -> Figures:
        """CPU seconds so far by component, and of the whole machine."""
        machine = psutil.cpu_times()
        idle = machine.idle + getattr(machine, "iowait", 0.0) + getattr(machine, "steal", 0.0)
        parts = {name: sum(map(tree_cpu, processes)) for name, processes in self._parts.items()}
        return parts | {"machine": _total(machine) - idle}


def _total(times: object) -> float:
    """The seconds of a line of the kernel's figures; what guests used is part of another one."""
    fields = times._asdict()  # type: ignore[attr-defined]
    return float(sum(value for name, value in fields.items() if not name.startswith("guest")))


def _is_load(task: Json) -> bool:
    return str(task["task_id"]).startswith(f"{INGEST}.")


def _runs_on_worker(task: Json) -> bool:
    return task["task_id"] == BUILD or _is_load(task)


def show(run: Measured, first: Measured, slots: int, load: float) -> None:
    """Print the figures of one number of workers, beside those of the least."""
    cores = os.cpu_count() or 1
    print(f"\n== {run.workers} workers of {slots} slots (load average before: {load:.1f})")
    print(
        f"  {run.wall:.1f} s for {run.tasks} tasks on workers and {run.nodes} nodes: "
        f"{run.per_minute:.0f} tasks per minute, {run.per_minute / first.per_minute:.2f} x those of "
        f"{first.workers}; slots are busy for {run.busy:.0%} of the time"
    )
    print(f"  {'CPU':20} {'seconds':>8} {f'of {cores} cores':>11} {'ms per task':>12}")
    for name, cpu in sorted(run.cpu.items(), key=lambda figure: -figure[1]):
        share, each = cpu / (run.wall * cores), cpu / run.tasks * 1000
        print(f"  {name:20} {cpu:>8.1f} {share:>11.0%} {each:>12.0f}")
    total = sum(run.cpu.values())
    print(f"  {'all':20} {total:>8.1f} {total / (run.wall * cores):>11.0%}")
    each = sum(cpu for name, cpu in run.cpu.items() if name != OTHERS) / run.tasks
    print(
        f"  {each * 1000:.0f} ms of CPU per task without {OTHERS}: {cores} cores that do nothing else get "
        f"through at most {60 * cores / each:.0f} tasks per minute"
    )
    print(f"  limit: {limit(run.busy, total / (run.wall * cores))}", flush=True)


def limit(busy: float, cpu: float) -> str:
    """What keeps the tasks from ending sooner.

    :param busy: the share of the slots' time in which a task ran
    :param cpu: the share of the machine's cores that was in use
    """
    if cpu >= FULL:
        return "the CPU; more workers have to bring cores of their own"
    if busy >= FULL:
        return "the slots; more workers, or more slots, get through more"
    return "the way of each task to a free slot, by scheduler and queue; more slots shorten the wait"


if __name__ == "__main__":
    sys.exit(main())
