"""How long Airflow takes to make the DAG of a dbt project, and how much memory; and dbt, to parse it.

    python benchmarks/parse.py [--smoke | --vars] [nodes ...]

Compares Orrery with plain Cosmos (DbtDag over dbt's manifest.json with its default settings) on generated
projects. Each figure comes from a process of its own; the two take turns, so that a machine that is busy
for a while disturbs both. `cold` is the first load after the imports, `warm` the median of five
further loads in the same process, `memory` the peak over that of a process that only imports.

With `--vars`: the CPU time of processes that let dbt parse the project, as a run does before its first node.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = (100, 1_000, 5_000)
SMOKE_SIZES = (10,)
ROUNDS = 2
WARM_LOADS = 5
PROFILES = """\
orrery:
  target: dev
  outputs:
    dev: {type: postgres, host: 127.0.0.1, port: 1, user: u, password: p, dbname: d, schema: s}
"""

# What a run begins with, in this order. The generated models read `uri` and `day` in one of 50,
# dbt_project.yml reads `color`.
NOTHING = "everything, by dbt alone"
RUNS: dict[str, dict[str, str]] = {
    NOTHING: {},
    "no vars": {},
    "a new uri": {"uri": "s3://bucket/new"},
    "a new value of one": {"day": "2026-01-31"},
    "the same again": {"day": "2026-01-31"},
    "a new color": {"color": "blue"},
    "the same color, a new uri": {"color": "blue", "uri": "s3://bucket/other"},
}

Figures = dict[str, float]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("nodes", type=int, nargs="*", default=SIZES, metavar="N")
    parser.add_argument("--smoke", action="store_true", help="once and tiny: to see that all of it works")
    parser.add_argument(
        "--vars", action="store_true", help="dbt's parses for runs with vars, and nothing else"
    )
    options = parser.parse_args()
    sizes, rounds = (SMOKE_SIZES, 1) if options.smoke else (options.nodes, ROUNDS)
    if options.vars or options.smoke:
        for nodes in sizes:
            compare_vars(nodes)
    if options.vars:
        return
    print(f"{'nodes':>6} {'':8} {'cold s':>8} {'warm s':>8} {'memory MB':>10} {'tasks':>7}")
    with tempfile.TemporaryDirectory(prefix="orrery-benchmark-") as folder:
        for nodes in sizes:
            show(nodes, compare(Path(folder), nodes, rounds))


def compare(folder: Path, nodes: int, times: int) -> dict[str, Figures]:
    """The figures of both, by name: the best of several rounds."""
    project = folder / str(nodes)
    in_process("build", project, folder, nodes)
    rounds: dict[str, list[Figures]] = {"orrery": [], "cosmos": []}
    for _ in range(times):
        for name, measured in rounds.items():
            loaded = in_process(name, project, folder, WARM_LOADS)
            imported = in_process(name, project, folder, -1)
            measured.append({**loaded, "memory": loaded["memory"] - imported["memory"]})
    return {
        name: {key: min(figures[key] for figures in measured) for key in measured[0]}
        for name, measured in rounds.items()
    }


def compare_vars(nodes: int) -> None:
    """Print what runs with several vars cost."""
    with tempfile.TemporaryDirectory(prefix="orrery-benchmark-") as name:
        folder = Path(name)
        in_process("build_with_vars", folder / "project", folder, nodes)
        for number, run in enumerate(RUNS):
            figures = in_process("parse", folder / "project", folder, number)
            print(f"{nodes:>6} {run:28} {figures['cpu']:>8.1f} CPU s {figures['parsed']:>7.0f} files parsed")
    print()


def show(nodes: int, found: dict[str, Figures]) -> None:
    """Print three lines: Orrery, Cosmos, and Orrery as a share of Cosmos."""
    for name, figures in found.items():
        print(
            f"{nodes:>6} {name:8} {figures['cold']:>8.2f} {figures['warm']:>8.2f} "
            f"{figures['memory']:>10.0f} {figures['tasks']:>7.0f}"
        )
    share = {key: found["orrery"][key] / found["cosmos"][key] for key in found["orrery"]}
    print(f"{'':6} {'ratio':8} {share['cold']:>8.2f} {share['warm']:>8.2f} {share['memory']:>10.2f}\n")


def in_process(what: str, project: Path, folder: Path, number: int) -> Figures:
    """Call the function `what` of this file in a new process, and return what it prints."""
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "include"), str(ROOT / "benchmarks")]),
        "ORRERY_PROJECT_DIR": str(project),
        "AIRFLOW_HOME": str(folder / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
        "AIRFLOW__COSMOS__ENABLE_TELEMETRY": "False",
        "AIRFLOW__COSMOS__ENABLE_DAG_VERSIONING": "False",
    }
    for name in ("ORRERY_TARGET_PATH", "DBT_PROFILES_DIR", "DBT_TARGET", "ORRERY_DBT_PACKAGES"):
        env.pop(name, None)
    code = f"import parse, sys; parse.{what}(parse.Path(sys.argv[1]), int(sys.argv[2]))"
    command = [sys.executable, "-P", "-c", code, str(project), str(number)]
    done = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def build(project: Path, nodes: int) -> None:
    """Generate the project, and build its manifests."""
    generate(project / "dbt", nodes)
    build_generated(project)


def build_with_vars(project: Path, nodes: int) -> None:
    """The same, of a project that reads vars."""
    dbt = project / "dbt"
    generate(dbt, nodes)
    settings = dbt / "dbt_project.yml"
    colored = "models:\n  +docs: {node_color: \"{{ var('color', 'red') }}\"}\n"
    settings.write_text(settings.read_text().replace("models:\n", colored))
    for path in sorted(dbt.rglob("*.sql"))[::50]:
        path.write_text(path.read_text() + "-- {{ var('uri', '') }} {{ var('day', '') }}\n")
    build_generated(project)


def parse(project: Path, number: int) -> None:
    """Let dbt parse the project for one of RUNS, and print the CPU time of this process."""
    from orrery.config.project import Project
    from orrery.manifest import watched_vars
    from orrery.manifest.dbt import Dbt

    name, variables = list(RUNS.items())[number]
    parsed: set[str] = set()
    parsing = watched_vars.WatchedVars.parsing

    def noted(self: watched_vars.WatchedVars, file_id: str | None) -> AbstractContextManager[None]:
        parsed.update([file_id] if file_id else [])
        return parsing(self, file_id)

    watched_vars.WatchedVars.parsing = noted  # type: ignore[method-assign]
    base = project / "nothing" if name == NOTHING else None
    Dbt(Project(project), target_dir=project / f"run{number}", variables=variables, base=base).manifest  # noqa: B018
    used = resource.getrusage(resource.RUSAGE_SELF)
    print("\n" + json.dumps({"cpu": used.ru_utime + used.ru_stime, "parsed": len(parsed)}))


def generate(dbt: Path, nodes: int) -> None:
    """Write the project."""
    from generate import generate_project

    generate_project(dbt, nodes)
    (dbt / "profiles.yml").write_text(PROFILES)
    (dbt / "pipelines").mkdir()
    (dbt / "pipelines" / "bench.yml").write_text("select: tag:bench\n")


def build_generated(project: Path) -> None:
    """Build the manifests, and print how many nodes they have."""
    from orrery.config.project import Project
    from orrery.manifest.build import build_manifests

    print("\n" + json.dumps(dict(build_manifests(Project(project), lambda line: None).nodes)))


def orrery(project: Path, warm_loads: int) -> None:
    """Measure what dags/orrery.py does."""
    from orrery.render import load_dags

    measure(lambda: load_dags(str(project / "dags" / "orrery.py"))["bench"], warm_loads)


def cosmos(project: Path, warm_loads: int) -> None:
    """Measure Cosmos alone, as its documentation shows it."""
    from cosmos import DbtDag, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
    from cosmos.constants import ExecutionMode, LoadMode

    # DbtDag imports its operators when it is first made; that shall not count as its time.
    importlib.import_module("cosmos.operators.local")

    def make() -> Any:
        return DbtDag(
            dag_id="bench",
            project_config=ProjectConfig(
                dbt_project_path=project / "dbt",
                manifest_path=project / "dbt/target/orrery/dbt/manifest.json",
            ),
            profile_config=ProfileConfig(
                profile_name="orrery",
                target_name="dev",
                profiles_yml_filepath=project / "dbt" / "profiles.yml",
            ),
            execution_config=ExecutionConfig(execution_mode=ExecutionMode.LOCAL),
            render_config=RenderConfig(load_method=LoadMode.DBT_MANIFEST),
        )

    measure(make, warm_loads)


def measure(make: Callable[[], Any], warm_loads: int) -> None:
    """Print time and peak memory of making a DAG; fewer than no warm loads: of the imports alone."""
    figures: Figures = {}
    seconds = []
    for _ in range(warm_loads + 1):
        started = time.perf_counter()
        tasks = len(make().tasks)
        seconds.append(time.perf_counter() - started)
        # Of the first load alone: later ones find the DAG of the one before still in memory.
        figures = figures or {"tasks": tasks, "cold": seconds[0], "memory": peak_megabytes()}
    if seconds:
        figures["warm"] = statistics.median(seconds[1:])
    print("\n" + json.dumps(figures or {"memory": peak_megabytes()}))


def peak_megabytes() -> float:
    """The most memory that this process has had."""
    # Kilobytes on Linux, bytes on macOS.
    unit = 1_000_000 if sys.platform == "darwin" else 1_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
