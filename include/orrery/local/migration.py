"""Bringing Airflow's metadata database to the version of the installed Airflow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

from orrery.local import roles
from orrery.local.environment import airflow_env
from orrery.local.errors import with_log
from orrery.local.layout import SETUP, Layout
from orrery.local.processes import COMPONENT
from orrery.local.state import Saved, remember


def airflow_version() -> str:
    """The version of the installed Airflow, which decides the shape of its database."""
    return metadata.version("apache-airflow-core")


def migrate(layout: Layout, saved: Saved, superuser: roles.Superuser, report: Callable[[str], None]) -> Saved:
    """Run `airflow db migrate` unless it has been run by this version; return what is to be remembered.

    A failure: StackError with the end of the log. Raises OSError, psycopg2.Error.
    """
    found = roles.migration(superuser)
    version = airflow_version()
    if found is not None and (found, version) == (saved.migration, saved.airflow_version):
        return saved
    if found is None:
        # Half of the tables without a revision: a first start was interrupted. Nothing in it is of use.
        roles.reset_airflow(superuser)
    report(f"preparing the database of Airflow {version}")
    env = airflow_env(layout, saved)
    # Only this step may lose its last moments in a crash: it would be run again.
    env |= {COMPONENT: SETUP, "PGOPTIONS": "-c synchronous_commit=off"}
    log = layout.log(SETUP)
    with log.open("a", encoding="utf-8") as file:
        result = subprocess.run(
            [sys.executable, "-P", "-m", "airflow", "db", "migrate"],
            env=env,
            cwd=layout.root,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    done = roles.migration(superuser)
    if result.returncode != 0 or done is None:
        raise with_log(
            "Airflow's database cannot be prepared", log, "see the message above, then ./orrery up"
        )
    return remember(layout, saved, airflow_version=version, migration=done)
