"""The built manifests on disk."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from conftest import WriteProject, write_files
from orrery.config.project import Project
from orrery.manifest.store import ManifestError, ManifestStore
from orrery.plan.problems import find_problems
from support import manifests


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    return write_project({"dbt/models/a.sql": "select 1", "dbt/pipelines/p.yml": "select: a"})


@pytest.fixture
def store(project: Project) -> ManifestStore:
    """A store in which the pipeline `p` is built, and current."""
    return manifests.keep(project, {"p": {"nodes": {}}})


def message(store: ManifestStore, pipeline: str) -> str:
    """What the store says of a pipeline that is not as its file has it, or not there."""
    with pytest.raises(ManifestError) as caught:
        store.check(pipeline)
    return str(caught.value)


def test_current(store: ManifestStore) -> None:
    assert store.stale() == []
    assert store.why_stale() is None
    assert not store.must_build()
    assert store.read("p") == {"nodes": {}}


def test_missing(project: Project) -> None:
    store = ManifestStore(project)
    assert store.why_stale() == (
        "dbt/target/orrery/index.json: the manifest is not current: there is no manifest yet.\n"
        "  Run ./orrery build"
    )
    assert message(store, "p") == ("dbt/target/orrery: the manifest of 'p' is missing.\n  Run ./orrery build")


def test_stale(store: ManifestStore, project: Project) -> None:
    write_files(project.root, {f"dbt/models/m{i}.sql": "select 1" for i in range(5)})
    assert store.why_stale() == (
        "dbt/target/orrery/index.json: the manifest is not current: models/m0.sql is new; "
        "models/m1.sql is new; models/m2.sql is new; and 2 more.\n  Run ./orrery build"
    )
    # What was built is still there to be shown.
    assert store.read("p") == {"nodes": {}}


def test_a_version_is_the_file_of_the_pipeline_and_its_manifest(
    store: ManifestStore, project: Project
) -> None:
    write_files(project.root, {"dbt/pipelines/p.yml": "select: b\ntags: [new]"})
    pipeline, slim = store.load("p")
    assert (pipeline.config.select, pipeline.config.tags, slim) == (("a",), (), {"nodes": {}})
    manifests.keep(project, {"p": {"nodes": {"b": {}}}})
    pipeline, slim = store.load("p")
    assert (pipeline.config.select, pipeline.config.tags, slim) == (("b",), ("new",), {"nodes": {"b": {}}})


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
    assert store.read("p") == {"nodes": {}}
    manifests.keep(store.project, {"p": {"nodes": {}}})
    assert store.stale() == store.made_for_another() == []
    monkeypatch.delenv(variable)
    assert len(store.stale()) == 1


def test_a_build_for_another_environment_leaves_the_pipelines_of_this_one(
    store: ManifestStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORRERY_ENVIRONMENT", "prod")
    assert store.entries() == {}
    manifests.keep(store.project, {"p_prod": {"nodes": {"x": {}}}})
    assert set(store.entries()) == {"p_prod"}
    monkeypatch.delenv("ORRERY_ENVIRONMENT")
    assert set(store.entries()) == {"p"}
    assert store.read("p") == {"nodes": {}}


def test_a_target_that_cannot_be_found_out_is_none(
    store: ManifestStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    assert store.made_for_another() == ["it was built for the target dev, here there is none"]
    # In Airflow, what is wrong with the profile is said instead.
    assert any("profiles.yml: there is no such file" in told for told in find_problems(store.project))


@pytest.mark.parametrize(
    ("index", "why"),
    [
        ('{"format": 4, "files": {}, "problem": null}', "another version of Orrery has built it"),
        ("not JSON", "another version of Orrery has built it"),
        (None, "there is no manifest yet"),
    ],
)
def test_an_index_of_another_version_is_none(store: ManifestStore, index: str | None, why: str) -> None:
    store.index_path.unlink()
    if index is not None:
        store.index_path.write_text(index)
    assert store.stale() == [why]
    assert store.entries() == {}


def test_a_problem_of_one_pipeline(store: ManifestStore, project: Project) -> None:
    manifests.keep(project, {"q": {"nodes": {"x": {}}}}, {"p": "p is broken"})
    assert message(store, "p") == "p is broken"
    store.check("q")
    # Both run on.
    assert store.read("p") == {"nodes": {}}
    assert store.read("q") == {"nodes": {"x": {}}}
    assert store.must_build()


def test_a_problem_of_the_project(store: ManifestStore, project: Project) -> None:
    manifests.fail(project, "dbt could not parse it")
    assert message(store, "p") == "dbt could not parse it"
    assert store.read("p") == {"nodes": {}}
    assert store.stale() == []
    assert store.must_build()


def test_trouble_lasts_since_the_first_build_that_had_it(store: ManifestStore, project: Project) -> None:
    good = store.index().entries["p"]
    manifests.keep(project, {}, {"p": "one"})
    first = store.index().entries["p"]
    manifests.keep(project, {}, {"p": "another"})
    second = store.index().entries["p"]
    assert first.trouble
    assert second.trouble
    assert second.trouble.since == first.trouble.since
    assert second.trouble.text == "another"
    assert second.good_at == first.good_at == good.good_at
    manifests.keep(project, {"p": {"nodes": {}}})
    third = store.index().entries["p"]
    assert third.trouble is None
    assert third.good_at > good.good_at
    # The same version as before.
    assert (third.manifest, third.since) == (good.manifest, good.since)


def test_a_deleted_pipeline_leaves_nothing_behind(store: ManifestStore, project: Project) -> None:
    manifests.keep(project, {"q": {"nodes": {}}})
    assert set(store.entries()) == {"q"}
    # Whoever has just read the index finds what it names; the next build but one takes it away.
    assert len(list(project.manifest_dir.glob("*.json"))) == 3
    manifests.keep(project, {"q": {"nodes": {}}})
    kept = {path.name for path in project.manifest_dir.glob("*.json")}
    assert kept == {"index.json", store.path("q").name}


def test_half_a_character_can_be_stored(store: ManifestStore, project: Project) -> None:
    manifests.keep(project, {"p": {"nodes": {"a": {"description": "\ud800 and \0"}}}})
    assert store.read("p") == {
        "nodes": {"a": {"description": "\N{REPLACEMENT CHARACTER} and \N{REPLACEMENT CHARACTER}"}}
    }


def test_the_index_is_replaced_as_a_whole_after_what_it_names(
    store: ManifestStore, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = store.path("p")
    replace = Path.replace
    written: list[str] = []

    def watched(self: Path, target: Path) -> Path:
        # The new content is complete before its name is taken, and the old version is read until then.
        json.loads(self.read_bytes())
        assert store.path("p") == old
        written.append(Path(target).name)
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", watched)
    manifests.keep(project, {"p": {"nodes": {"new": {}}}})
    assert written == [store.path("p").name, "index.json"]
    assert old.is_file()
    assert store.read("p") == {"nodes": {"new": {}}}
    assert [path.name for path in project.manifest_dir.iterdir() if path.name.startswith(".")] == []


def test_a_copy_of_the_project_elsewhere_is_current(store: ManifestStore, tmp_path: Path) -> None:
    # An image is built from a checkout and lies in another folder.
    image = Project(tmp_path / "image")
    shutil.copytree(store.project.root, image.root)
    for path in image.dbt_dir.rglob("*.*"):
        os.utime(path, (1, 1))
    assert ManifestStore(image).stale() == []
    assert ManifestStore(image).read("p") == {"nodes": {}}


def test_the_target_folder_can_be_moved(
    store: ManifestStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ORRERY_TARGET_PATH", str(tmp_path / "elsewhere"))
    assert store.index_path == tmp_path / "elsewhere" / "orrery" / "index.json"
    assert store.stale() == ["there is no manifest yet"]
