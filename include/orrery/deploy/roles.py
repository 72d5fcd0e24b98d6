"""Makes roles, databases and schemas in PostgreSQL: `python -m orrery.deploy.roles`. It may be repeated.

From the environment: POSTGRES_PASSWORD of POSTGRES_USER (postgres), who may make them, and the passwords that
the roles get, ORRERY_AIRFLOW_PASSWORD, ORRERY_LOADER_PASSWORD and ORRERY_TRANSFORMER_PASSWORD.
"""

from __future__ import annotations

import os
import sys
import time

import psycopg2

from orrery.local.roles import Superuser, ensure_roles

_WAIT_SECONDS = 120
_ROLES = ("airflow", "loader", "transformer")
_OTHER_PASSWORD = (
    "  The database keeps the password of its superuser with which it was made. Bring it back\n"
    "  (Compose: .env; a cluster: the secret warehouse-roles), or change it in the database:\n"
    "  docker compose exec postgres psql --username postgres --command '\\password'"
)


def required(name: str) -> str:
    """An environment variable. Exits without it."""
    value = os.environ.get(name)
    if not value:
        sys.exit(
            f"{name} is not set.\n  For Compose, ./orrery init-env writes it to .env; in a cluster it is in "
            "the secret warehouse-roles."
        )
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
    """Make them once the server answers. Exits without it, or without a password."""
    superuser = Superuser(
        required("POSTGRES_PASSWORD"),
        host=os.environ.get("ORRERY_WAREHOUSE_HOST", "postgres"),
        port=int(os.environ.get("ORRERY_WAREHOUSE_PORT", "5432")),
        user=os.environ.get("POSTGRES_USER", "postgres"),
    )
    passwords = {role: required(f"ORRERY_{role.upper()}_PASSWORD") for role in _ROLES}
    wait_for(superuser)
    ensure_roles(superuser, passwords)


if __name__ == "__main__":
    main()
