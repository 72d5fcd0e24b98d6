"""dbt, called in this process."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.manifest.profile import read_profile

if TYPE_CHECKING:
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest


class DbtError(OrreryError):
    """dbt refused a command; the text is dbt's own."""


class Dbt:
    """A dbt project whose parsed manifest is kept between commands."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._manifest: Manifest | None = None

    def parse(self) -> dict[str, Any]:
        """Parse the project and return the manifest as in manifest.json; raises DbtError."""
        if not (self.project.dbt_dir / "dbt_project.yml").is_file():
            raise DbtError(
                f"{self.project.relative(self.project.dbt_dir)}: there is no dbt_project.yml.\n"
                "  Put the dbt project into this folder."
            )
        self._manifest = self._invoke(["parse"])
        path = self.project.target_dir / "manifest.json"
        return dict(json.loads(path.read_bytes()))

    def select(
        self, selection: tuple[str, ...], exclude: tuple[str, ...] = (), selector: str | None = None
    ) -> set[str]:
        """The unique ids of the nodes that dbt selects (`dbt ls`); raises DbtError.

        The values travel as keyword arguments: dbt would read options inside an argument list.
        """
        lines = self._invoke(
            ["ls"],
            select=selection,
            exclude=exclude,
            selector=selector,
            output="json",
            output_keys=("unique_id",),
        )
        return {json.loads(line)["unique_id"] for line in lines}

    def _invoke(self, command: list[str], **arguments: Any) -> Any:
        project = self.project
        profile = read_profile(project)
        options = [
            *("--profile", profile.name, "--target", profile.target),
            *("--project-dir", str(project.dbt_dir)),
            *("--profiles-dir", str(project.profiles_dir)),
            *("--target-path", str(project.target_dir)),
            *("--log-path", str(project.target_dir / "logs")),
            *("--log-level", "none", "--quiet", "--no-send-anonymous-usage-stats"),
        ]
        result = self._runner().invoke([*command, *options], **arguments)
        if not result.success:
            raise DbtError(str(result.exception).strip() or f"dbt {command[0]} failed")
        return result.result

    def _runner(self) -> dbtRunner:
        # dbt costs two seconds of imports; who only reads manifests does not pay them.
        from dbt.cli.main import dbtRunner

        return dbtRunner(manifest=self._manifest)
