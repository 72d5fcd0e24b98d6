"""The DAGs of plain Cosmos that benchmarks/execution.py compares with."""

from __future__ import annotations

from pathlib import Path

# By the name that is printed: the ids of the DAGs, which end with Cosmos's execution mode.
DAGS = {"Cosmos WATCHER": "cosmos_watcher", "Cosmos LOCAL": "cosmos_local"}
# Airflow ends a run that takes longer.
LIMIT_SECONDS = 600

_FILE = '''\
"""Plain Cosmos: an Airflow dag per execution mode."""

from datetime import timedelta
from pathlib import Path

from cosmos import DbtDag, ExecutionConfig, ProfileConfig, ProjectConfig, RenderConfig
from cosmos.constants import ExecutionMode, InvocationMode, LoadMode, TestBehavior

PROJECT = Path({project!r})

for dag_id in {dags!r}:
    globals()[dag_id] = DbtDag(
        dag_id=dag_id,
        schedule=None,
        max_active_tasks=1000,
        dagrun_timeout=timedelta(seconds={limit!r}),
        project_config=ProjectConfig(
            dbt_project_path=PROJECT, manifest_path=PROJECT / "target" / "manifest.json"
        ),
        profile_config=ProfileConfig(
            profile_name="orrery", target_name="dev", profiles_yml_filepath=PROJECT / "profiles.yml"
        ),
        execution_config=ExecutionConfig(
            execution_mode=ExecutionMode(dag_id.removeprefix("cosmos_")),
            invocation_mode=InvocationMode.DBT_RUNNER,
        ),
        render_config=RenderConfig(
            load_method=LoadMode.DBT_MANIFEST, test_behavior=TestBehavior.AFTER_EACH
        ),
    )
'''


def add_baselines(root: Path) -> None:
    """Add the DAGs to the project in `root`, whose manifest is built."""
    text = _FILE.format(project=str(root / "dbt"), dags=list(DAGS.values()), limit=LIMIT_SECONDS)
    # dbt would import a file called dbt_*.py.
    (root / "dags" / "cosmos_baselines.py").write_text(text)
