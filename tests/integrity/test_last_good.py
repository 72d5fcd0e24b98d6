"""No DAG vanishes, whatever happens to the project; and one pipeline's fault is its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from conftest import WriteProject, write_files
from integrity.conftest import ROOT, import_errors, load, silent
from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.manifest.build import build_manifests
from orrery.manifest.store import ManifestError, ManifestStore
from orrery.render import loader
from orrery.render.prove import prove
from support import manifests

FILES = {
    "dbt/models/a.sql": "select 1 as id",
    "dbt/models/b.sql": "select * from {{ ref('a') }}",
    "dbt/models/groups.yml": "groups: [{name: team, owner: {name: Ann}}]",
    "dbt/pipelines/one.yml": "select: a\nowner: team\n",
    "dbt/pipelines/two.yml": "select: b\nschedule: {after: one}\n",
    "dags/orrery.py": (ROOT / "dags" / "orrery.py").read_text(),
    "dags/orrery_problems.py": (ROOT / "dags" / "orrery_problems.py").read_text(),
}
TASKS = {"one": {"build", "core.a", "finished"}, "two": {"build", "core.b"}}


class Unwritable:
    """Airflow makes a text of what it does not know."""

    def __str__(self) -> str:
        raise ValueError("this cannot be written")


class Proves:
    """Tries the DAGs of a build in this process, as the command does in another one."""

    proof = "tried in a test"

    def __init__(self, project: Project) -> None:
        self._project = project
        self.tried: set[str] = set()

    def __call__(self, files: Any) -> Any:
        self.tried |= set(files)
        return prove(self._project, files)


@pytest.fixture
def project(write_project: WriteProject) -> Project:
    """A project that is built."""
    project = write_project(FILES)
    assert build_manifests(project, silent).errors == {}
    return project


def tasks(project: Project) -> dict[str, set[str]]:
    """The tasks of each DAG that Airflow has of the project."""
    return {name: set(dag.task_dict) for name, dag in load(project.root).dags.items()}


def build(project: Project) -> str:
    """Build, and return what is wrong, as the command prints it."""
    try:
        errors = build_manifests(project, silent).errors
    except ManifestError as error:
        return str(error)
    return "\n\n".join(map(str, errors.values()))


# What may happen to a project, and what is then said. {} is a file that goes.
HARM: dict[str, tuple[dict[str, str | None], str]] = {
    "a reference to nothing": (
        {"dbt/models/b.sql": "select * from {{ ref('aa') }}"},
        "depends on a node named 'aa'",
    ),
    "a circle": ({"dbt/models/a.sql": "select * from {{ ref('b') }}"}, "Found a cycle"),
    "half a template": ({"dbt/models/b.sql": "select {{"}, "Compilation Error in model b (models/b.sql)"),
    "a broken project file": ({"dbt/dbt_project.yml": "name: [tiny"}, "not valid YAML"),
    "no project file": ({"dbt/dbt_project.yml": None}, "there is no dbt_project.yml"),
    "another profile": ({"dbt/profiles.yml": "other: {}"}, "there is no profile 'tiny'"),
    "a variable that is not set": (
        {"dbt/models/b.sql": "select {{ env_var('NOT_SET_ANYWHERE') }}"},
        "the environment variable NOT_SET_ANYWHERE is not set",
    ),
    "packages that are not there": (
        {"dbt/packages.yml": "packages: [{package: a/b, version: 1.0.0}]"},
        "it lists packages that are not installed",
    ),
    "a typo in the file of a pipeline": ({"dbt/pipelines/one.yml": "selct: a\n"}, "unknown key 'selct'"),
    "a selection of nothing": ({"dbt/pipelines/one.yml": "select: nothing\n"}, "matches no node"),
}


def test_every_dag_stays_as_it_was_until_the_next_good_build(project: Project) -> None:
    for what, (files, told) in HARM.items():
        before = {name: (project.root / name).read_text() for name in files if (project.root / name).exists()}
        for name, text in files.items():
            if text is None:
                (project.root / name).unlink()
            else:
                write_files(project.root, {name: text})
        if "typo" in what:
            # Without a build, too.
            bag = load(project.root)
            assert {name: set(dag.task_dict) for name, dag in bag.dags.items()} == TASKS
            assert told in "".join(bag.import_errors.values())
        printed = build(project)
        assert told in printed, what
        bag = load(project.root)
        assert {name: set(dag.task_dict) for name, dag in bag.dags.items()} == TASKS, what
        # Once, and word for word as the build has printed it.
        assert [error.strip() for error in bag.import_errors.values()] == [printed], what
        touched = {"one"} if "pipeline" in what or "selection" in what else {"one", "two"}
        for name, dag in bag.dags.items():
            note = dag.doc_md.partition("\n")[0]
            assert note.startswith("**Runs on the version of 20") is (name in touched), what
            assert ("has an error since 20" in note) is (name in touched), what
        for name in files.keys() - before.keys():
            (project.root / name).unlink()
        write_files(project.root, before)
    assert build(project) == ""
    bag = load(project.root)
    assert bag.import_errors == {}
    assert {name: set(dag.task_dict) for name, dag in bag.dags.items()} == TASKS
    assert not any("has an error" in dag.doc_md for dag in bag.dags.values())


def test_a_pipeline_goes_with_its_file_at_the_next_good_build(project: Project) -> None:
    (project.pipelines_dir / "two.yml").unlink()
    write_files(project.root, {"dbt/models/b.sql": "select {{"})
    assert "Compilation Error" in build(project)
    assert tasks(project) == TASKS
    write_files(project.root, {"dbt/models/b.sql": FILES["dbt/models/b.sql"]})
    assert build(project) == ""
    assert tasks(project) == {"one": {"build", "core.a"}}


def test_another_target_takes_no_dag_away(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBT_TARGET", "nowhere")
    assert tasks(project) == TASKS
    assert "does not have a target named 'nowhere'" in build(project)
    assert tasks(project) == TASKS
    monkeypatch.setenv("DBT_TARGET", "dev")
    assert tasks(project) == TASKS


def test_manifests_of_another_orrery_are_built_again_and_it_says_so(project: Project) -> None:
    store = ManifestStore(project)
    store.index_path.write_text('{"format": 4, "files": {}, "problem": null, "pipelines": {}}')
    assert tasks(project) == {}
    (error,) = import_errors(project.root).values()
    assert error.strip() == (
        "dbt/target/orrery/index.json: the manifest is not current: another version of Orrery has built it.\n"
        "  Run ./orrery build"
    )
    assert build(project) == ""
    assert tasks(project) == TASKS


@pytest.mark.parametrize("fault", ["render", "serialize", "store", "own"])
def test_a_dag_that_cannot_be_made_or_stored_takes_no_other_away(
    project: Project, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    made = loader.render

    def render(plan: Any, *arguments: Any, **choices: Any) -> DAG:
        dag = made(plan, *arguments, **choices)
        if plan.name == "one":
            match fault:
                case "render":
                    raise TypeError("unhashable type: 'list'")
                case "serialize":
                    dag.get_task("core.a").doc_md = Unwritable()
                case "store":
                    dag.get_task("core.a").doc_md = "a\0b"
                case "own":
                    raise OrreryError("dbt/pipelines/one.yml: this is what is wrong")
        return dag

    monkeypatch.setattr(loader, "render", render)
    bag = load(project.root)
    assert set(bag.dags) == {"two"}
    assert {Path(name).name for name in bag.import_errors} == {"orrery_problems.py"}
    (error,) = bag.import_errors.values()
    assert error.startswith("dbt/pipelines/one.yml: this" if fault == "own" else "one: ")
    # A build finds the same, and keeps the version of before.
    before = ManifestStore(project).path("one")
    write_files(project.root, {"dbt/models/a.sql": "select 2 as id", "dbt/models/b.sql": "select 2 as b"})
    proves = Proves(project)
    built = build_manifests(project, silent, prove=proves)
    assert (proves.tried, set(built.errors), set(built.nodes)) == ({"one", "two"}, {"one"}, {"two"})
    assert str(built.errors["one"]).strip() == error.strip()
    assert ManifestStore(project).path("one") == before
    # Put right, it is tried again; what has not changed is not.
    monkeypatch.setattr(loader, "render", made)
    proves = Proves(project)
    assert build_manifests(project, silent, prove=proves).errors == {}
    assert proves.tried == {"one"}
    assert ManifestStore(project).path("one") != before


def test_owners_are_cut_to_what_airflow_stores(write_project: WriteProject) -> None:
    names = {f"m{number}": f"{number} " + "long name " * 30 for number in range(60)}
    groups = [f"{{name: g_{name}, owner: {{name: '{owner}'}}}}" for name, owner in names.items()]
    project = write_project(
        {
            **FILES,
            **{f"dbt/models/{name}.sql": f"{{{{ config(group='g_{name}') }}}} select 1" for name in names},
            "dbt/models/groups.yml": f"groups: [{{name: team, owner: {{name: Ann}}}}, {', '.join(groups)}]",
            "dbt/pipelines/one.yml": "select: m*\n",
        }
    )
    proves = Proves(project)
    assert build_manifests(project, silent, prove=proves).errors == {}
    assert proves.tried == {"one", "two"}
    owners = {task.owner for task in load(project.root).dags["one"].tasks}
    assert len(owners) == 61
    assert len(", ".join(owners)) < 2000


def test_a_process_without_the_file_of_a_version_tells_it(project: Project) -> None:
    ManifestStore(project).path("one").unlink()
    bag = load(project.root)
    assert set(bag.dags) == {"two"}
    (error,) = bag.import_errors.values()
    assert "cannot be read" in error


def test_the_command_tries_dags_in_another_process(project: Project) -> None:
    from orrery.cli.prover import prover

    lines: list[str] = []
    write_files(project.root, {"dbt/models/a.sql": "select 3 as id"})
    # A file that is none of a build.
    bad = project.manifest_dir / "bad.json"
    bad.write_text("{")
    with prover(project, lines.append) as tries:
        assert tries.proof
        found = tries({"one": ManifestStore(project).path("one"), "bad": bad})
    assert list(found) == ["bad"]
    assert lines == []
    assert os.environ.get("AIRFLOW_HOME")


def test_one_that_cannot_start_is_no_error_of_the_build(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orrery.cli import prover as module

    monkeypatch.setattr(module, "_MODULE", "orrery.nowhere")
    lines: list[str] = []
    with module.prover(project, lines.append) as tries:
        assert build_manifests(project, silent, prove=tries).errors == {}
    (line,) = lines
    assert line.startswith("The DAGs were not tried before Airflow gets them: ")
    assert "orrery.nowhere" in line
    assert manifests.pipeline("one").name in tasks(project)
