"""How long a pipeline takes in Airflow, beside dbt alone and plain Cosmos, and where the time goes.

    python benchmarks/execution.py [--nodes N ...] [--repeat R] [--cosmos-at N] [--triggerer-at N] [--smoke]

For each size it generates a project, starts a stack of its own for it, and removes both at the end.
What is compared takes turns, so that a machine that is busy for a while disturbs all.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import psutil
from baselines import COSMOS, LIMIT_SECONDS, TRIGGERER, add_cosmos, add_plugins, add_triggerer
from generate import generate_project
from harness import BenchmarkError, Figures, call, complete, seconds, started, tree_cpu

from orrery.cli.airflow_api import FINISHED_RUN, AirflowApi, Json
from orrery.cli.follow import is_marker
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.stages import BUILD
from orrery.local import Stack
from orrery.manifest.store import ManifestStore

PIPELINE = "bench"
SMOKE_NODES = 2
POLL_SECONDS = 0.2
PARSE_SECONDS = 120
LONGEST_SECONDS = 3600
PHASES = (
    "trigger -> start of the build",
    "-> start of the first node",
    "-> end of the last node",
    "-> end of the build",
    "-> end of the run",
)
(VARIANT,) = TRIGGERER
# What the wall seconds of each are a multiple of.
COMPARED = {
    "Orrery": "dbt build",
    VARIANT: "Orrery",
    "Orrery beside Cosmos": "Orrery",
    **dict.fromkeys(COSMOS, "Orrery beside Cosmos"),
}
HEADER = f"""\
Wall seconds: of dbt, the life of its process; of DAGs, from the POST that triggers the run until a poll
(every {POLL_SECONDS} s) sees its end. One run of each comes first and is not counted, but Cosmos gets no
warm-up. All DAGs run in Orrery's stack, whose workers have dbt and Cosmos imported already. While
Cosmos's DAGs are there, Airflow parses them again and again: so Orrery is measured first without them, and
once more in turns with them. The {VARIANT} is one dbt build too, but each node is a task of its own in
Airflow's triggerer. CPU seconds of a run include what an idle Airflow needs."""


@dataclass(frozen=True)
class Measured:
    """One run: wall and CPU in seconds (CPU by process), memory in MB, `phases` in seconds by PHASES."""

    wall: float
    cpu: Figures
    phases: Figures
    airflow: float = 0.0  # seconds from start to end of the run as Airflow has it
    memory: Figures = field(default_factory=dict)


# By name; a Cosmos mode that takes longer than LIMIT_SECONDS has none.
Runs = dict[str, list[Measured]]


def main() -> int:
    """Print figures per size and a summary; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[50, 200, 500, 1000], metavar="N")
    parser.add_argument("--repeat", type=int, default=2, metavar="R", help="runs of each; default 2")
    for name, up_to in {"cosmos": 50, "triggerer": 500}.items():
        about = f"{name} too, up to N nodes; default {up_to}"
        parser.add_argument(f"--{name}-at", type=int, default=up_to, metavar="N", help=about)
    parser.add_argument("--smoke", action="store_true", help="once and tiny: to see that all of it works")
    options = parser.parse_args()
    if options.smoke:
        options.nodes, options.repeat = [SMOKE_NODES], 1
    # Ends like Ctrl-C: the stack is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(HEADER, flush=True)
    summary = ["\n== Summary (medians)"]
    beyond: dict[int, float] = {}
    try:
        for nodes in options.nodes:
            load = os.getloadavg()[0]
            cosmos, triggerer = nodes <= options.cosmos_at, nodes <= options.triggerer_at
            warm_up = 0 if options.smoke else 1
            runs = measure(nodes, options.repeat, warm_up, cosmos=cosmos, triggerer=triggerer)
            print(f"\n== {nodes} nodes (load average before: {load:.1f})")
            line, beyond[nodes] = show(nodes, runs)
            summary.append(line)
    except OrreryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; everything is stopped and removed.", file=sys.stderr)
        return 130
    finally:
        print("\n".join([*summary, *growth(beyond)]), flush=True)
    return 0


def growth(beyond: dict[int, float]) -> list[str]:
    """How the CPU seconds beyond dbt's grow with the nodes: the line that fits best, and how well it does."""
    if len(beyond) < 3:
        return []
    slope, begin = statistics.linear_regression(list(beyond), list(beyond.values()))
    off = max(abs(seconds - begin - slope * nodes) for nodes, seconds in beyond.items())
    return [f"CPU beyond dbt's: {begin:.1f} s and {slope * 1000:.0f} ms per node, within {off:.1f} s"]


def measure(nodes: int, repeat: int, warm_up: int, *, cosmos: bool, triggerer: bool) -> Runs:
    """All runs with a project of `nodes` nodes."""
    with tempfile.TemporaryDirectory(prefix="orrery-benchmark-") as folder:
        root = Path(folder)
        # The database's user, if it is another one, has to pass through.
        root.chmod(0o755)
        make_project(root, nodes)
        with started(root) as stack:
            call([sys.executable, "-m", "orrery.cli", "build"])
            info = stack.info()
            assert info
            with AirflowApi(info.url, info.username, info.password) as api:
                bench = Bench(root, stack, api)
                runs = bench.compare(repeat, warm_up, triggerer=triggerer)
                return runs | bench.compare_with_cosmos(repeat) if cosmos else runs


def make_project(root: Path, nodes: int) -> None:
    """Write a project with one pipeline, and let this process's environment point to it."""
    add_plugins(root)
    generate_project(root / "dbt", nodes)
    (root / "dbt" / "pipelines").mkdir()
    (root / "dbt" / "pipelines" / f"{PIPELINE}.yml").write_text("select: tag:bench\nschedule: none\n")
    complete(root, AIRFLOW__CORE__PLUGINS_FOLDER=str(root / "plugins"))


class Bench:
    """Makes and measures runs in one project with a running stack."""

    def __init__(self, root: Path, stack: Stack, api: AirflowApi) -> None:
        self.root = root
        self.stack = stack
        self.api = api
        self.parts = {part.name: psutil.Process(part.pid) for part in stack.status() if part.pid}

    def compare(self, repeat: int, warm_up: int, *, triggerer: bool) -> Runs:
        """dbt, Orrery and the triggerer variant in turns, after `warm_up` runs of each that do not count."""
        self.wait_until_parsed(PIPELINE, ManifestStore(Project(self.root)).path(PIPELINE).stat().st_mtime)
        runs: Runs = {"dbt build": [], "Orrery": []}
        if triggerer:
            add_triggerer(self.root)
            self.wait_until_parsed(TRIGGERER[VARIANT], 0)
            runs[VARIANT] = []
        for _ in range(repeat + warm_up):
            runs["dbt build"].append(self.dbt_build())
            runs["Orrery"].append(self.dag_run(PIPELINE))
            if triggerer:
                runs[VARIANT].append(self.dag_run(TRIGGERER[VARIANT]))
        return {name: measured[warm_up:] for name, measured in runs.items()}

    def compare_with_cosmos(self, repeat: int) -> Runs:
        """Orrery and Cosmos in turns; a mode that failed or took too long is not tried again."""
        add_cosmos(self.root)
        for dag_id in COSMOS.values():
            self.wait_until_parsed(dag_id, 0)
        runs: Runs = {"Orrery beside Cosmos": [], **{mode: [] for mode in COSMOS}}
        given_up: set[str] = set()
        for _ in range(repeat):
            runs["Orrery beside Cosmos"].append(self.dag_run(PIPELINE))
            for mode in [mode for mode in COSMOS if mode not in given_up]:
                try:
                    runs[mode].append(self.dag_run(COSMOS[mode], LIMIT_SECONDS))
                except (TimeoutError, BenchmarkError) as error:
                    print(f"{mode}: {error}", file=sys.stderr)
                    given_up.add(mode)
                    # Tasks of a run that Airflow gave up end at their next sign of life.
                    time.sleep(15)
        return runs | {mode: [] for mode in given_up}

    def wait_until_parsed(self, dag_id: str, since: float) -> None:
        """Wait until Airflow has read the DAG after `since` (seconds since the epoch)."""
        deadline = time.monotonic() + PARSE_SECONDS
        while time.monotonic() < deadline:
            dag = self.api.dag(dag_id)
            if dag and not dag["is_stale"] and seconds(dag["last_parsed_time"]) > since:
                return
            time.sleep(0.5)
        errors = "\n".join(error["stack_trace"] for error in self.api.import_errors())
        raise BenchmarkError(f"{dag_id}: not parsed within {PARSE_SECONDS} s\n{errors}")

    def dbt_build(self) -> Measured:
        """dbt alone, with a target folder of its own so that the manifest of the DAGs stays as it is."""
        dbt, target = self.root / "dbt", self.root / "shell_target"
        folders = {"project-dir": dbt, "profiles-dir": dbt, "target-path": target, "log-path": target}
        arguments = [f"--{option}={folder}" for option, folder in folders.items()]
        before, children, began = self.cpu(), os.times()[2:4], time.time()
        call([str(Path(sys.executable).parent / "dbt"), "build", "--quiet", *arguments], self.stack.dbt_env())
        ended, own = time.time(), sum(os.times()[2:4]) - sum(children)
        cpu = {"dbt": own, **self.cpu_since(before)}
        results = json.loads((target / "run_results.json").read_text())["results"]
        timings = [timing for result in results for timing in result["timing"]]
        first = min(seconds(timing["started_at"]) for timing in timings)
        last = max(seconds(timing["completed_at"]) for timing in timings)
        return Measured(ended - began, cpu, between([began, first, last, ended], PHASES[1:4]))

    def dag_run(self, dag_id: str, limit: float = LONGEST_SECONDS) -> Measured:
        """A run of a DAG; raises TimeoutError when Airflow ended it because it took `limit` seconds."""
        before, began = self.cpu(), time.time()
        run_id = self.api.trigger(dag_id, {})
        memory = {"api-server": 0.0, "scheduler": 0.0}
        while (run := self.api.run(dag_id, run_id))["state"] not in FINISHED_RUN:
            memory = {name: max(mb, self.parts[name].memory_info().rss / 1e6) for name, mb in memory.items()}
            if time.time() - began > limit + 120:
                raise BenchmarkError(f"{dag_id}: the run {run_id} does not end")
            time.sleep(POLL_SECONDS)
        wall, cpu = time.time() - began, self.cpu_since(before)
        airflow = seconds(run["end_date"]) - seconds(run["start_date"])
        tasks = self.api.task_instances(dag_id, run_id)
        if run["state"] != "success":
            if airflow >= limit:
                raise TimeoutError(f"not done after {limit} s")
            raise BenchmarkError(self.explain(run, tasks))
        phases = between(moments_of(began, tasks, run), PHASES) if dag_id == PIPELINE else {}
        return Measured(wall, cpu, phases, airflow, memory)

    def explain(self, run: Json, tasks: list[Json]) -> str:
        """Which tasks of a run failed, and the end of the log of the first."""
        failed = [task for task in tasks if task["state"] == "failed"]
        names = ", ".join(task["task_id"] for task in failed) or "none"
        log = "\n".join(self.api.log_tail(failed[0], 30)) if failed else ""
        return f"{run['dag_id']}: the run {run['dag_run_id']} failed; failed tasks: {names}\n{log}"

    def cpu(self) -> Figures:
        """CPU seconds so far by component, of its process and all below it, ended ones included."""
        try:
            return {name: tree_cpu(process) for name, process in self.parts.items()}
        except psutil.NoSuchProcess:
            raise BenchmarkError("a part of the stack has died and was restarted") from None

    def cpu_since(self, before: Figures) -> Figures:
        """CPU seconds by component since `before`."""
        return {name: total - before[name] for name, total in self.cpu().items()}


def moments_of(began: float, tasks: list[Json], run: Json) -> list[float]:
    """What PHASES lie between in a run of Orrery, in seconds since the epoch; nodes have dbt's own times."""
    build = next(task for task in tasks if task["task_id"] == BUILD)
    nodes = [task for task in tasks if task is not build and not is_marker(task)]
    first = min(seconds(task["start_date"]) for task in nodes)
    last = max(seconds(task["end_date"]) for task in nodes)
    return [
        began,
        seconds(build["start_date"]),
        first,
        last,
        seconds(build["end_date"]),
        seconds(run["end_date"]),
    ]


def between(moments: list[float], names: tuple[str, ...]) -> Figures:
    """The seconds from each moment to the next, by name."""
    return dict(zip(names, (end - start for start, end in pairwise(moments)), strict=True))


def median(figures: list[Figures]) -> Figures:
    """The median of each figure."""
    return {name: statistics.median(each[name] for each in figures) for name in figures[0]}


def show(nodes: int, runs: Runs) -> tuple[str, float]:
    """Print the figures of one size; returns its line of the summary, and the CPU seconds beyond dbt's."""
    walls = show_walls(runs)
    overhead = show_cpu(nodes, runs)
    show_phases(runs)
    memory = median([run.memory for run in runs["Orrery"]])
    shown = ", ".join(f"{name} {megabytes:.0f}" for name, megabytes in memory.items())
    print(f"  peak resident memory in MB of the main processes: {shown}", flush=True)
    per_node = overhead / nodes * 1000
    return f"{nodes:>5} nodes: {walls}; CPU beyond dbt's: {per_node:.0f} ms per node; MB: {shown}", overhead


def show_walls(runs: Runs) -> str:
    """Print the wall seconds and their ratios; returns them in short."""
    print(f"  {'wall seconds':22} {'median':>8} {'Airflow':>8}  ratio (all walls)")
    medians: Figures = {}
    short = []
    for name, measured in runs.items():
        if not measured:
            print(f"  {name:22} failed, or not done after {LIMIT_SECONDS} s; given up")
            short.append(f"{name} given up")
            continue
        wall = medians[name] = statistics.median(run.wall for run in measured)
        airflow = statistics.median(run.airflow for run in measured) or ""
        other = COMPARED.get(name)
        ratio = f"{wall / medians[other]:.2f} x {other}" if other else ""
        walls = " ".join(f"{run.wall:.1f}" for run in measured)
        print(f"  {name:22} {wall:>8.1f} {airflow and f'{airflow:.1f}':>8}  {ratio} ({walls})")
        short.append(f"{name} {wall:.1f} s" + (f" = {ratio}" if ratio else ""))
    return ", ".join(short)


def show_cpu(nodes: int, runs: Runs) -> float:
    """Print the CPU seconds by process; returns Orrery's beyond those of dbt beside an idle Airflow."""

    def row(name: str, *figures: str) -> None:
        print(f"  {name:30}" + "".join(f" {figure:>18}" for figure in figures))

    used = {
        name: median([run.cpu for run in runs[name]])
        for name in ("dbt build", "Orrery", VARIANT)
        if name in runs
    }
    row("CPU seconds", *used)
    for process in used["dbt build"]:
        row(process, *(f"{cpu.get(process, 0):.1f}" for cpu in used.values()))
    total = {name: sum(cpu.values()) for name, cpu in used.items()}
    beyond = {name: seconds - total["dbt build"] for name, seconds in total.items()}
    row("all", *(f"{seconds:.1f}" for seconds in total.values()))
    row("beyond dbt, ms per node", "", *(f"{beyond[name] / nodes * 1000:.0f}" for name in list(used)[1:]))
    print("  In a DAG run dbt is a child of the scheduler. Beside dbt build Airflow is there, but idle.")
    return beyond["Orrery"]


def show_phases(runs: Runs) -> None:
    """Print where the wall seconds go."""
    dbt, ours = (median([run.phases for run in runs[name]]) for name in ("dbt build", "Orrery"))
    print(f"  {'where the seconds go':30} {'dbt build':>10} {'Orrery':>10}")
    for name in PHASES:
        alone = f"{dbt[name]:.1f}" if name in dbt else ""
        print(f"  {name:30} {alone:>10} {ours[name]:>10.1f}")


if __name__ == "__main__":
    sys.exit(main())
