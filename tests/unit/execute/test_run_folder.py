"""dbt's target folder of one run."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from conftest import WriteProject
from orrery.config.project import Project
from orrery.execute import run_folder
from orrery.execute.run_folder import prepare, tidy
from orrery.manifest.store import PARTIAL_PARSE

DAY = 86400


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project({})


def older(folder: Path, seconds: float) -> Path:
    """The folder, as if it had last been touched then."""
    (folder / "run_results.json").write_text("{}")
    then = time.time() - seconds
    os.utime(folder, (then, then))
    return folder


def test_every_run_has_a_folder_of_its_own(project: Project) -> None:
    names = ["manual__2026-01-31T06:00:00+00:00", "manual__2026-01-31T06_00_00_00_00", "scheduled__x"]
    folders = [prepare(project, pipeline, name) for pipeline in ("shop", "other") for name in names]
    assert len(set(folders)) == 6
    for folder in folders:
        assert folder.is_dir()
        assert folder.parent.parent == project.target_dir / "runs"
    # A second try finds the folder of the first.
    (folders[0] / "run_results.json").write_text("{}")
    assert prepare(project, "shop", names[0]) == folders[0]
    assert (folders[0] / "run_results.json").read_text() == "{}"


ODD = [
    "a/b",
    "a_b",
    "a\\b",
    "../../../elsewhere",
    "..",
    ".",
    "/etc/passwd",
    "a b\nc\td",
    "ä€😀",
    "ö€😀",
    "*?<>|:\"'",
    "x" * 250,
    "x" * 249 + "y",
]


def test_odd_characters_in_run_ids(project: Project) -> None:
    folders = [prepare(project, "shop", run_id) for run_id in ODD]
    # Those that look the same once the odd characters are gone, or once they are cut, are still others.
    assert len(set(folders)) == len(ODD)
    parent = project.target_dir / "runs" / "shop"
    assert {folder.parent for folder in folders} == {parent}
    assert set(parent.iterdir()) == set(folders)
    for folder in folders:
        assert folder.name.isascii()
        assert len(folder.name) < 100
        assert not set(folder.name) & set("/\\:*?\"'<>| \n\t")


def test_old_folders_go(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ages come last, as preparing a folder already forgets old ones.
    old = [prepare(project, "shop", f"r{i}") for i in range(4)]
    other = [prepare(project, "other", f"r{i}") for i in range(4)]
    for i, folder in enumerate(old):
        older(folder, (2 + i / 10) * DAY)
    for folder in other:
        older(folder, 9 * DAY)
    monkeypatch.setattr(run_folder, "KEPT", 3)
    new = prepare(project, "shop", "new")
    # The three newest of the pipeline stay.
    assert set(new.parent.iterdir()) == {new, old[0], old[1]}
    assert all(folder.exists() for folder in other)


def test_the_folders_of_the_last_day_stay(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "KEPT", 3)
    recent = [older(prepare(project, "shop", f"r{i}"), (i + 1) * DAY / 10) for i in range(9)]
    new = prepare(project, "shop", "new")
    assert set(new.parent.iterdir()) == {new, *recent}
    older(recent[8], 1.1 * DAY)
    prepare(project, "shop", "new")
    assert set(new.parent.iterdir()) == {new, *recent[:8]}


def test_a_run_that_goes_on_keeps_its_folder(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_folder, "KEPT", 1)
    older(prepare(project, "shop", "other"), 2 * DAY)
    again = older(prepare(project, "shop", "again"), 3 * DAY)
    assert prepare(project, "shop", "again") == again
    assert (again / "run_results.json").exists()
    assert list(again.parent.iterdir()) == [again]


def test_a_few_dozen_are_kept_by_default() -> None:
    assert run_folder.KEPT >= 10


def test_tidy_leaves_what_people_read(project: Project) -> None:
    folder = prepare(project, "shop", "r1")
    kept = ["run_results.json", "manifest.json", "sources.json"]
    for name in [*kept, PARTIAL_PARSE, "graph.gpickle", "semantic_manifest.json"]:
        (folder / name).write_text("x")
    (folder / "compiled").mkdir()
    tidy(folder)
    assert {path.name for path in folder.iterdir()} == {*kept, "compiled"}
    # Nothing of it need be there.
    tidy(folder)
