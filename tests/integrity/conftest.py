"""The shipped project, copies of it, and Airflow's own way to load DAG files."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import FOREIGN, NO_HUB
from orrery.config.project import Project
from orrery.manifest.build import build_manifests

ROOT = Path(__file__).resolve().parents[2]
MADE = shutil.ignore_patterns("target*", "logs", "dbt_packages", "__pycache__")

Load = Callable[[], Any]


def silent(line: str) -> None:
    """Report no progress."""


@pytest.fixture(scope="session")
def shipped_target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """dbt's target folder with the manifests of the shipped project."""
    target = tmp_path_factory.mktemp("shipped") / "target"
    with pytest.MonkeyPatch.context() as patch:
        for name in FOREIGN:
            patch.delenv(name, raising=False)
        patch.setenv("ORRERY_TARGET_PATH", str(target))
        without_packages(patch, target)
        assert build_manifests(Project(ROOT), silent).errors == {}
    return target


def without_packages(patch: pytest.MonkeyPatch, target: Path) -> None:
    """Whatever packages the developer has installed, and whatever hub can be reached: there are none."""
    patch.setenv("ORRERY_DBT_PACKAGES", str(target / "no_packages"))
    for name, value in NO_HUB.items():
        patch.setenv(name, value)


@pytest.fixture(scope="module")
def shipped(shipped_target: Path) -> Iterator[Any]:
    """The DagBag of the shipped project, as it lies in the repository."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FOREIGN:
            patch.delenv(name, raising=False)
        patch.setenv("ORRERY_TARGET_PATH", str(shipped_target))
        without_packages(patch, shipped_target)
        yield load(ROOT)


@pytest.fixture
def copy(tmp_path: Path, shipped_target: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A copy of the shipped project with its manifests, to be changed; it is the current project."""
    project = copy_project(tmp_path / "copy", shipped_target)
    monkeypatch.setenv("ORRERY_PROJECT_DIR", str(project.root))
    return project


def copy_project(root: Path, shipped_target: Path) -> Project:
    """Copy the shipped project, and its manifests, to `root`."""
    for folder in ("dags", "dbt"):
        shutil.copytree(ROOT / folder, root / folder, ignore=MADE)
    shutil.copytree(shipped_target, root / "dbt" / "target")
    return Project(root)


def load(root: Path) -> Any:
    """Airflow's DagBag of the files in `root`/dags."""
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(root / "dags"), bundle_path=root / "dags", bundle_name="dags")


def import_errors(root: Path) -> dict[str, str]:
    """The import errors by DAG file."""
    return {Path(name).name: text for name, text in load(root).import_errors.items()}
