"""From which parse the build and its runs begin, with dbt itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import BASE, WriteProject
from orrery.config.project import Project
from orrery.manifest.build import build_manifests
from orrery.manifest.dbt import Dbt
from unit.manifest import noted

FILES = {
    "dbt/dbt_project.yml": (
        "name: tiny\nversion: '1.0'\nprofile: tiny\n"
        "models: {+docs: {node_color: \"{{ var('color', 'red') }}\"}}\n"
    ),
    "dbt/macros/alias.sql": (
        "{% macro generate_alias_name(custom_alias_name=none, node=none) -%}"
        " {{ node.name ~ var('suffix', '') }} {%- endmacro %}"
    ),
    "dbt/models/a.sql": "select '{{ var('day', 'today') }}' as day",
    "dbt/models/b.sql": "{{ config(enabled=var('load', true)) }} select 1 as id",
    **{f"dbt/models/c{number}.sql": "select 1 as id" for number in range(5)},
    "dbt/pipelines/all.yml": "select: '*'",
}
# So little is to be parsed that nothing else counts.
WHOLE = {name.removeprefix("dbt/") for name in FILES if name.startswith("dbt/models/")}


@pytest.fixture
def project(write_project: WriteProject) -> Iterator[Project]:
    with noted.noting():
        project = write_project(FILES)
        build_manifests(project, lambda line: None)
        yield project


def run(project: Project, folder: Path, **variables: Any) -> Any:
    """The nodes of a run, which has a folder of its own."""
    return Dbt(project, target_dir=folder, variables=variables).manifest.nodes


def test_a_run_parses_what_reads_its_vars(project: Project, tmp_path: Path) -> None:
    for number, variables in enumerate(({"day": 1}, {"day": 2, "uri": "s3://a"}, {"day": 1})):
        run(project, tmp_path / str(number), **variables)
        assert noted.for_vars() == noted.parsed() == {"models/a.sql"}
    run(project, tmp_path / "uri", uri="s3://b")
    assert noted.for_vars() == noted.parsed() == set()
    run(project, tmp_path / "none")
    assert noted.parsed() == set()
    assert noted.for_vars() is None


def test_a_parse_of_everything_is_for_the_next_run_with_these_vars(project: Project, tmp_path: Path) -> None:
    assert "model.tiny.b" not in run(project, tmp_path / "1", load=False, day=1)
    assert noted.in_vain()
    assert noted.parsed() >= WHOLE
    assert "model.tiny.b" not in run(project, tmp_path / "2", load=False, day=2)
    assert noted.parsed() == {"models/a.sql"}
    nodes = run(project, tmp_path / "3", color="blue", load=False)
    assert nodes["model.tiny.a"].docs.node_color == "blue"
    assert noted.parsed() >= WHOLE
    run(project, tmp_path / "4", color="blue", load=False)
    assert noted.parsed() == set()
    nodes = run(project, tmp_path / "5", day=2)
    assert noted.parsed() == {"models/a.sql"}
    assert nodes["model.tiny.a"].docs.node_color == "red"
    assert "model.tiny.b" in nodes


def test_what_most_files_read_is_parsed_once(project: Project, tmp_path: Path) -> None:
    nodes = run(project, tmp_path / "1", suffix="_x")
    assert nodes["model.tiny.a"].alias == "a_x"
    assert noted.parsed() >= WHOLE
    assert noted.for_vars() is None
    assert not noted.in_vain()
    run(project, tmp_path / "2", suffix="_x", day=1)
    assert noted.parsed() == {"models/a.sql"}


def test_what_was_parsed_for_another_profile_is_for_other_vars_too(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with the profile that is made of an Airflow connection."""
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path))
    (tmp_path / "profiles.yml").write_text(BASE["dbt/profiles.yml"].replace("127.0.0.1", "there"))
    run(project, tmp_path / "1", day=1)
    assert noted.parsed() >= WHOLE
    run(project, tmp_path / "2", day=2)
    assert noted.parsed() == {"models/a.sql"}


def test_a_build_parses_for_pipelines_what_reads_their_vars(project: Project) -> None:
    pipeline = project.pipelines_dir / "vars.yml"
    for text, files in (
        ("{day: 1}", {"models/a.sql"}),
        ("{color: blue}", WHOLE),
        ("{color: blue, day: 2}", {"models/a.sql"}),
    ):
        pipeline.write_text(f"select: a\nvars: {text}\n")
        assert build_manifests(project, lambda line: None).nodes == {"all": 7, "vars": 1}
        assert noted.parsed() == files


def test_a_run_begins_from_what_the_build_has_parsed_for_its_pipeline(
    project: Project, tmp_path: Path
) -> None:
    (project.pipelines_dir / "vars.yml").write_text("select: a\nvars: {color: blue}\n")
    build_manifests(project, lambda line: None)
    assert noted.parsed() >= WHOLE
    run(project, tmp_path / "run", color="blue", day=3)
    assert noted.parsed() == {"models/a.sql"}


def test_edits_since_the_build_are_parsed_too(project: Project, tmp_path: Path) -> None:
    (project.dbt_dir / "models" / "c1.sql").write_text("select '{{ var('new', 1) }}' as id")
    nodes = run(project, tmp_path / "1", new=2, day=3)
    assert noted.parsed() == {"models/a.sql", "models/c1.sql"}
    assert "var('new', 1)" in nodes["model.tiny.c1"].raw_code
