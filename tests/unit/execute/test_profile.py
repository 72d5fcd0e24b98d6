"""dbt's profile made of an Airflow connection."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from conftest import write_files
from orrery.config.project import Project
from orrery.execute import profile
from orrery.execute.profile import CONNECTION, use_connection
from orrery.manifest.profile import ProfileError, read_output

FILES = {
    "dbt/dbt_project.yml": "profile: shop\n",
    "dbt/profiles.yml": (
        "shop:\n  target: prod\n  outputs:\n    prod:\n      {type: postgres, host: here, user: me,"
        " dbname: x, password: p, schema: prod, threads: \"{{ env_var('N', '3') | as_number }}\"}\n"
    ),
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project for PostgreSQL; what is set for dbt is forgotten afterwards."""
    write_files(tmp_path, FILES)
    profile._profile_of.cache_clear()
    for name in ("DBT_PROFILES_DIR", "DBT_ENV_SECRET_COSMOS_CONN_POSTGRES_PASSWORD"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("AIRFLOW_CONN_PG", "postgres://writer:s3cret@there:5433/shop")
    monkeypatch.setenv("AIRFLOW_CONN_WEB", "http://there")
    monkeypatch.setenv(CONNECTION, "pg")
    return Project(tmp_path)


def test_dbt_reaches_the_warehouse_by_the_connection(project: Project, tmp_path: Path) -> None:
    for _ in range(2):
        use_connection(project, tmp_path / "run")
        output = read_output(project)
        assert output | {"password": ""} == {
            "type": "postgres",
            "host": "there",
            "port": 5433,
            "user": "writer",
            "password": "",
            "dbname": "shop",
            "schema": "prod",
            "threads": 3,
        }
        assert output["password"] == "s3cret"
    text = (tmp_path / "run" / "profiles" / "profiles.yml").read_text()
    assert "s3cret" not in text
    assert yaml.safe_load(text)["shop"]["target"] == "prod"


def test_without_a_connection_it_is_profiles_yml(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONNECTION, "")
    use_connection(project, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert os.environ["DBT_PROFILES_DIR"] == ""


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        ("none", "Airflow has no connection 'none'"),
        ("web", "makes no profile of the connection 'web'"),
        ("pg", "is for postgres, the target 'prod' of dbt/profiles.yml is of the type redshift"),
    ],
)
def test_a_connection_that_does_not_fit(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connection: str, message: str
) -> None:
    monkeypatch.setenv(CONNECTION, connection)
    if connection == "pg":
        file = project.profiles_dir / "profiles.yml"
        file.write_text(file.read_text().replace("type: postgres", "type: redshift"))
    with pytest.raises(ProfileError, match=message):
        use_connection(project, tmp_path)
