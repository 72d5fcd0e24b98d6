"""`orrery init-env`: the secrets of an installation in containers."""

from __future__ import annotations

import secrets

import click

from orrery.cli.session import new_console
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.local.layout import write_private
from orrery.local.state import Secrets

_TEXT = """\
# Passwords and keys of docker-compose.yml, made by ./orrery init-env. Keep this file, and keep it secret:
# the databases are made with these passwords, and stored connections are encrypted with the Fernet key.

# Airflow's user admin
ORRERY_ADMIN_PASSWORD={keys.admin}
# PostgreSQL: its superuser, Airflow's role, the role that loads files, dbt's role
ORRERY_POSTGRES_PASSWORD={keys.postgres}
ORRERY_AIRFLOW_PASSWORD={keys.airflow}
ORRERY_LOADER_PASSWORD={keys.loader}
ORRERY_TRANSFORMER_PASSWORD={keys.transformer}
ORRERY_REDIS_PASSWORD={redis}
ORRERY_FERNET_KEY={keys.fernet_key}
ORRERY_API_SECRET_KEY={keys.api_secret_key}
ORRERY_JWT_SECRET={keys.jwt_secret}

# What may be changed (the values shown are the defaults); see docs/deploy.md
#ORRERY_PORT=8080
#ORRERY_BIND=127.0.0.1
#ORRERY_URL=http://localhost:8080
#ORRERY_TARGET=dev
#ORRERY_LANDING=./dbt/landing
#ORRERY_WORKER_SLOTS=4
#ORRERY_QUEUES=default,dbt
"""


@click.command("init-env")
def init_env() -> None:
    """Write .env, the fresh secrets of docker-compose.yml."""
    path = Project.find().root / ".env"
    if path.exists():
        raise OrreryError(
            f"{path.name} exists: the databases were made with its passwords.\n"
            "  For a new installation: docker compose down --volumes, then delete it."
        )
    write_private(path, _TEXT.format(keys=Secrets.generate(), redis=secrets.token_hex(24)))
    new_console().print(
        f"{path.name} is written, for your eyes only. Next: docker compose up --detach --wait"
    )
