"""Prepares the databases and the log-in of Airflow: `python -m orrery.deploy.init`. It may be repeated.

It is docker compose's. From the environment: what `orrery.deploy.roles` needs, ORRERY_ADMIN_PASSWORD, and
Airflow's own settings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from orrery.deploy import roles
from orrery.local.layout import write_private


def main() -> None:
    """Make roles, databases and schemas, migrate Airflow's database, and write the log-in."""
    password = roles.required("ORRERY_ADMIN_PASSWORD")
    roles.main()
    subprocess.run([sys.executable, "-P", "-m", "airflow", "db", "migrate"], check=True)
    passwords = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    passwords.parent.mkdir(parents=True, exist_ok=True)
    write_private(passwords, json.dumps({"admin": password}) + "\n")


if __name__ == "__main__":
    main()
