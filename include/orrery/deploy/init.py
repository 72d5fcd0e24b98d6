"""Prepares the databases and the log-in of Airflow: `python -m orrery.deploy.init`. It may be repeated.

The passwords come from environment variables, those of the service `init` in docker-compose.yml.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psycopg2

from orrery.local.layout import write_private
from orrery.local.roles import Superuser, ensure_roles

_WAIT_SECONDS = 120
_ROLES = ("airflow", "loader", "transformer")
_OTHER_PASSWORD = (
    "  The database keeps the password of its superuser with which it was made. Bring back that .env, or "
    "change it there:\n  docker compose exec postgres psql --username postgres --command '\\password'"
)


def required(name: str) -> str:
    """An environment variable. Exits without it."""
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set.\n  ./orrery init-env writes it to .env, which Compose reads.")
    return value


def wait_for(superuser: Superuser) -> None:
    """Wait until the server answers. Exits when it refuses the password, or is silent for too long."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            with superuser.connected("postgres"):
                return
        except psycopg2.OperationalError as error:
            reason = str(error).strip()
            if "authentication failed" in reason:
                sys.exit(f"PostgreSQL cannot be used: {reason}\n{_OTHER_PASSWORD}")
            if time.monotonic() > deadline:
                sys.exit(f"PostgreSQL cannot be used: {reason}")
            time.sleep(1)


def main() -> None:
    """Make roles, databases and schemas, migrate Airflow's database, and write the log-in."""
    superuser = Superuser(
        required("POSTGRES_PASSWORD"),
        host=os.environ.get("ORRERY_WAREHOUSE_HOST", "postgres"),
        port=int(os.environ.get("ORRERY_WAREHOUSE_PORT", "5432")),
        user=os.environ.get("POSTGRES_USER", "postgres"),
    )
    wait_for(superuser)
    ensure_roles(superuser, {role: required(f"ORRERY_{role.upper()}_PASSWORD") for role in _ROLES})
    subprocess.run([sys.executable, "-P", "-m", "airflow", "db", "migrate"], check=True)
    passwords = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    passwords.parent.mkdir(parents=True, exist_ok=True)
    write_private(passwords, json.dumps({"admin": required("ORRERY_ADMIN_PASSWORD")}) + "\n")


if __name__ == "__main__":
    main()
