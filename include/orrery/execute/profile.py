"""dbt's profile for Cosmos: the project's own profiles.yml."""

from __future__ import annotations

from cosmos.config import ProfileConfig

from orrery.config.project import Project
from orrery.manifest.profile import read_profile


def profile_config(project: Project) -> ProfileConfig:
    """The profile that dbt itself would use; raises ProfileError where there is none."""
    profile = read_profile(project)
    return ProfileConfig(
        profile_name=profile.name, target_name=profile.target, profiles_yml_filepath=profile.file
    )
