"""Which project a command is about, and `./orrery build`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from conftest import WriteProject, write_files
from orrery.cli import project as commands
from orrery.cli.__main__ import main
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.manifest.store import ManifestStore

Build = Callable[[], Result]


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> Build:
    """Calls `./orrery build`, which does not try the DAGs."""

    @contextmanager
    def untried(project: Project, report: Any) -> Iterator[None]:
        yield None

    monkeypatch.setattr(commands, "prover", untried)
    return lambda: CliRunner().invoke(main, ["build"])


def test_the_project_that_is_named_is_built(
    build: Build, write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/p.yml": "select: a"})
    # Also from its own point of view.
    monkeypatch.chdir(project.root.parent)
    monkeypatch.setenv("ORRERY_PROJECT_DIR", "project")
    done = build()
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "p: 1 nodes")
    assert ManifestStore(project).read("p")["nodes"]


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_that_is_no_project_is_refused_by_name(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "empty").mkdir()
    folder = str(tmp_path / name)
    monkeypatch.setenv("ORRERY_PROJECT_DIR", folder)
    done = build()
    assert done.exit_code == 1
    assert str(done.exception) == (
        f"ORRERY_PROJECT_DIR is {folder!r}, which is no project: it has no dbt/dbt_project.yml.\n"
        "  Name the folder that holds dbt/, or unset the variable."
    )


def test_a_project_without_a_pipeline_says_how_to_make_one(build: Build, write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id"})
    done = build()
    assert done.exit_code == 1
    assert isinstance(done.exception, OrreryError)
    text = str(done.exception)
    assert text.startswith("dbt/pipelines: there is no pipeline yet")
    assert 'select: "*"' in text
    # What it says works.
    write_files(project.root, {"dbt/pipelines/daily.yml": 'select: "*"\n'})
    assert build().output.splitlines()[-1] == "daily: 1 nodes"


def test_a_cause_that_several_pipelines_share_is_told_once(build: Build, write_project: WriteProject) -> None:
    project = write_project(
        {
            "dbt/models/a.sql": "select * from {{ source('shop', 'orders') }}",
            "dbt/models/b.sql": "select * from {{ source('shop', 'orders') }}",
            "dbt/models/sources.yml": (
                "sources:\n  - name: shop\n    config: {meta: {orrery: {ingst: {files: '*.csv'}}}}\n"
                "    tables: [{name: orders}]\n"
            ),
            "dbt/pipelines/a.yml": "select: a",
            "dbt/pipelines/b.yml": "select: b",
        }
    )
    done = build()
    assert done.exit_code == 1
    assert done.output.count("unknown key 'ingst'") == 1
    assert set(ManifestStore(project).entries()) == {"a", "b"}
