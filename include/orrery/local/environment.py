"""The environments of the stack's processes: what they inherit, what they get, and what they must not."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from orrery.local.layout import API_SERVER, HOST, POSTGRES, SCHEDULER, SETUP, WORKER, Layout
from orrery.local.processes import COMPONENT, STACK
from orrery.local.state import Saved, Secrets

# Settings of the user's shell that would move the stack's doors, data or keys. Others (a pool size, an
# executor, a connection, a variable) pass.
_FOREIGN_PREFIXES = (
    "AIRFLOW__DATABASE__",
    "AIRFLOW__API__",
    "AIRFLOW__API_AUTH__",
    "AIRFLOW__LOGGING__",
    "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK",
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER",
    "AIRFLOW__CORE__EXECUTION_API",
    "AIRFLOW__CORE__HOSTNAME_CALLABLE",
    "AIRFLOW__CORE__SQL_ALCHEMY",
)
_FOREIGN = frozenset(
    {"AIRFLOW_HOME", "AIRFLOW_CONFIG", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONPATH"}
)
_POSTGRES_KEEPS = ("PATH", "HOME", "TMPDIR", "LANG", "TZ", "DYLD_LIBRARY_PATH", "LD_LIBRARY_PATH")
_PACKAGE_PATH = Path(__file__).resolve().parents[2]


def _python_path(layout: Layout) -> str:
    """`<root>/include`, and the place this very package came from, should that be another."""
    paths = dict.fromkeys([str(layout.root / "include"), str(_PACKAGE_PATH)])
    return os.pathsep.join(paths)


def base_env(layout: Layout, inherited: Mapping[str, str] | None = None) -> dict[str, str]:
    """What every process of the stack gets. No secrets. `inherited` defaults to os.environ."""
    user = os.environ if inherited is None else inherited
    env = {
        key: value
        for key, value in user.items()
        if key not in _FOREIGN and not key.startswith(_FOREIGN_PREFIXES)
    }
    local = {HOST, "localhost"}
    without_proxy = {part for part in env.get("NO_PROXY", env.get("no_proxy", "")).split(",") if part}
    env["NO_PROXY"] = env["no_proxy"] = ",".join(sorted(without_proxy | local))
    env.update(
        {
            STACK: layout.marker,
            "ORRERY_STATE_DIR": str(layout.state),
            "ORRERY_PROJECT_DIR": str(layout.root),
            "PYTHONPATH": _python_path(layout),
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)]),
            "DO_NOT_TRACK": "1",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "0",
            "SCARF_ANALYTICS": "false",
            # Process titles would otherwise overwrite the environment that marks our processes.
            "SPT_NOENV": "1",
        }
    )
    if sys.platform == "darwin":
        env["OBJC_DISABLE_INITIALIZE_FORK_SAFETY"] = "YES"  # Airflow forks
    return env


def warehouse_env(saved: Saved) -> dict[str, str]:
    """Where dbt finds the warehouse, without the password."""
    return {
        "ORRERY_WAREHOUSE_HOST": HOST,
        "ORRERY_WAREHOUSE_PORT": str(saved.postgres_port),
        "ORRERY_WAREHOUSE_DATABASE": "warehouse",
        "ORRERY_WAREHOUSE_USER": "transformer",
    }


def dbt_env(saved: Saved, keys: Secrets) -> dict[str, str]:
    """All that dbt needs. dbt hides DBT_ENV_SECRET_* in its logs; a profile cannot read a file."""
    return {
        **warehouse_env(saved),
        "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": keys.transformer,
        "DBT_SEND_ANONYMOUS_USAGE_STATS": "0",
        "DO_NOT_TRACK": "1",
    }


def loader_env(saved: Saved, keys: Secrets) -> dict[str, str]:
    """The Airflow connection with which files are loaded."""
    uri = f"postgres://loader:{keys.loader}@{HOST}:{saved.postgres_port}/warehouse"
    return {"AIRFLOW_CONN_WAREHOUSE_LOADER": uri}


def airflow_env(layout: Layout, saved: Saved) -> dict[str, str]:
    """For Airflow's command line. Its secrets are in airflow.cfg, not here."""
    return {**base_env(layout), "AIRFLOW_HOME": str(layout.airflow_home), **warehouse_env(saved)}


def component_env(layout: Layout, saved: Saved, keys: Secrets, component: str) -> dict[str, str]:
    """The environment of one component.

    Only what runs tasks, which use dbt and load files, gets the warehouse's passwords: the scheduler with
    LocalExecutor, and Celery's workers; and the api-server, whose pages read the run ledger, that of dbt's
    role. PostgreSQL, which may run as another user, gets nothing of the caller's environment that it has no
    use for.
    """
    if component == POSTGRES:
        return {**_postgres_env(layout), COMPONENT: component}
    env = {**airflow_env(layout, saved), COMPONENT: component}
    if component in (SCHEDULER, WORKER, API_SERVER):
        env.update(dbt_env(saved, keys))
    if component in (SCHEDULER, WORKER):
        env.update(loader_env(saved, keys))
    return env


def setup_env(layout: Layout) -> dict[str, str]:
    """For PostgreSQL's one-off programs."""
    return {**_postgres_env(layout), COMPONENT: SETUP}


def _postgres_env(layout: Layout) -> dict[str, str]:
    kept = {key: os.environ[key] for key in _POSTGRES_KEEPS if key in os.environ}
    return {**kept, STACK: layout.marker}
