"""How long Airflow takes to make the DAG of a dbt project, and how much memory.

    python benchmarks/parse.py [nodes ...]

Compares Orrery with plain Cosmos (DbtDag over dbt's manifest.json with its default settings) on generated
projects. Each figure comes from a process of its own; the two take turns, so that a machine that is busy
for a while disturbs both. `cold` is the first load after the imports, `warm` the median of five
further loads in the same process, `memory` the peak over that of a process that only imports.
"""

from __future__ import annotations

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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SIZES = (100, 1_000, 5_000)
ROUNDS = 2
WARM_LOADS = 5
PROFILES = """\
orrery:
  target: dev
  outputs:
    dev: {type: postgres, host: 127.0.0.1, port: 1, user: u, password: p, dbname: d, schema: s}
"""

Figures = dict[str, float]


def main() -> None:
    """Print the table; the arguments are numbers of nodes."""
    sizes = [int(argument) for argument in sys.argv[1:]] or SIZES
    print(f"{'nodes':>6} {'':8} {'cold s':>8} {'warm s':>8} {'memory MB':>10} {'tasks':>7}")
    with tempfile.TemporaryDirectory(prefix="orrery-benchmark-") as folder:
        for nodes in sizes:
            show(nodes, compare(Path(folder), nodes))


def compare(folder: Path, nodes: int) -> dict[str, Figures]:
    """The figures of both, by name: the best of several rounds."""
    project = folder / str(nodes)
    in_process("build", project, folder, nodes)
    rounds: dict[str, list[Figures]] = {"orrery": [], "cosmos": []}
    for _ in range(ROUNDS):
        for name, measured in rounds.items():
            loaded = in_process(name, project, folder, WARM_LOADS)
            imported = in_process(name, project, folder, -1)
            measured.append({**loaded, "memory": loaded["memory"] - imported["memory"]})
    return {
        name: {key: min(figures[key] for figures in measured) for key in measured[0]}
        for name, measured in rounds.items()
    }


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
    from generate import generate_project

    from orrery.config.project import Project
    from orrery.manifest.build import build_manifests

    dbt = project / "dbt"
    generate_project(dbt, nodes)
    (dbt / "profiles.yml").write_text(PROFILES)
    (dbt / "pipelines").mkdir()
    (dbt / "pipelines" / "bench.yml").write_text("select: tag:bench\n")
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
                dbt_project_path=project / "dbt", manifest_path=project / "dbt" / "target" / "manifest.json"
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
