"""A command of Airflow's with dbt or Cosmos already imported: `python -m orrery.execute.preloaded scheduler`.

LocalExecutor's scheduler and Celery's workers (`celery worker`) fork a process for every task, and the DAG
processor one each time it reads a file. What they have imported, each of them has already; otherwise every
task would spend three seconds importing dbt and Cosmos, and every look at the DAGs one and a half.
"""

from __future__ import annotations

import importlib
import sys

from orrery.config.project import Project
from orrery.execute import heartbeat
from orrery.manifest.profile import ProfileError, read_profile

_FOR_DAGS = ("orrery.render.loader",)
_FOR_TASKS = (
    "dbt.cli.main",
    "orrery.execute.build_run",
    "orrery.execute.dbt_run",
    "orrery.execute.per_model",
    *_FOR_DAGS,
)


def main() -> None:
    """Become the command; arguments are those of `airflow`."""
    reads_dags = sys.argv[1:2] == ["dag-processor"]
    for module in _FOR_DAGS if reads_dags else (*_FOR_TASKS, *_adapter()):
        importlib.import_module(module)
    if sys.argv[1:3] == ["celery", "worker"]:
        heartbeat.keep()
    from airflow.__main__ import main as airflow

    sys.argv = ["airflow", *sys.argv[1:]]
    airflow()  # type: ignore[no-untyped-call]


def _adapter() -> list[str]:
    """The module of the warehouse; none when there is no profile, which the tasks then tell of."""
    try:
        adapter = read_profile(Project.find()).adapter
    except ProfileError:
        return []
    return [f"dbt.adapters.{adapter}"] if adapter else []


if __name__ == "__main__":
    main()
