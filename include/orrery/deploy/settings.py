"""The `airflow.cfg` of the image: `python -m orrery.deploy.settings`.

It holds no secrets and nothing of a place: those come from environment variables (AIRFLOW__...).
"""

from __future__ import annotations

import sys
from pathlib import Path

from orrery.config.project import Project
from orrery.local.settings import EVERYWHERE, as_text


def settings(root: Path) -> dict[str, dict[str, str]]:
    """The settings by section, of an image with the project in `root`."""
    here = {
        "core": {"dags_folder": str(root / "dags"), "plugins_folder": str(root / "include" / "plugins")},
        "logging": {"base_log_folder": "/var/log/orrery"},
        # The health checks of the containers ask it.
        "scheduler": {"enable_health_check": "True"},
    }
    return {name: {**values, **here.get(name, {})} for name, values in EVERYWHERE.items()}


def main() -> None:
    """Print the file."""
    sys.stdout.write(as_text(settings(Project.find().root)))


if __name__ == "__main__":
    main()
