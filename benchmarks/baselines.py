"""The DAGs that benchmarks/execution.py compares with."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness import ROOT

# By the name that is printed: the ids of the DAGs. Those of plain Cosmos end with its execution mode.
COSMOS = {"Cosmos WATCHER": "cosmos_watcher", "Cosmos LOCAL": "cosmos_local"}
TRIGGERER = {"triggerer variant": "triggerer_variant"}
# Airflow ends a run that takes longer.
LIMIT_SECONDS = 600

_COSMOS_FILE = '''\
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
        # Airflow may fail a task that comes back from the triggerer, and a run of theirs with it.
        default_args={{"retries": 2, "retry_delay": timedelta(seconds=1)}},
        project_config=ProjectConfig(
            dbt_project_path=PROJECT, manifest_path=PROJECT / "target/orrery/dbt/manifest.json"
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


_TRIGGERER_FILE = '''\
"""The triggerer variant: an Airflow dag."""

from triggerer_variant import make_dag

dag = make_dag({dag_id!r}, {project!r}, {folder!r})
'''


def add_cosmos(root: Path) -> None:
    """Add the DAGs of plain Cosmos to the project in `root`, whose manifest is built."""
    text = _COSMOS_FILE.format(project=str(root / "dbt"), dags=list(COSMOS.values()), limit=LIMIT_SECONDS)
    # dbt would import a file called dbt_*.py.
    (root / "dags" / "cosmos_baselines.py").write_text(text)


def add_plugins(root: Path) -> None:
    """Add the modules of DAGs to a copy of Airflow's plugins: the folder of AIRFLOW__CORE__PLUGINS_FOLDER."""
    shutil.copytree(ROOT / "include" / "plugins", root / "plugins")
    shutil.copy(Path(__file__).with_name("triggerer_variant.py"), root / "plugins")


def add_triggerer(root: Path) -> None:
    """Add the DAG whose nodes run in the triggerer to the project in `root`, whose manifest is built."""
    (dag_id,) = TRIGGERER.values()
    text = _TRIGGERER_FILE.format(dag_id=dag_id, project=str(root / "dbt"), folder=str(root / dag_id))
    (root / "dags" / "triggerer_baseline.py").write_text(text)
