"""docker-compose.yml says what production needs, holds no secrets, and Compose takes it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from orrery.cli.init_env import init_env

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
MOUNTED = ROOT / "include" / "deploy" / "compose" / "mounted.yml"
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SECRET = re.compile(r"PASSWORD|KEY|SECRET|BROKER|BACKEND|CONN|BASIC_AUTH")
# Other things that are called so.
HARMLESS = {"AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE", "ORRERY_WAREHOUSE_CONNECTION"}
ENDS = {"init"}


def compose() -> list[str] | None:
    """The command of Compose, version 2, of this machine."""
    for command in (["docker", "compose"], ["docker-compose"]):
        if not shutil.which(command[0]):
            continue
        done = subprocess.run([*command, "version", "--short"], capture_output=True, text=True, check=False)
        if done.returncode == 0 and not done.stdout.startswith("1."):
            return command
    return None


@pytest.fixture
def env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `./orrery init-env` writes."""
    monkeypatch.setenv("ORRERY_PROJECT_DIR", str(tmp_path))
    result = CliRunner().invoke(init_env)
    assert result.exit_code == 0, result.output
    return tmp_path / ".env"


@pytest.mark.parametrize("name", FILE["services"])
def test_every_service_is_fit_for_production(name: str) -> None:
    service = FILE["services"][name]
    assert service["stop_grace_period"]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["restart"] == ("on-failure:3" if name in ENDS else "unless-stopped")
    assert service["logging"]["options"]["max-size"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if "orrery" in service["image"]:
        assert service["depends_on"]
    else:
        assert service["healthcheck"]["test"]
    if name != "postgres":  # It sets up its folder as root, before it becomes somebody else.
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]


def test_no_secret_has_a_default() -> None:
    for name, service in FILE["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET.search(key) and key not in HARMLESS:
                assert ":?run ./orrery init-env}" in value, f"{name}: {key}"


def test_workers_and_flower_know_neither_airflows_database_nor_its_keys() -> None:
    secret = "SQL_ALCHEMY|FERNET|JWT|ADMIN|POSTGRES_PASSWORD"
    assert not re.search(secret, " ".join(FILE["services"]["worker"]["environment"]))
    assert not re.search(
        f"{secret}|API__SECRET|WAREHOUSE", " ".join(FILE["services"]["flower"]["environment"])
    )


def test_every_setting_is_offered_and_documented(env: Path) -> None:
    settings = dict(re.findall(r"\$\{(ORRERY_\w+):-([^}]*)\}", TEXT))
    assert settings
    guide, offered = (ROOT / "docs" / "deploy.md").read_text(), env.read_text().splitlines()
    for name, default in settings.items():
        assert f"#{name}={default}" in offered
        shown = f"`{default}`" if default else ""
        assert re.search(rf"(?m)^\|[^|]*`{name}`[^|]*\|[^|]*{re.escape(shown)}[^|]*\|", guide), name


def test_init_env_makes_all_secrets_afresh_and_once(env: Path) -> None:
    lines = [line for line in env.read_text().splitlines() if line and not line.startswith("#")]
    values = dict(line.split("=", 1) for line in lines)
    assert set(values) == set(re.findall(r"\$\{(\w+):\?", TEXT))
    assert len(set(values.values())) == len(values)
    assert all(len(value) >= 16 for value in values.values())
    assert env.stat().st_mode & 0o777 == 0o600
    before = env.read_text()
    again = CliRunner().invoke(init_env)
    assert again.exit_code != 0
    assert "databases were made with its passwords" in str(again.exception)
    assert env.read_text() == before
    # Every setting that may be changed is there, as a comment.
    assert set(re.findall(r"\$\{(\w+):-", TEXT)) <= set(re.findall(r"^#?(\w+)=", before, re.MULTILINE))


def test_a_mounted_project_is_the_same_for_all() -> None:
    mounted = yaml.safe_load(MOUNTED.read_text())["services"]
    ours = {name for name, service in FILE["services"].items() if service["image"].endswith("orrery}")}
    assert set(mounted) == ours - {"flower"}
    assert all(service == mounted["init"] for service in mounted.values())


@pytest.mark.parametrize("more", [[], ["--file", str(MOUNTED)]], ids=["in the image", "mounted"])
def test_compose_takes_the_file(env: Path, more: list[str]) -> None:
    command = compose()
    if command is None:
        assert not os.environ.get("CI"), "Compose is missing; .ci/run gets it from Debian"
        pytest.skip("there is no Docker Compose; .ci/run gets it from Debian")
    config = [*command, "--file", str(ROOT / "docker-compose.yml"), *more, "--profile", "flower"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("ORRERY_")}
    done = subprocess.run(
        [*config, "--env-file", str(env), "config", "--quiet"],
        capture_output=True,
        text=True,
        env=clean,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    (env.parent / "none").write_text("")
    refused = subprocess.run(
        [*config, "--env-file", str(env.parent / "none"), "config", "--quiet"],
        capture_output=True,
        text=True,
        env=clean,
        check=False,
    )
    assert refused.returncode != 0
    assert "run ./orrery init-env" in refused.stderr
