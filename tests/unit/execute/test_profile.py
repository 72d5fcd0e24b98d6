"""dbt's profile, as Cosmos is told of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import WriteProject, write_files
from orrery.execute.profile import profile_config
from orrery.manifest.profile import ProfileError, read_profile

OUTPUTS = "  outputs:\n    dev: {type: postgres}\n    prod: {type: postgres}\n"


def profiles(target: str) -> dict[str, str]:
    return {"dbt/profiles.yml": f"tiny:\n{target}{OUTPUTS}"}


def test_a_plain_target(write_project: WriteProject) -> None:
    project = write_project(profiles("  target: prod\n"))
    config = profile_config(project)
    assert (config.profile_name, config.target_name) == ("tiny", "prod")
    assert config.profiles_yml_filepath == project.dbt_dir / "profiles.yml"


def test_a_target_from_the_environment(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write_project(profiles("  target: \"{{ env_var('ORRERY_TARGET', 'dev') }}\"\n"))
    assert profile_config(project).target_name == "dev"
    monkeypatch.setenv("ORRERY_TARGET", "prod")
    assert profile_config(project).target_name == "prod"


def test_dbt_target_comes_first(write_project: WriteProject, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write_project(profiles("  target: dev\n"))
    monkeypatch.setenv("DBT_TARGET", "prod")
    assert profile_config(project).target_name == "prod"
    monkeypatch.setenv("DBT_TARGET", "")
    assert profile_config(project).target_name == "dev"


def test_without_a_target_dbt_takes_default(write_project: WriteProject) -> None:
    assert profile_config(write_project(profiles(""))).target_name == "default"


@pytest.mark.parametrize(
    ("outputs", "adapter"),
    [
        ("  outputs:\n    dev: {type: bigquery}\n", "bigquery"),
        ("  outputs:\n    other: {type: postgres}\n", ""),
        ("  outputs:\n    dev:\n", ""),
        ("", ""),
    ],
)
def test_the_adapter_of_the_target(write_project: WriteProject, outputs: str, adapter: str) -> None:
    project = write_project({"dbt/profiles.yml": f"tiny:\n  target: dev\n{outputs}"})
    assert read_profile(project).adapter == adapter


def test_a_variable_that_is_not_set(write_project: WriteProject) -> None:
    project = write_project(profiles("  target: \"{{ env_var('ORRERY_TARGET') }}\"\n"))
    with pytest.raises(ProfileError, match="needs the environment variable ORRERY_TARGET"):
        profile_config(project)


@pytest.mark.parametrize("content", ["other: {target: dev}", "tiny: dev", "", "- tiny"])
def test_no_such_profile(write_project: WriteProject, content: str) -> None:
    project = write_project({"dbt/profiles.yml": content})
    with pytest.raises(ProfileError) as caught:
        profile_config(project)
    assert str(caught.value) == (
        "dbt/profiles.yml: there is no profile 'tiny', which dbt_project.yml names.\n"
        "  Add it, or change the profile in dbt_project.yml."
    )


def test_no_profiles_file(write_project: WriteProject) -> None:
    project = write_project({})
    (project.dbt_dir / "profiles.yml").unlink()
    with pytest.raises(ProfileError, match=r"^dbt/profiles.yml: there is no such file"):
        profile_config(project)


def test_profiles_elsewhere(
    write_project: WriteProject, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    project = write_project({})
    write_files(tmp_path, {"secret/profiles.yml": f"tiny:\n  target: prod\n{OUTPUTS}"})
    monkeypatch.setenv("DBT_PROFILES_DIR", str(tmp_path / "secret"))
    config = profile_config(project)
    assert config.profiles_yml_filepath == tmp_path / "secret" / "profiles.yml"
    assert config.target_name == "prod"
