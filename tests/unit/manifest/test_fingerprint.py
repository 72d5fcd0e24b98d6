"""When a manifest is stale."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from conftest import WriteProject, write_files
from orrery.config.project import Project
from orrery.manifest import fingerprint

FILES = {
    "dbt/models/a.sql": "select 1",
    "dbt/models/deep/er/b.yml": "models: []",
    "dbt/seeds/rows.csv": "id\n1\n",
    "dbt/macros/m.sql": "{% macro m() %}{% endmacro %}",
    "dbt/functions/is_even.sql": "select n % 2 = 0",
    "dbt/functions/is_odd.py": "def main(n): return n % 2",
    "dbt/functions/functions.yml": "functions: []",
    "dbt/analyses/analyses.yml": "models: []",
    "dbt/pipelines/p.yml": "select: a",
}


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project(FILES)


def later(path: Path) -> None:
    """Give the file another modification time, as an editor does."""
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))


def test_what_counts(project: Project) -> None:
    write_files(
        project.root,
        {"dbt/target/manifest.json": "{}", "dbt/models/notes.txt": "x", "dbt/logs/a.sql": "x"},
    )
    expected = {name.removeprefix("dbt/") for name in FILES} | {"dbt_project.yml", "profiles.yml"}
    assert set(fingerprint.take(project)) == expected


def test_nothing_changed(project: Project) -> None:
    assert fingerprint.changes(project, fingerprint.take(project)) == []


@pytest.mark.parametrize("name", ["dbt/models/a.sql", "dbt/models/deep/er/b.yml", "dbt/pipelines/p.yml"])
def test_content_counts_and_time_does_not(project: Project, name: str) -> None:
    before = fingerprint.take(project)
    path = project.root / name
    later(path)
    assert fingerprint.changes(project, before) == []
    text = path.read_text()
    # The same size: only the content tells.
    path.write_text(text[:-1] + "#")
    later(path)
    assert fingerprint.changes(project, before) == [f"{name.removeprefix('dbt/')} has changed"]


def test_new_and_gone(project: Project) -> None:
    before = fingerprint.take(project)
    write_files(project.root, {"dbt/models/c.sql": "select 3", "dbt/packages.yml": "packages: []"})
    (project.dbt_dir / "models" / "a.sql").unlink()
    assert fingerprint.changes(project, before) == [
        "models/a.sql is gone",
        "models/c.sql is new",
        "packages.yml is new",
    ]


def test_the_rows_of_a_seed_do_not_count_but_its_presence_does(project: Project) -> None:
    before = fingerprint.take(project)
    seed = project.dbt_dir / "seeds" / "rows.csv"
    seed.write_text("id\n1\n2\n")
    assert fingerprint.changes(project, before) == []
    seed.unlink()
    assert fingerprint.changes(project, before) == ["seeds/rows.csv is gone"]


def test_a_clone_with_other_times_is_current(project: Project, tmp_path: Path) -> None:
    before = fingerprint.take(project)
    clone = Project(tmp_path / "clone")
    shutil.copytree(project.root, clone.root)
    for path in clone.root.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    assert fingerprint.changes(clone, before) == []


def test_folders_that_the_project_names(write_project: WriteProject) -> None:
    project = write_project(
        {
            "dbt/dbt_project.yml": "name: tiny\nmodel-paths: [transform]\n",
            "dbt/transform/a.sql": "select 1",
            "dbt/models/unused.sql": "select 1",
        }
    )
    assert set(fingerprint.take(project)) == {"dbt_project.yml", "profiles.yml", "transform/a.sql"}


def test_a_broken_project_file_is_still_a_file(write_project: WriteProject) -> None:
    project = write_project({"dbt/dbt_project.yml": "a: [", "dbt/models/a.sql": "select 1"})
    assert set(fingerprint.take(project)) == {"dbt_project.yml", "profiles.yml", "models/a.sql"}
