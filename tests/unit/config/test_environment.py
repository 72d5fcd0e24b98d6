"""Names that carry the environment, and the settings of a project in a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import write_files
from orrery.config.environment import environment, named, read_settings
from orrery.config.errors import ConfigError
from orrery.config.loader import load_pipelines
from orrery.config.project import Project


def test_pipelines_are_named_after_their_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"first": "select: a\n", "second": "select: b\nschedule: {after: [first]}\n"}
    write_files(tmp_path, {f"dbt/pipelines/{name}.yml": text for name, text in files.items()})
    assert load_pipelines(Project(tmp_path)).names == ["first", "second"]
    monkeypatch.setenv("ORRERY_ENVIRONMENT", "prod")
    pipelines = load_pipelines(Project(tmp_path))
    assert pipelines.names == ["first_prod", "second_prod"]
    assert pipelines.get("second").config.after == ("first_prod",)
    assert pipelines.get("second_prod") is pipelines.get("second")
    assert named(named("first")) == "first_prod"
    with pytest.raises(ConfigError) as caught:
        pipelines.get("frst")
    assert str(caught.value) == "dbt/pipelines/frst.yml: no such pipeline\n  Did you mean 'first_prod'?"


def test_a_name_has_to_fit_into_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_ENVIRONMENT", "Prod-EU")
    with pytest.raises(ConfigError, match="'Prod-EU' cannot be the name of an environment"):
        environment()


def test_the_file_of_a_project_is_stronger_than_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORRERY_TARGET", "dev")
    monkeypatch.setenv("ORRERY_ENVIRONMENT", "")
    monkeypatch.setenv("ORRERY_PROJECT_DIR", str(tmp_path))
    (tmp_path / "orrery.env").write_text("# Production\n\nORRERY_TARGET=prod\nORRERY_ENVIRONMENT = eu\n")
    with pytest.raises(ConfigError, match=r"orrery.env:4.*this is no setting"):
        Project.find()
    (tmp_path / "orrery.env").write_text("ORRERY_TARGET=prod\nORRERY_ENVIRONMENT=\n")
    assert Project.find().root == tmp_path
    assert os.environ["ORRERY_TARGET"] == "prod"
    (tmp_path / "orrery.env").unlink()
    read_settings(tmp_path)


def test_a_dag_file_tells_its_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORRERY_PROJECT_DIR", "/elsewhere")
    file = str(tmp_path / "dags" / "orrery.py")
    assert Project.of_dag_file(file).root == Path("/elsewhere")
    write_files(tmp_path, {"dbt/dbt_project.yml": ""})
    assert Project.of_dag_file(file).root == tmp_path
    assert Project.find().root == tmp_path
