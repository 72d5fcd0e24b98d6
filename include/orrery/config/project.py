"""Where the parts of a project lie on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orrery.config.environment import read_settings


@dataclass(frozen=True)
class Project:
    """The folders of one Orrery project.

    `root` holds `dags/`, `dbt/` and `include/`. Everything that Orrery makes and that must travel
    with the project (into an image, say) lies under the dbt target folder; what belongs to this
    machine alone lies under the state folder of the embedded stack.
    """

    root: Path

    @classmethod
    def find(cls) -> Project:
        """The project named by ORRERY_PROJECT_DIR, else the one that this package lies in.

        Its orrery.env is read; raises ConfigError when that is broken.
        """
        configured = os.environ.get("ORRERY_PROJECT_DIR")
        root = Path(configured).expanduser().absolute() if configured else Path(__file__).resolve().parents[3]
        read_settings(root)
        return cls(root)

    @classmethod
    def of_dag_file(cls, file: str) -> Project:
        """The project whose dags/ a file is in, from now on that of this process; else as `find`.

        So one Airflow can have several projects, each in a DAG bundle of its own.
        """
        root = Path(file).absolute().parents[1]
        if (root / "dbt" / "dbt_project.yml").is_file():
            os.environ["ORRERY_PROJECT_DIR"] = str(root)
        return cls.find()

    @property
    def dbt_dir(self) -> Path:
        """The dbt project (the folder of dbt_project.yml)."""
        return self.root / "dbt"

    @property
    def profiles_dir(self) -> Path:
        """The folder of profiles.yml; DBT_PROFILES_DIR moves it, as in dbt."""
        return Path(os.environ.get("DBT_PROFILES_DIR") or self.dbt_dir)

    @property
    def pipelines_dir(self) -> Path:
        """The folder of the pipeline files."""
        return self.dbt_dir / "pipelines"

    @property
    def target_dir(self) -> Path:
        """dbt's target folder; ORRERY_TARGET_PATH moves it."""
        configured = os.environ.get("ORRERY_TARGET_PATH")
        return self.dbt_dir / configured if configured else self.dbt_dir / "target"

    @property
    def manifest_dir(self) -> Path:
        """The folder of the slim manifests that `./orrery build` writes."""
        return self.target_dir / "orrery"

    @property
    def landing_zone(self) -> str:
        """The URI below which files arrive; ORRERY_LANDING_ZONE moves it."""
        return os.environ.get("ORRERY_LANDING_ZONE") or f"file://{self.dbt_dir / 'landing'}"

    @property
    def schema_dir(self) -> Path:
        """The folder of the committed JSON Schemas."""
        return self.root / "include" / "schema"

    @property
    def template_dir(self) -> Path:
        """The folder of the templates of Kubernetes objects."""
        return self.root / "include" / "templates"

    def relative(self, path: Path) -> str:
        """`path` as it is shown to people: relative to the project where it lies inside."""
        try:
            return path.relative_to(self.root).as_posix()
        except ValueError:
            return str(path)
