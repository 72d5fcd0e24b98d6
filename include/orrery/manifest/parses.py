"""The dbt project as pipelines with vars of their own see it: one parse for each set of vars."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orrery.config.errors import ConfigError
from orrery.config.loader import LoadedPipeline
from orrery.config.project import Project
from orrery.manifest.dbt import Dbt, DbtError
from orrery.manifest.last_good import packed
from orrery.manifest.store import PARTIAL_PARSE, ManifestStore, digest_of_vars

Manifest = dict[str, Any]


class Parses:
    """The parsed projects of a build.

    Each has a target folder of its own, and begins from the parse without vars.

    :param dbt: the project without vars, parsed
    :param manifest: what it was parsed to
    """

    def __init__(self, project: Project, dbt: Dbt, manifest: Manifest) -> None:
        self._project, self._base = project, dbt.target_dir / PARTIAL_PARSE
        self._parsed: dict[Path | None, tuple[Dbt, Manifest]] = {None: (dbt, manifest)}

    def of(self, pipeline: LoadedPipeline) -> tuple[Dbt, Manifest]:
        """The project with the vars of a pipeline; raises ConfigError when dbt cannot parse it so."""
        variables = pipeline.config.vars
        folder = vars_folder(self._project, variables) if variables else None
        if folder not in self._parsed:
            dbt = Dbt(self._project, target_dir=folder, variables=variables, base=self._base)
            try:
                self._parsed[folder] = (dbt, dbt.parse())
            except DbtError as error:
                what = f"dbt could not parse the project with these vars: {error}"
                fix = "Change the vars, or the files that read them."
                raise ConfigError([pipeline.document.problem(("vars",), what, fix)]) from None
        return self._parsed[folder]

    def with_vars(self, store: ManifestStore) -> dict[Path, bytes]:
        """The parsed projects with vars in dbt's format, by the files that the store has for them."""
        return {
            store.partial_parse_of(dbt.variables): packed(dbt.manifest)
            for folder, (dbt, _) in self._parsed.items()
            if folder is not None
        }

    def tidy(self) -> None:
        """Remove the folders of vars that no pipeline has any more."""
        for folder in _all(self._project).glob("*/"):
            if folder not in self._parsed:
                shutil.rmtree(folder, ignore_errors=True)


def vars_folder(project: Project, variables: Mapping[str, Any]) -> Path:
    """dbt's target folder for a set of vars."""
    return _all(project) / digest_of_vars(variables)


def _all(project: Project) -> Path:
    return project.target_dir / "vars"
