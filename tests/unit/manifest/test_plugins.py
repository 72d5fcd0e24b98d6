"""dbt's plugins are those of installed packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from conftest import WriteProject, write_files
from orrery.manifest import plugins
from orrery.manifest.build import build_manifests
from orrery.manifest.store import ManifestError, ManifestStore

FILES = {"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/all.yml": "select: '*'"}


def test_a_file_beside_the_dags_is_no_plugin(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project({**FILES, "dags/dbt_daily.py": "raise RuntimeError('not for dbt')"})
    # As Airflow does it.
    monkeypatch.setattr(sys, "path", [*sys.path, str(project.root / "dags")])
    build_manifests(project, lambda line: None)
    assert ManifestStore(project).read("all")["nodes"]
    assert "dbt_daily" not in sys.modules


def test_a_plugin_that_is_installed_and_broken_is_named(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "site-packages"
    write_files(folder, {"dbt_loose.py": "raise RuntimeError('no licence')"})
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder)])
    monkeypatch.setattr(plugins, "package_folders", lambda: [str(folder)])
    with pytest.raises(ManifestError) as caught:
        build_manifests(write_project(FILES), lambda line: None)
    text = f"dbt's plugin dbt_loose ({folder}/dbt_loose) cannot be imported: RuntimeError: no licence"
    assert text in str(caught.value)


def test_packages_and_what_they_add_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed, editable, other = (tmp_path / name for name in ("installed", "editable", "other"))
    for folder in (installed, editable, other):
        folder.mkdir()
    (installed / "our.pth").write_text(f"import sys\n{editable}\n\n")
    monkeypatch.setattr(plugins.sysconfig, "get_paths", lambda: {"purelib": str(installed), "platlib": ""})
    monkeypatch.setattr(sys, "path", [str(other), str(editable), str(installed)])
    assert plugins.package_folders() == [str(editable), str(installed)]
    monkeypatch.undo()
    assert any(Path(folder, "dbt_common").is_dir() for folder in plugins.package_folders())
