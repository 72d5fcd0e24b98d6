"""Airflow's settings for one machine, as the text of `airflow.cfg`."""

from __future__ import annotations

import configparser
import io
import os
from collections.abc import Mapping
from typing import Final

from orrery.local.layout import HOST, Layout
from orrery.local.state import Saved, Secrets

EXECUTOR: Final = "LocalExecutor"
# Nothing listens there: task logs are read from the disk. Airflow asks the log server all the same
# while a task runs, so let it be refused at once, and never by a stranger's server.
_NO_LOG_SERVER: Final = "1"


# What holds wherever Orrery's pipelines run: here, and in the image.
EVERYWHERE: Final[Mapping[str, Mapping[str, str]]] = {
    "core": {
        "load_examples": "False",
        "dags_are_paused_at_creation": "False",
        # An error in a YAML file is shown as our message alone, without a Python traceback.
        "dagbag_import_error_tracebacks": "False",
        "min_serialized_dag_update_interval": "5",
    },
    "logging": {"colored_console_log": "False"},
    "api": {"instance_name": "Orrery"},
    "workers": {
        # The first calls to a cold api-server exceed the default of 5 seconds.
        "execution_api_timeout": "60",
        # A restart of the api-server must not cost tasks: keep asking for more than a minute.
        "execution_api_retries": "30",
        "execution_api_retry_wait_max": "5",
        # It is also how late a worker may notice that its task has failed, been skipped, or begun to wait.
        "min_heartbeat_interval": "1",
    },
    "scheduler": {
        "orphaned_tasks_check_interval": "30",
        # Tasks beat every second. A killed one is noticed within 100 s; a slow minute is forgiven.
        "task_instance_heartbeat_timeout": "90",
        "task_instance_heartbeat_timeout_detection_interval": "10",
    },
    # Redis gives a message to another worker when it is not acknowledged for so many seconds. Airflow lets
    # none run what runs already; what a lost worker had is found out by its heartbeats.
    "celery_broker_transport_options": {"visibility_timeout": "86400"},
    "dag_processor": {"refresh_interval": "10", "min_file_process_interval": "10"},
    # Through it the api-server learns what has become of the nodes of a build.
    "state_store": {"backend": "orrery.execute.state_store.NodeStateStore"},
    "usage_data_collection": {"enabled": "False"},
    "cosmos": {"enable_telemetry": "False", "enable_dag_versioning": "False"},
}


def parallelism() -> int:
    """How many tasks run at once: two per core, since they mostly wait for the database; at least 4."""
    return max(4, 2 * (os.cpu_count() or 1))


def sections(layout: Layout, saved: Saved, keys: Secrets) -> dict[str, dict[str, str]]:
    """The settings that differ from Airflow's defaults, by section."""
    api = f"http://{HOST}:{saved.api_port}"
    database = f"postgresql+psycopg2://airflow:{keys.airflow}@{HOST}:{saved.postgres_port}/airflow"
    here = {
        "core": {
            "dags_folder": str(layout.root / "dags"),
            "plugins_folder": str(layout.root / "include" / "plugins"),
            "executor": EXECUTOR,
            "parallelism": str(parallelism()),
            "fernet_key": keys.fernet_key,
            "execution_api_server_url": f"{api}/execution/",
            "hostname_callable": "orrery.local.layout.loopback_host",
            "simple_auth_manager_users": "admin:admin",
            "simple_auth_manager_all_admins": "False",
            "simple_auth_manager_passwords_file": str(layout.passwords),
        },
        "database": {
            "sql_alchemy_conn": database,
            "check_migrations": "False",  # `up` has done it; each part would load Alembic for it again
        },
        "logging": {
            "base_log_folder": str(layout.logs / "airflow"),
            "dag_processor_child_process_log_directory": str(layout.logs / "airflow" / "dag_processor"),
            "file_task_handler_new_folder_permissions": "0o700",
            "file_task_handler_new_file_permissions": "0o600",
            "worker_log_server_port": _NO_LOG_SERVER,
            "trigger_log_server_port": _NO_LOG_SERVER,
            # Otherwise a traceback for each look at a running task, see _NO_LOG_SERVER.
            "namespace_levels": "airflow.utils.log.file_task_handler=CRITICAL",
        },
        "api": {
            "host": HOST,
            "port": str(saved.api_port),
            "base_url": api,
            "workers": "1",
            "secret_key": keys.api_secret_key,
        },
        "api_auth": {"jwt_secret": keys.jwt_secret},
        "scheduler": {"enable_health_check": "False"},
        "dag_processor": {
            "dag_bundle_storage_path": str(layout.airflow_home / "bundles"),
            "parsing_processes": "1",
        },
        "cosmos": {"cache_dir": str(layout.state / "cosmos")},
    }
    names = dict.fromkeys([*here, *EVERYWHERE])
    return {name: {**EVERYWHERE.get(name, {}), **here.get(name, {})} for name in names}


def render(layout: Layout, saved: Saved, keys: Secrets) -> str:
    """The text of `airflow.cfg`. It holds secrets: write it with mode 0600."""
    text = as_text(sections(layout, saved, keys))
    return "# Written by every `./orrery up`; changes made here are lost.\n" + text


def as_text(settings: Mapping[str, Mapping[str, str]]) -> str:
    """Settings by section in the format of `airflow.cfg`."""
    parser = configparser.RawConfigParser()
    for section, values in settings.items():
        # Airflow interpolates its file, so a % in a path has to be doubled.
        parser[section] = {key: value.replace("%", "%%") for key, value in values.items()}
    text = io.StringIO()
    parser.write(text)
    return text.getvalue()
