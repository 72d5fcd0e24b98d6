"""Airflow's scheduler with dbt already imported: `python -m orrery.execute.scheduler`.

LocalExecutor forks a process for every task. What the scheduler has imported, each of them has
already; otherwise every task would spend three seconds importing dbt and Cosmos.
"""

from __future__ import annotations

import importlib
import sys

from orrery.config.project import Project
from orrery.manifest.profile import ProfileError, read_profile

_PRELOADED = (
    "dbt.cli.main",
    "orrery.execute.build_run",
    "orrery.execute.dbt_run",
    "orrery.execute.per_model",
    "orrery.render",
)


def main() -> None:
    """Become the scheduler; arguments are those of `airflow scheduler`."""
    for module in (*_PRELOADED, *_adapter()):
        importlib.import_module(module)
    from airflow.__main__ import main as airflow

    sys.argv = ["airflow", "scheduler", *sys.argv[1:]]
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
