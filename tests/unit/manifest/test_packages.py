"""Which dbt packages are there, and what dbt is told of them."""

from __future__ import annotations

import os

import pytest

from conftest import WriteProject, write_files
from orrery.config.project import Project
from orrery.manifest import fingerprint, packages
from orrery.manifest.build import build_manifests
from orrery.manifest.store import ManifestStore

# Of Elementary only its name: a model, a hook, and a kind of test.
ELEMENTARY = {
    "dbt/dbt_packages/elementary/dbt_project.yml": (
        "name: elementary\nversion: '1.0'\non-run-end: \"{{ elementary.on_run_end() }}\"\n"
    ),
    "dbt/dbt_packages/elementary/models/dbt_models.sql": "select 1 as id",
    "dbt/dbt_packages/elementary/macros/hooks.sql": "{% macro on_run_end() %}{% endmacro %}",
    "dbt/dbt_packages/elementary/macros/tests.sql": (
        "{% test schema_changes(model) %}select 1 from {{ model }} where false{% endtest %}"
    ),
}
SHOP = {
    "dbt/models/a.sql": "select 1 as id",
    "dbt/models/a.yml": (
        "models:\n  - name: a\n    data_tests:\n      - elementary.schema_changes:\n          config:\n"
        "            enabled: \"{{ env_var('ORRERY_ELEMENTARY', '0') == '1' }}\"\n"
    ),
    "dbt/pipelines/asks.yml": "select: fqn:*\npublish: {elementary: true}\n",
    "dbt/pipelines/asks_not.yml": "select: fqn:*\npublish: {}\n",
}
TEST = "elementary_schema_changes_a_"


def names(project: Project, pipeline: str) -> set[str]:
    """The nodes and tests of a pipeline."""
    slim = ManifestStore(project).read(pipeline)
    return {resource["name"] for key in ("nodes", "tests") for resource in slim[key].values()}


def silent(line: str) -> None:
    """Report no progress."""


def test_elementary_takes_part_when_it_is_there(write_project: WriteProject) -> None:
    project = write_project(SHOP)
    assert build_manifests(project, silent).errors == {}
    assert names(project, "asks") == {"a"}
    assert not packages.has_elementary(project)

    # Once it is installed, the manifest is not the one of the project any more.
    write_files(project.root, ELEMENTARY)
    assert packages.has_elementary(project)
    (reason,) = ManifestStore(project).stale()
    assert reason == "other dbt packages are installed than it was built with"
    assert build_manifests(project, silent).errors == {}
    assert ManifestStore(project).stale() == []
    # Its models are no tasks, and its tests are for pipelines that ask for its report.
    assert names(project, "asks") == {"a", TEST}
    assert names(project, "asks_not") == {"a"}


def test_the_environment_can_say_otherwise(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project({**SHOP, **ELEMENTARY})
    monkeypatch.setenv("ORRERY_ELEMENTARY", "0")
    assert build_manifests(project, silent).errors == {}
    assert names(project, "asks") == {"a"}
    assert ManifestStore(project).stale() == []
    monkeypatch.delenv("ORRERY_ELEMENTARY")
    assert ManifestStore(project).stale() != []


def test_what_dbt_is_told_does_not_stay_in_the_environment(write_project: WriteProject) -> None:
    project = write_project({**SHOP, **ELEMENTARY})
    before = dict(os.environ)
    build_manifests(project, silent)
    assert dict(os.environ) == before
    folder = str(project.dbt_dir / "dbt_packages")
    assert packages.variables(project) == {"ORRERY_DBT_PACKAGES": folder, "ORRERY_ELEMENTARY": "1"}


def test_the_list_of_packages_is_part_of_the_fingerprint(write_project: WriteProject) -> None:
    project = write_project({"dbt/packages/packages.yml": "packages: []\n"})
    taken = fingerprint.take(project)
    write_files(project.root, {"dbt/packages/packages.yml": "packages: [{local: x}]\n"})
    assert fingerprint.changes(project, taken) == ["packages/packages.yml has changed"]
