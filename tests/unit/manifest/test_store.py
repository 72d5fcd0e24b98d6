"""The built manifests on disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from conftest import WriteProject, write_files
from orrery.config.project import Project
from orrery.manifest import fingerprint
from orrery.manifest.store import ManifestError, ManifestStore
from orrery.plan.problems import find_problems


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project({"dbt/models/a.sql": "select 1", "dbt/pipelines/p.yml": "select: a"})


@pytest.fixture
def store(project: Project) -> ManifestStore:
    """A store in which the pipeline `p` is built, and current."""
    store = ManifestStore(project)
    store.write("p", {"nodes": {}})
    store.write_index(fingerprint.take(project), None, {"p": None})
    return store


def message(store: ManifestStore, pipeline: str | None = None) -> str:
    """What the store says when it has no current manifest, or none of `pipeline`."""
    with pytest.raises(ManifestError) as caught:
        store.check_current() if pipeline is None else store.read(pipeline)
    return str(caught.value)


def test_current(store: ManifestStore) -> None:
    store.check_current()
    assert store.stale() == []
    assert store.read("p") == {"nodes": {}}


def test_missing(project: Project) -> None:
    store = ManifestStore(project)
    assert message(store) == (
        "dbt/target/orrery/index.json: the manifest is not current: there is no manifest yet.\n"
        "  Run ./orrery build"
    )
    assert message(store, "p") == (
        "dbt/target/orrery/p.json: the manifest of 'p' is missing.\n  Run ./orrery build"
    )


def test_stale(store: ManifestStore, project: Project) -> None:
    write_files(project.root, {f"dbt/models/m{i}.sql": "select 1" for i in range(5)})
    assert message(store) == (
        "dbt/target/orrery/index.json: the manifest is not current: models/m0.sql is new; "
        "models/m1.sql is new; models/m2.sql is new; and 2 more.\n  Run ./orrery build"
    )
    # What was built is still there to be shown.
    assert store.read("p") == {"nodes": {}}


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("DBT_TARGET", "bigquery", "it was built for the target dev, here it is bigquery"),
        ("ORRERY_ENVIRONMENT", "prod", "it was built without environment, here it is prod"),
    ],
)
def test_a_manifest_for_another_target_or_environment_is_stale(
    store: ManifestStore, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, reason: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert store.stale() == store.made_for_another() == [reason]
    store.write_index(fingerprint.take(store.project), None, {"p": None})
    assert store.stale() == store.made_for_another() == []
    monkeypatch.delenv(variable)
    assert len(store.stale()) == 1
    assert store.read("p") == {"nodes": {}}


def test_a_target_that_cannot_be_found_out_is_none(
    store: ManifestStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    assert store.made_for_another() == ["it was built for the target dev, here there is none"]
    # In Airflow, what is wrong with the profile is said instead.
    assert "profiles.yml: there is no such file" in find_problems(store.project)[""]


@pytest.mark.parametrize("index", ['{"format": 0}', "not JSON", ""])
def test_an_index_of_another_version_is_none(store: ManifestStore, index: str) -> None:
    store.index_path.write_text(index)
    assert store.read_index() is None
    assert "there is no manifest yet" in message(store)


def test_a_problem_of_one_pipeline(store: ManifestStore) -> None:
    store.write("q", {"nodes": {"x": {}}})
    store.write_index({}, None, {"p": "p is broken", "q": None})
    assert message(store, "p") == "p is broken"
    assert store.read("q") == {"nodes": {"x": {}}}


def test_a_problem_of_the_project(store: ManifestStore) -> None:
    store.write_index({}, "dbt cannot parse", {})
    assert message(store, "p") == "dbt cannot parse"


def test_a_deleted_pipeline_leaves_nothing_behind(store: ManifestStore) -> None:
    store.write("q", {"nodes": {}})
    store.write_index({}, None, {"q": None})
    assert sorted(path.name for path in store.index_path.parent.iterdir()) == ["index.json", "q.json"]


def test_writing_replaces_at_once(store: ManifestStore, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    replace = Path.replace

    def watched(self: Path, target: Path) -> Path:
        # The new content is complete before its name is taken, and the old one is there until then.
        seen.append((json.loads(self.read_bytes()), json.loads(Path(target).read_bytes())))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    with store.path("p").open() as reader:
        store.write("p", {"nodes": {"new": {}}})
        assert reader.read() == '{"nodes":{}}'
    assert seen == [({"nodes": {"new": {}}}, {"nodes": {}})]
    assert store.read("p") == {"nodes": {"new": {}}}
    assert [path.name for path in store.index_path.parent.iterdir() if path.name.startswith(".")] == []


def test_a_copy_of_the_project_elsewhere_is_current(store: ManifestStore, tmp_path: Path) -> None:
    # An image is built from a checkout and lies in another folder.
    image = Project(tmp_path / "image")
    shutil.copytree(store.project.root, image.root)
    for path in image.dbt_dir.rglob("*.*"):
        os.utime(path, (1, 1))
    ManifestStore(image).check_current()
    assert ManifestStore(image).read("p") == {"nodes": {}}


def test_the_target_folder_can_be_moved(
    store: ManifestStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORRERY_TARGET_PATH", str(tmp_path / "elsewhere"))
    assert store.index_path == tmp_path / "elsewhere" / "orrery" / "index.json"
    assert store.stale() == ["there is no manifest yet"]
