"""`./orrery build` on real dbt projects."""

from __future__ import annotations

import json

import pytest

from conftest import WriteProject, write_files
from orrery.config.project import Project
from orrery.manifest import fingerprint
from orrery.manifest.build import build_manifests
from orrery.manifest.store import ManifestError, ManifestStore
from orrery.plan.problems import find_problems

MODELS = {
    "dbt/models/bronze/a.sql": "select 1 as id",
    "dbt/models/b.sql": "select * from {{ ref('a') }}",
    "dbt/models/models.yml": "models: [{name: b, columns: [{name: id, data_tests: [not_null]}]}]",
    "dbt/selectors.yml": "selectors: [{name: only_b, definition: {method: fqn, value: b}}]",
    "dbt/pipelines/all.yml": "select: '*'\nstages: {bronze: path:models/bronze}",
    "dbt/pipelines/chosen.yml": "selector: only_b\nexclude: a\n",
    "dbt/pipelines/several.yml": "select: [a, b]\nexclude: a\n",
}


def build(project: Project) -> list[str]:
    """Build, and return the lines of progress."""
    lines: list[str] = []
    build_manifests(project, lines.append)
    return lines


def test_build_and_break_and_mend(write_project: WriteProject) -> None:
    project = write_project({**MODELS, "dbt/pipelines/broken.yml": "slect: a"})
    built = build_manifests(project, lambda line: None)
    assert built.nodes == {"all": 3, "chosen": 2, "several": 2}
    assert list(built.errors) == ["broken"]
    store = ManifestStore(project)
    store.check_current()
    assert {uid: node.get("stage") for uid, node in store.read("all")["nodes"].items()} == {
        "model.tiny.a": "bronze",
        "model.tiny.b": None,
    }
    assert list(store.read("chosen")["nodes"]) == list(store.read("several")["nodes"]) == ["model.tiny.b"]
    with pytest.raises(ManifestError) as caught:
        store.read("broken")
    assert str(caught.value) == str(built.errors["broken"]) == find_problems(project)["broken"]

    # What dbt cannot parse is dbt's message, now and in Airflow; nothing else is lost.
    write_files(project.root, {"dbt/models/b.sql": "select * from {{ ref('nowhere') }}"})
    with pytest.raises(ManifestError) as caught:
        build(project)
    problem = str(caught.value)
    assert problem.startswith("dbt cannot parse dbt:\n")
    assert "depends on a node named 'nowhere' which was not found" in problem
    (project.pipelines_dir / "broken.yml").unlink()
    with pytest.raises(ManifestError):
        build(project)
    assert find_problems(project) == {"": problem}

    # Mended, and with one pipeline less.
    write_files(project.root, MODELS)
    (project.pipelines_dir / "several.yml").unlink()
    assert build(project) == ["Parsing the dbt project."]
    assert find_problems(project) == {}
    assert {path.stem for path in project.manifest_dir.iterdir()} == {
        "index",
        "all",
        "chosen",
        "partial_parse",
    }


def test_a_folder_without_a_dbt_project(write_project: WriteProject) -> None:
    project = write_project({})
    (project.dbt_dir / "dbt_project.yml").unlink()
    with pytest.raises(ManifestError, match=r"there is no dbt_project\.yml") as error:
        build(project)
    assert find_problems(project) == {"": str(error.value)}


def test_settings_that_the_profile_needs_are_missed_before_dbt_runs(write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/all.yml": 'select: "*"\n'})
    build(project)
    assert find_problems(project) == {}
    profiles = project.profiles_dir / "profiles.yml"
    target = "{{ env_var('TARGET_THAT_NOBODY_SET') }}"
    profiles.write_text(profiles.read_text().replace("target: dev", f'target: "{target}"'))
    store = ManifestStore(project)
    store.write_index(fingerprint.take(project), None, {"all": None})
    assert "needs the environment variable TARGET_THAT_NOBODY_SET" in find_problems(project)[""]


def test_packages_that_cannot_be_installed_are_reported(write_project: WriteProject) -> None:
    project = write_project(
        {
            "dbt/models/a.sql": "select 1 as id",
            "dbt/packages/dbt_project.yml": "name: installer\nversion: '1.0'\nprofile: tiny\n",
            "dbt/packages/packages.yml": "packages: [{local: ../nowhere}]",
            "dbt/pipelines/p.yml": "select: a",
        }
    )
    first, second = build(project)
    assert first.startswith("dbt packages are not installed: ")
    assert first.endswith("; the pipelines run without them.")
    assert second == "Parsing the dbt project."
    assert ManifestStore(project).read("p")["nodes"]


def test_a_file_that_is_edited_during_the_build_makes_it_stale(write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/p.yml": "select: a"})
    build_manifests(project, lambda line: write_files(project.root, {"dbt/models/a.sql": "select 2 as id"}))
    assert ManifestStore(project).stale() == ["models/a.sql has changed"]


def test_dbt_writes_nothing_but_its_target_folder(write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/p.yml": "select: a"})
    before = {path for path in project.root.rglob("*") if path.is_file()}
    build(project)
    made = {path for path in project.root.rglob("*") if path.is_file()} - before
    assert made
    assert {path.relative_to(project.dbt_dir).parts[0] for path in made} == {"target"}
    assert (
        json.loads((project.target_dir / "manifest.json").read_bytes())["metadata"]["project_name"] == "tiny"
    )
