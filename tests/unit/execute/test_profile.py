"""dbt's profile made of an Airflow connection."""

from __future__ import annotations

import json
import os
import shutil
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
ROOT = Path(__file__).parents[3]
# What a key file of Google has, as far as it matters.
KEY = {
    "type": "service_account",
    "project_id": "tables",
    "private_key_id": "s3cret-id",
    "private_key": "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n",
    "client_email": "dbt@tables.iam.gserviceaccount.com",
}
KEY_ID_VARIABLE = "DBT_ENV_SECRET_COSMOS_CONN_GOOGLE_CLOUD_PLATFORM_PRIVATE_KEY_ID"
KEY_VARIABLE = KEY_ID_VARIABLE.removesuffix("_ID")


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


@pytest.fixture
def google(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project for BigQuery with the profile of this repository; its connection holds a key."""
    write_files(tmp_path, {"dbt/dbt_project.yml": "profile: orrery\n"})
    shutil.copy(ROOT / "dbt" / "profiles.yml", tmp_path / "dbt")
    profile._profile_of.cache_clear()
    for name in ("DBT_PROFILES_DIR", KEY_VARIABLE, KEY_ID_VARIABLE):
        monkeypatch.setenv(name, "")
    extra = {"project": "tables", "keyfile_dict": json.dumps(KEY)}
    known = {"conn_type": "google_cloud_platform", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_BQ", json.dumps(known))
    monkeypatch.setenv(CONNECTION, "bq")
    monkeypatch.setenv("ORRERY_TARGET", "bigquery")
    monkeypatch.setenv("ORRERY_BIGQUERY_PROJECT", "elsewhere")
    return Project(tmp_path)


def test_the_key_of_a_connection_to_bigquery(google: Project, tmp_path: Path) -> None:
    """It is in the environment alone; and of what the target does not set, the profile says nothing."""
    use_connection(google, tmp_path / "run")
    text = (tmp_path / "run" / "profiles" / "profiles.yml").read_text()
    assert "s3cret" not in text
    assert yaml.safe_load(text)["orrery"]["outputs"]["bigquery"] == {
        "type": "bigquery",
        "method": "service-account-json",
        "project": "tables",
        "execution_project": "elsewhere",
        "dataset": "dev",
        "priority": "interactive",
        "job_retries": 1,
        "threads": 8,
        "keyfile_json": KEY
        | {
            "private_key_id": f"{{{{ env_var('{KEY_ID_VARIABLE}') }}}}",
            "private_key": f"{{{{ env_var('{KEY_VARIABLE}') }}}}",
        },
    }
    assert (os.environ[KEY_VARIABLE], os.environ[KEY_ID_VARIABLE]) == (KEY["private_key"], "s3cret-id")


def test_limits_of_bigquery_are_those_of_the_target(
    google: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection of a workload identity has no secrets."""
    monkeypatch.setenv("AIRFLOW_CONN_BQ", "google-cloud-platform://?project=tables")
    for name, value in {"LOCATION": "EU", "MAXIMUM_BYTES_BILLED": "1000", "TIMEOUT": "60"}.items():
        monkeypatch.setenv(f"ORRERY_BIGQUERY_{name}", value)
    use_connection(google, tmp_path)
    text = (tmp_path / "profiles" / "profiles.yml").read_text()
    assert yaml.safe_load(text)["orrery"]["outputs"]["bigquery"] == {
        "type": "bigquery",
        "method": "oauth",
        "project": "tables",
        "execution_project": "elsewhere",
        "dataset": "dev",
        "location": "EU",
        "priority": "interactive",
        "maximum_bytes_billed": 1000,
        "job_execution_timeout_seconds": 60,
        "job_retries": 1,
        "threads": 8,
    }


def test_a_profile_is_replaced_as_a_whole(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tasks of a run write it at the same time: who reads the old one goes on with that."""
    use_connection(project, tmp_path / "run")
    written = tmp_path / "run" / "profiles" / "profiles.yml"
    read = tmp_path / "read.yml"
    read.hardlink_to(written)
    monkeypatch.setenv("AIRFLOW_CONN_PG", "postgres://writer:s3cret@elsewhere:5433/shop")
    monkeypatch.setenv("DBT_PROFILES_DIR", "")
    profile._profile_of.cache_clear()
    use_connection(project, tmp_path / "run")
    assert "host: there" in read.read_text()
    assert "host: elsewhere" in written.read_text()
    assert list(written.parent.iterdir()) == [written]


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
