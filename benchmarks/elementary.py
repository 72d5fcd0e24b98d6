"""What Elementary adds to a run, with its packages and without them.

    python benchmarks/elementary.py --packages FOLDER [--nodes N] [--repeat R] [--smoke]

FOLDER holds the dbt packages `elementary` and `dbt_utils`. Two pipelines over the same generated nodes take
turns, one of which publishes Elementary's report; first without the packages, then with them. With --smoke,
FOLDER may be left out: then the project is made and its manifests are built, and nothing runs.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from execution import PIPELINE, SMOKE_NODES, Bench, make_project
from harness import ROOT, BenchmarkError, call, seconds, started

from orrery.cli.airflow_api import AirflowApi
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.stages import BUILD
from orrery.manifest.store import ManifestStore

REPORTED = "bench_reported"
REPORT_TASK = "publish.elementary"
GOAL_SECONDS = 6.0
SETTINGS = """
vars:
  disable_dbt_artifacts_autoupload: true
  upload_only_current_project_artifacts: true
"""
MODELS = """models:
  elementary:
    +schema: elementary
    +enabled: "{{ env_var('ORRERY_ELEMENTARY', '0') == '1' }}"
"""


@dataclass(frozen=True)
class Run:
    """Seconds of a run: as Airflow has it, of its task `build`, and of the task that reports."""

    whole: float
    build: float
    report: float


def main() -> int:
    """Print what was measured; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--packages", type=Path, metavar="FOLDER")
    parser.add_argument("--nodes", type=int, default=50, metavar="N")
    parser.add_argument("--repeat", type=int, default=3, metavar="R", help="runs of each; default 3")
    parser.add_argument("--smoke", action="store_true", help="once and tiny: to see that all of it works")
    options = parser.parse_args()
    if options.smoke:
        options.nodes, options.repeat = SMOKE_NODES, 1
    elif options.packages is None:
        parser.error("--packages is missing: the folder of the dbt packages elementary and dbt_utils")
    # Ends like Ctrl-C: the stack is stopped on the way out.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        measure(options.nodes, options.repeat, 0 if options.smoke else 1, options.packages)
    except OrreryError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def measure(nodes: int, repeat: int, warm_up: int, packages: Path | None) -> None:
    """Run both pipelines in turns, without the packages and with them; where there are none, run nothing."""
    with tempfile.TemporaryDirectory(prefix="orrery-benchmark-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        make_project(root, nodes)
        prepare(root / "dbt")
        if packages is None:
            call([sys.executable, "-m", "orrery.cli", "build"])
            print("Not measured: Elementary's dbt packages are not here (--packages). The project builds.")
            return
        with started(root) as stack:
            info = stack.info()
            assert info
            with AirflowApi(info.url, info.username, info.password) as api:
                bench = Bench(root, stack, api)
                print(f"{nodes} nodes, medians of {repeat} runs in turns; {warm_up} before are not counted")
                compare(bench, repeat, warm_up, "without packages")
                shutil.copytree(packages.resolve(), root / "dbt" / "dbt_packages")
                compare(bench, repeat, warm_up, "with packages")


def prepare(dbt: Path) -> None:
    """Tie the generated project to Elementary as the shipped one is, and add the pipeline that reports."""
    project = dbt / "dbt_project.yml"
    project.write_text(project.read_text().replace("models:\n", MODELS) + SETTINGS)
    (dbt / "macros").mkdir()
    shutil.copy(ROOT / "dbt" / "macros" / "elementary.sql", dbt / "macros")
    text = "select: tag:bench\nschedule: none\npublish: {docs: false, artifacts: false, elementary: true}\n"
    (dbt / "pipelines" / f"{REPORTED}.yml").write_text(text)


def compare(bench: Bench, repeat: int, warm_up: int, what: str) -> None:
    """Print how long runs of both pipelines take."""
    call([sys.executable, "-m", "orrery.cli", "build"])
    store = ManifestStore(Project(bench.root))
    runs: dict[str, list[Run]] = {PIPELINE: [], REPORTED: []}
    for name in runs:
        bench.wait_until_parsed(name, store.path(name).stat().st_mtime)
    for _ in range(repeat + warm_up):
        for name, done in runs.items():
            done.append(one(bench, name))
    print(f"\n{what:22} {'build':>8} {'run':>8} {'report':>8}   (all builds)")
    medians = {}
    for name, done in runs.items():
        counted = done[warm_up:]
        build, whole, report = (
            statistics.median(getattr(run, key) for run in counted) for key in ("build", "whole", "report")
        )
        medians[name] = build, whole
        every = " ".join(f"{run.build:.1f}" for run in counted)
        print(f"{name:22} {build:>8.1f} {whole:>8.1f} {report:>8.1f}   ({every})")
    (build, whole), (build_too, whole_too) = medians[PIPELINE], medians[REPORTED]
    print(
        f"Elementary, {what}: build +{build_too - build:.1f} s = {build_too / build:.2f} x"
        f" (goal with packages: at most +{GOAL_SECONDS:.0f} s), run +{whole_too - whole:.1f} s",
        flush=True,
    )


def one(bench: Bench, name: str) -> Run:
    """Run a pipeline once."""
    whole = bench.dag_run(name).airflow
    run = bench.api.latest_run(name)
    if run is None:
        raise BenchmarkError(f"{name}: there is no run")
    tasks = {task["task_id"]: task for task in bench.api.task_instances(name, run["dag_run_id"])}
    return Run(whole, lasted(tasks, BUILD), lasted(tasks, REPORT_TASK))


def lasted(tasks: dict[str, dict[str, str]], task_id: str) -> float:
    """The seconds of a task's last try; 0 for one that is not there."""
    task = tasks.get(task_id)
    return seconds(task["end_date"]) - seconds(task["start_date"]) if task else 0.0


if __name__ == "__main__":
    sys.exit(main())
