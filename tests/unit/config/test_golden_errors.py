"""Every mistake in a pipeline file gets the message in golden/: file, line, column, key, fix.

ORRERY_UPDATE_GOLDEN=1 writes the messages anew; read each of them before you commit it.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from conftest import WriteProject, write_files
from orrery.config.loader import load_pipelines
from orrery.manifest.build import build_manifests

BROKEN = Path(__file__).parent / "broken"
GOLDEN = Path(__file__).parent / "golden"
# Cases in broken/dbt/ are valid YAML that does not fit the dbt project; the others need no dbt.
CASES = sorted(path for path in BROKEN.iterdir() if path.name != "dbt")

DBT_PROJECT = {
    "dbt/models/stg_bookings.sql": "{{ config(tags='bookings') }} select 1 as id",
    "dbt/models/fct_bookings.sql": "{{ config(tags='bookings') }} select * from {{ ref('stg_bookings') }}",
    "dbt/models/groups.yml": "groups: [{name: analytics, owner: {name: Analytics}}]",
    "dbt/selectors.yml": "selectors: [{name: marts, definition: {method: tag, value: marts}}]",
    "dbt/pipelines/fine.yml": "select: tag:bookings",
}


def check_golden(case: str, message: str) -> None:
    """Compare `message` with the golden one of `case`, or replace that when asked to."""
    path = GOLDEN / f"{case}.txt"
    if os.environ.get("ORRERY_UPDATE_GOLDEN") == "1":
        path.parent.mkdir(exist_ok=True)
        path.write_text(message + "\n", encoding="utf-8")
    assert message + "\n" == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_message(case: Path, write_project: WriteProject) -> None:
    project = write_project({})
    if case.is_dir():
        shutil.copytree(case, project.pipelines_dir)
    else:
        project.pipelines_dir.mkdir()
        shutil.copy(case, project.pipelines_dir)
    broken = load_pipelines(project).broken
    check_golden(case.stem, "\n\n".join(str(broken[name]) for name in sorted(broken)))


def test_messages_that_need_dbt(write_project: WriteProject) -> None:
    pods = "select: tag:bookings\nexecute: kubernetes\nkubernetes: {template: dbt_pods.yaml.j2}\n"
    project = write_project(DBT_PROJECT | {"dbt/pipelines/broken_template.yml": pods})
    cases = sorted((BROKEN / "dbt").iterdir())
    for case in cases:
        shutil.copy(case, project.pipelines_dir)
    built = build_manifests(project, lambda line: None)
    assert list(built.nodes) == ["fine"]
    # The place of this one is a template.
    assert str(built.errors.pop("broken_template")) == (
        "include/templates/dbt_pods.yaml.j2: no such template\n"
        "  Did you mean 'dbt_pod.yaml.j2'?\n"
        "  It is used in dbt/pipelines/broken_template.yml:3"
    )
    assert sorted(built.errors) == [case.stem for case in cases]
    for case in cases:
        check_golden(case.stem, str(built.errors[case.stem]))


def test_a_golden_message_names_place_and_fix() -> None:
    names = {path.stem for path in [*CASES, *(BROKEN / "dbt").iterdir()]}
    assert {path.stem for path in GOLDEN.iterdir()} == names
    for path in GOLDEN.iterdir():
        for problem in path.read_text(encoding="utf-8").strip().split("\n\n"):
            first, *rest = problem.splitlines()
            assert re.match(r"dbt/pipelines/\w+\.ya?ml(:\d+:\d+)?: \S", first), problem
            # The fix is one line below what is wrong, with a full stop or something to copy.
            assert re.match(r"  \S.*\S$", rest[-1]), problem
    # Only a name that is taken twice has no line to point at.
    without_line = {p.stem for p in GOLDEN.iterdir() if not re.match(r"\S+:\d+:\d+: ", p.read_text("utf-8"))}
    assert without_line == {"duplicate_name"}


def test_a_broken_file_leaves_the_others_valid(write_project: WriteProject) -> None:
    project = write_project({"dbt/pipelines/fine.yml": "select: tag:bookings"})
    for case in CASES:
        if case.is_file():
            shutil.copy(case, project.pipelines_dir)
    pipelines = load_pipelines(project)
    assert list(pipelines.valid) == ["fine"]
    assert set(pipelines.broken) == {case.stem for case in CASES if case.is_file()}
    write_files(project.root, {"dbt/pipelines/unknown_key.yml": "select: tag:bookings"})
    assert set(load_pipelines(project).valid) == {"fine", "unknown_key"}
