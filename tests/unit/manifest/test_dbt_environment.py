"""Which environment variables dbt shows to the files of a project; secrets are known by their values."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import BASE, WriteProject
from orrery.manifest import known_secrets
from orrery.manifest.dbt import Dbt, DbtError
from orrery.manifest.dbt_environment import visible
from orrery.manifest.known_secrets import conceal, concealed, found_in, learn

PASSWORD, TOKEN, KEY = "s3cr/t+Pass&1", "xoxb-12345-abcdef", "Zm9vYmFyMTIzNDU2Nzg5MA=="
OF_AIRFLOW = {
    "AIRFLOW_CONN_WAREHOUSE_LOADER": "postgres://loader:s3cr%2Ft%2BPass%261@127.0.0.1:5432/warehouse",
    "AIRFLOW_CONN_SLACK": json.dumps({"conn_type": "slack", "extra": json.dumps({"bot_token": TOKEN})}),
    "AIRFLOW_CONN_AWS": "aws://?region_name=eu&aws_secret_access_key=" + "aws4Secret",
    "AIRFLOW__CORE__FERNET_KEY": KEY,
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql+psycopg2://airflow:dat4base-pw@db/airflow",
    "AIRFLOW__SECRETS__BACKEND": "airflow.providers.hashicorp.secrets.vault.VaultBackend",
    "AIRFLOW__SECRETS__BACKEND_KWARGS": '{"url": "http://vault:8200", "token": "hvs.vault4token"}',
    "AIRFLOW_VAR_API_TOKEN": "variable4token",
    "_AIRFLOW_WWW_USER_PASSWORD": "wwwPassw0rd",
    "ORRERY_LOADER_PASSWORD": "l0aderPassword",
    "ORRERY_JWT_SECRET": "jwt4Secret",
}
OF_USERS = {
    "MY_SCHEMA": "analytics",
    "ORRERY_WAREHOUSE_HOST": "127.0.0.1",
    "DBT_TARGET_SCHEMA": "dev",
    "SNOWFLAKE_ACCOUNT": "xy12345",
    # Airflow's run, for comments on statements.
    "AIRFLOW_CTX_DAG_ID": "shop",
    # dbt shows these to profiles only, and the profile may use the account of a connection.
    "DBT_ENV_SECRET_WAREHOUSE_PASSWORD": PASSWORD,
}
SAME_SECRETS = {"PGPASSWORD": PASSWORD, "SLACK_URL": f"https://slack/{TOKEN}", "FERNET": KEY}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with no known secret."""
    monkeypatch.setattr(known_secrets, "_known", {})


def test_no_variable_of_airflow_is_visible() -> None:
    assert visible(OF_AIRFLOW | OF_USERS) == OF_USERS
    assert visible({name.lower(): value for name, value in OF_AIRFLOW.items()}) == {}


def test_no_secret_of_airflow_is_visible_under_another_name() -> None:
    assert visible(SAME_SECRETS | OF_USERS) == SAME_SECRETS | OF_USERS
    assert visible(OF_AIRFLOW | SAME_SECRETS | OF_USERS) == OF_USERS
    # The profile is made of it.
    own = visible(OF_AIRFLOW | SAME_SECRETS, frozenset({"PGPASSWORD"}))
    assert own == {"PGPASSWORD": PASSWORD}


def test_a_short_or_plain_password_hides_nothing() -> None:
    """It stands in too many values that have nothing to do with it."""
    for password in ("airflow", "postgres", "warehouse_loader", "12345678", "secret1"):
        connection = {"AIRFLOW_CONN_A": f"postgres://a:{password}@db/a", "MINE": f"my {password} value"}
        assert visible(connection) == {"MINE": f"my {password} value"}, password


MODEL = """\
{{ config(meta={
    'loader': env_var('AIRFLOW_CONN_WAREHOUSE_LOADER', 'hidden'),
    'same': env_var('PGPASSWORD', 'hidden'),
    'mine': env_var('MY_SCHEMA'),
    'run': env_var('AIRFLOW_CTX_DAG_ID')
}) }}
select 1 as id
"""


def test_a_model_reads_the_users_variables_only(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project({**BASE, "dbt/models/a.sql": MODEL})
    for name, value in (OF_AIRFLOW | OF_USERS | SAME_SECRETS).items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    meta = Dbt(project).parse()["nodes"]["model.tiny.a"]["config"]["meta"]
    assert meta == {"loader": "hidden", "same": "hidden", "mine": "analytics", "run": "shop"}
    # Airflow's own threads, and the clients of warehouses, need them all the time.
    assert dict(os.environ) == before


def test_who_asks_for_a_hidden_variable_learns_why_it_is_missing(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project(
        {**BASE, "dbt/models/a.sql": "select '{{ env_var('AIRFLOW__CORE__FERNET_KEY') }}' as key\n"}
    )
    with pytest.raises(DbtError) as caught:
        Dbt(project).parse()
    assert "docs/secrets.md" not in str(caught.value)
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", KEY)
    with pytest.raises(DbtError, match="AIRFLOW__CORE__FERNET_KEY") as caught:
        Dbt(project).parse()
    assert "Orrery shows no variable of Airflow's to dbt" in str(caught.value)
    assert KEY not in str(caught.value)


def test_dbt_on_the_command_line_hides_them_too(write_project: WriteProject) -> None:
    project = write_project({**BASE, "dbt/models/a.sql": MODEL.replace("env_var('MY_SCHEMA')", "1")})
    include = Path(__file__).resolve().parents[3] / "include"
    done = subprocess.run(
        [sys.executable, "-m", "orrery.manifest.dbt_environment", "ls", "--output", "json"],
        env={
            **os.environ,
            **OF_AIRFLOW,
            **SAME_SECRETS,
            "AIRFLOW_CTX_DAG_ID": "shop",
            "ORRERY_PROJECT_DIR": str(project.root),
            "DBT_PROJECT_DIR": str(project.dbt_dir),
            "DBT_PROFILES_DIR": str(project.dbt_dir),
            "PYTHONPATH": str(include),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"loader": "hidden", "same": "hidden"' in done.stdout


def test_known_secrets_are_concealed_in_every_form(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = BASE["dbt/profiles.yml"].replace("password: p,", 'password: "pr0file/Password",')
    project = write_project({**BASE, "dbt/profiles.yml": profile})
    assert conceal(f"a {PASSWORD} b") == f"a {PASSWORD} b"
    for name, value in (OF_AIRFLOW | OF_USERS).items():
        monkeypatch.setenv(name, value)
    learn(project)
    assert conceal(f"a {PASSWORD} b s3cr%2Ft%2BPass%261 c s3cr/t+Pass&amp;1") == "a *** b *** c ***"
    assert concealed({"a": [f"x{TOKEN}", 1, None], "b": ("pr0file%2FPassword",)}) == {
        "a": ["x***", 1, None],
        "b": ["***"],
    }
    for secret in (
        "aws4Secret",
        "dat4base-pw",
        "hvs.vault4token",
        "variable4token",
        "wwwPassw0rd",
        "jwt4Secret",
    ):
        assert conceal(secret) == "***"
    for plain in (
        "airflow.providers.hashicorp.secrets.vault.VaultBackend",
        "loader",
        "127.0.0.1",
        "analytics",
    ):
        assert conceal(plain) == plain
    assert found_in(f"select '{TOKEN}'") == "AIRFLOW_CONN_SLACK"
    assert found_in("select 'pr0file/Password'") == "the profile in profiles.yml"
    assert found_in("select 1") is None
