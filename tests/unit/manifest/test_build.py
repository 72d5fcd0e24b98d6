"""`./orrery build` on real dbt projects."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import BASE, WriteProject, write_files
from orrery.config.project import Project
from orrery.manifest.build import build_manifests
from orrery.manifest.dbt import Dbt
from orrery.manifest.parses import vars_folder
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
    assert store.stale() == []
    assert {uid: node.get("stage") for uid, node in store.read("all")["nodes"].items()} == {
        "model.tiny.a": "bronze",
        "model.tiny.b": None,
    }
    assert list(store.read("chosen")["nodes"]) == list(store.read("several")["nodes"]) == ["model.tiny.b"]
    with pytest.raises(ManifestError) as caught:
        store.check("broken")
    assert [str(caught.value)] == [str(built.errors["broken"])] == find_problems(project)

    # What dbt cannot parse is dbt's message, now and in Airflow; nothing is lost.
    write_files(project.root, {"dbt/models/b.sql": "select *\nfrom {{ ref('nowhere') }}"})
    with pytest.raises(ManifestError) as caught:
        build(project)
    problem = str(caught.value)
    assert problem.startswith("dbt could not parse the project in dbt/:\n")
    assert "depends on a node named 'nowhere' which was not found" in problem
    (project.pipelines_dir / "broken.yml").unlink()
    (project.pipelines_dir / "several.yml").unlink()
    with pytest.raises(ManifestError):
        build(project)
    assert find_problems(project) == [problem]
    for name in ("all", "chosen", "several"):
        assert store.read(name)["nodes"]["model.tiny.b"]["raw_code"] == MODELS["dbt/models/b.sql"]

    # Put right, and with one pipeline less.
    write_files(project.root, {"dbt/models/b.sql": MODELS["dbt/models/b.sql"]})
    assert build(project) == ["Parsing the dbt project."]
    assert find_problems(project) == []
    assert set(store.entries()) == {"all", "chosen"}


CYCLE = {
    "dbt/models/bronze/a.sql": "select * from {{ ref('c') }}",
    "dbt/models/b.sql": "select * from {{ ref('a') }}",
    "dbt/models/c.sql": "select * from {{ ref('b') }}",
}


def test_a_cycle_is_told_once_with_its_models_and_files(write_project: WriteProject) -> None:
    project = write_project(MODELS)
    build(project)
    write_files(project.root, CYCLE)
    with pytest.raises(ManifestError) as caught:
        build(project)
    text = str(caught.value)
    first, *lines = text.splitlines()
    assert first.startswith("dbt could not order the models in dbt/: Found a cycle: model.tiny.")
    assert sorted(lines[:-1]) == [
        "  model.tiny.a (dbt/models/bronze/a.sql) reads model.tiny.c",
        "  model.tiny.b (dbt/models/b.sql) reads model.tiny.a",
        "  model.tiny.c (dbt/models/c.sql) reads model.tiny.b",
    ]
    assert find_problems(project) == [text]
    assert all(ManifestStore(project).read(name)["nodes"] for name in ("all", "chosen", "several"))


def test_a_project_in_which_dbt_refuses_every_selection_is_told_once(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As it was with a cycle, before there was a look for one.
    monkeypatch.setattr("orrery.manifest.dbt.cycle", lambda project, manifest: None)
    project = write_project(MODELS | CYCLE)
    with pytest.raises(ManifestError, match=r"^Found a cycle: [^\n]+$"):
        build(project)


@pytest.mark.parametrize("flag", ["write_json", "partial_parse"])
def test_the_flags_of_the_project_do_not_hide_what_dbt_writes(write_project: WriteProject, flag: str) -> None:
    project = write_project(
        {**MODELS, "dbt/dbt_project.yml": f"{BASE['dbt/dbt_project.yml']}flags: {{{flag}: false}}\n"}
    )
    build(project)
    write_files(project.root, {"dbt/models/bronze/a.sql": "select 2 as id"})
    build(project)
    assert ManifestStore(project).read("all")["nodes"]["model.tiny.a"]["raw_code"] == "select 2 as id"


def test_a_folder_without_a_dbt_project(write_project: WriteProject) -> None:
    project = write_project({})
    (project.dbt_dir / "dbt_project.yml").unlink()
    with pytest.raises(ManifestError, match=r"there is no dbt_project\.yml") as error:
        build(project)
    assert find_problems(project) == [str(error.value)]


def test_settings_that_the_profile_needs_are_missed_before_dbt_runs(write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/all.yml": 'select: "*"\n'})
    build(project)
    assert find_problems(project) == []
    profiles = project.profiles_dir / "profiles.yml"
    target = "{{ env_var('TARGET_THAT_NOBODY_SET') }}"
    profiles.write_text(profiles.read_text().replace("target: dev", f'target: "{target}"'))
    (told,) = find_problems(project)
    assert "needs the environment variable TARGET_THAT_NOBODY_SET" in told


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


BUILD = (
    "from orrery.config.project import Project; from orrery.manifest.build import build_manifests; "
    "print(dict(build_manifests(Project.find(), lambda line: print(line, flush=True)).nodes))"
)


def test_a_build_waits_for_another_one(write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/p.yml": "select: a"})
    store = ManifestStore(project)
    command = [sys.executable, "-c", BUILD]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3] / "include")}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as second:
        assert second.stdout
        with store.lock(print):
            # It must not come to the project while this one has it.
            assert second.stdout.readline() == "Another ./orrery is building: waiting for it.\n"
            assert store.stale() == ["there is no manifest yet"]
            assert not store.parse_dir.exists()
        assert second.communicate()[0].splitlines()[-1] == "{'p': 1}"
    assert store.stale() == []


def test_who_has_waited_does_not_build_again(write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/p.yml": "select: a"})
    build(project)
    before = ManifestStore(project).index_path.stat()
    lines: list[str] = []
    assert build_manifests(project, lines.append, only_if_stale=True).nodes == {}
    assert lines == []
    assert ManifestStore(project).index_path.stat() == before


def test_what_others_leave_in_the_target_folder_is_not_read(write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/p.yml": "select: a"})
    # Another dbt is at work there.
    half = {name: project.target_dir / name for name in ("manifest.json", "partial_parse.msgpack")}
    project.target_dir.mkdir()
    for path in half.values():
        path.write_bytes(b'{"nodes": {')
    build(project)
    assert ManifestStore(project).read("p")["nodes"]
    assert {path.read_bytes() for path in half.values()} == {b'{"nodes": {'}


def test_dbt_writes_nothing_but_its_target_folder(write_project: WriteProject) -> None:
    project = write_project({"dbt/models/a.sql": "select 1 as id", "dbt/pipelines/p.yml": "select: a"})
    before = {path for path in project.root.rglob("*") if path.is_file()}
    build(project)
    made = {path for path in project.root.rglob("*") if path.is_file()} - before
    assert made
    assert {path.relative_to(project.dbt_dir).parts[0] for path in made} == {"target"}


def test_a_pipeline_with_vars_is_built_with_them(write_project: WriteProject) -> None:
    project = write_project(
        {
            "dbt/models/always.sql": "select 1 as id",
            "dbt/models/loads.sql": "{{ config(enabled=var('load', false)) }} select {{ var('day', 1) }}",
            "dbt/pipelines/plain.yml": "select: '*'",
            "dbt/pipelines/loading.yml": "select: '*'\nvars: {load: true, day: 2026-01-31}",
            "dbt/pipelines/same.yml": "select: loads\nvars: {day: 2026-01-31, load: true}",
            "dbt/pipelines/broken.yml": "select: '*'\nvars: {load: [what]}",
        }
    )
    parses: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        parse = Dbt.parse
        patch.setattr(Dbt, "parse", lambda dbt: (parses.append(dbt.variables), parse(dbt))[1])
        built = build_manifests(project, lambda _: None)
    assert built.nodes == {"plain": 1, "loading": 2, "same": 1}
    # Once for each set of vars, each with a partial parse of its own.
    assert parses == [{}, {"load": ["what"]}, {"load": True, "day": "2026-01-31"}]
    folder = vars_folder(project, {"load": True, "day": "2026-01-31"})
    assert (folder / "partial_parse.msgpack").is_file()
    message = str(built.errors["broken"])
    assert message.startswith(
        "dbt/pipelines/broken.yml:2:1: dbt could not parse the project with these vars:"
    )
    # What no pipeline has any more is removed.
    for name in ("loading", "same", "broken"):
        (project.pipelines_dir / f"{name}.yml").unlink()
    build_manifests(project, lambda _: None)
    assert not folder.exists()


SOURCES = """
sources:
  - name: app
    freshness: {error_after: {count: 1, period: day}}
    tables:
      - {name: known, loaded_at_field: at}
      - {name: asked, loaded_at_query: select now()}
      - name: unknown
      - {name: own, freshness: {warn_after: {count: 1, period: hour}}}
      - {name: never, freshness: null}
"""


def test_a_pipeline_says_what_becomes_of_sources_whose_age_dbt_cannot_tell(
    write_project: WriteProject,
) -> None:
    names = ("known", "asked", "unknown", "own", "never")
    project = write_project(
        {
            "dbt/models/sources.yml": SOURCES,
            **{
                f"dbt/models/{name}.sql": f"select * from {{{{ source('app', '{name}') }}}}" for name in names
            },
            "dbt/pipelines/checks.yml": "select: '*'",
            "dbt/pipelines/strict.yml": "select: '*'\nfreshness: require",
            "dbt/pipelines/none.yml": "select: '*'\nfreshness: off",
        }
    )
    lines: list[str] = []
    built = build_manifests(project, lines.append)
    assert built.nodes == {"checks": 7, "none": 5}
    store = ManifestStore(project)
    assert set(store.read("checks")["sources"]) == {"source.tiny.app.known", "source.tiny.app.asked"}
    told = [line.partition(": the age of the source ")[::2] for line in lines if "the age" in line]
    assert [(place, text.partition(" is not")[0]) for place, text in told] == [
        ("dbt/models/sources.yml:9", "app.own"),
        ("dbt/models/sources.yml:4", "app.unknown"),
    ]
    assert str(built.errors["strict"]).startswith(
        "dbt/models/sources.yml:9:21: the age of the source app.own is not checked: it has neither"
    )
