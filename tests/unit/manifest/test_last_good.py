"""What a run does while dbt cannot parse the project."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conftest import WriteProject, write_files
from orrery.config.project import Project
from orrery.manifest.build import build_manifests
from orrery.manifest.dbt import Dbt, DbtError
from orrery.manifest.store import ManifestStore

FILES = {
    "dbt/models/a.sql": (
        "{{ config(meta={'day': var('day', 'today')}) }}"
        "select {{ env_var('LIMIT', '1') }} as id, '{{ var('day', 'today') }}' as day"
    ),
    "dbt/models/b.sql": "select * from {{ ref('a') }}",
    "dbt/models/models.yml": "models: [{name: b, columns: [{name: id, data_tests: [not_null]}]}]",
    "dbt/pipelines/all.yml": "select: '*'",
    "dbt/pipelines/monday.yml": "select: '*'\nvars: {day: monday}",
}
BROKEN = {"dbt/models/a.sql": "select * from {{ ref('nowhere') }}"}
MESSAGE = "depends on a node named 'nowhere' which was not found"


@pytest.fixture
def project(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that is built, and that dbt cannot parse any more."""
    monkeypatch.setenv("LIMIT", "7")
    project = write_project(FILES)
    build_manifests(project, lambda line: None)
    write_files(project.root, BROKEN)
    with pytest.raises(Exception, match=MESSAGE):
        build_manifests(project, lambda line: None)
    return project


def dbt_of(project: Project, tmp_path: Path, **choices: Any) -> Dbt:
    """dbt as a run uses it."""
    return Dbt(project, target_dir=tmp_path / "run", **choices)


def test_a_run_goes_on_with_the_last_good_build(
    project: Project, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dbt = dbt_of(project, tmp_path)
    nodes: Any = dbt.manifest.nodes
    assert nodes["model.tiny.a"].raw_code == FILES["dbt/models/a.sql"]
    good = ManifestStore(project).index().good
    assert good
    assert MESSAGE in caplog.text
    at = good["at"][:19].replace("T", " ")
    assert f"This run goes on with the project as it was built at {at} UTC." in caplog.text
    # It does what one does that dbt has just parsed.
    found = dbt.select(("+b",))
    assert {"model.tiny.a", "model.tiny.b"} < found
    assert len(found) == 3
    written = json.loads((tmp_path / "run" / "manifest.json").read_bytes())
    assert written["nodes"].keys() == nodes.keys()
    result = dbt.run(
        ["compile"],
        lambda event: None,
        **dbt.exactly(["model.tiny.a"]),
        introspect=False,
        populate_cache=False,
    )
    assert "select 7 as id" in nodes["model.tiny.a"].compiled_code, result.exception


def test_a_run_goes_on_when_nodes_read_each_other(
    write_project: WriteProject, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """dbt parses such a project, and refuses to order its nodes."""
    project = write_project(FILES)
    build_manifests(project, lambda line: None)
    write_files(project.root, {"dbt/models/a.sql": "select * from {{ ref('b') }}"})
    dbt = dbt_of(project, tmp_path)
    nodes: Any = dbt.manifest.nodes
    assert nodes["model.tiny.a"].raw_code == FILES["dbt/models/a.sql"]
    assert "Found a cycle" in caplog.text
    with pytest.raises(DbtError, match=r"model.tiny.b \(dbt/models/b.sql\) reads model.tiny.a"):
        _ = dbt_of(project, tmp_path, variables={"day": "yesterday"}).manifest


@pytest.mark.parametrize("other", ["variable", "default", "vars", "target"])
def test_one_that_would_be_another_project_here_is_not_used(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    choices = {}
    match other:
        case "variable":
            monkeypatch.setenv("LIMIT", "8")
        case "default":
            monkeypatch.delenv("LIMIT")
        case "vars":
            choices = {"variables": {"day": "yesterday"}}
        case "target":
            profiles = project.profiles_dir / "profiles.yml"
            profiles.write_text(profiles.read_text().replace("dev", "prod"))
    with pytest.raises(DbtError, match=MESSAGE):
        _ = dbt_of(project, tmp_path, **choices).manifest


def test_vars_that_nobody_reads_make_no_other_project(project: Project, tmp_path: Path) -> None:
    nodes: Any = dbt_of(project, tmp_path, variables={"uri": "s3://bucket/new"}).manifest.nodes
    assert nodes["model.tiny.a"].raw_code == FILES["dbt/models/a.sql"]


def test_a_pipeline_with_vars_goes_on_with_its_own_last_good_build(project: Project, tmp_path: Path) -> None:
    dbt = dbt_of(project, tmp_path, variables={"day": "monday"})
    nodes: Any = dbt.manifest.nodes
    assert nodes["model.tiny.a"].raw_code == FILES["dbt/models/a.sql"]
    assert nodes["model.tiny.a"].config.meta == {"day": "monday"}
    assert len(dbt.select(("+b",))) == 3


def test_a_project_that_was_never_good_says_what_is_wrong(
    write_project: WriteProject, tmp_path: Path
) -> None:
    with pytest.raises(DbtError, match=MESSAGE):
        _ = dbt_of(write_project(BROKEN), tmp_path).manifest
