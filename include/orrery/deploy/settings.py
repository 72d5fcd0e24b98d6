"""The `airflow.cfg` of the image: `python -m orrery.deploy.settings`.

It holds no secrets and nothing of a place: those come from environment variables (AIRFLOW__...).
"""

from __future__ import annotations

import sys

from orrery.config.project import Project
from orrery.local.settings import EVERYWHERE, as_text


def main() -> None:
    """Print the file."""
    root = Project.find().root
    here = {
        "core": {"dags_folder": str(root / "dags"), "plugins_folder": str(root / "include" / "plugins")},
        # The health checks of the containers ask it.
        "scheduler": {"enable_health_check": "True"},
    }
    merged = {name: {**values, **here.get(name, {})} for name, values in EVERYWHERE.items()}
    sys.stdout.write(as_text(merged))


if __name__ == "__main__":
    main()
