"""What a build tells of pipelines that are right: what they leave out, and what they cannot check."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orrery.config.errors import ConfigError
from orrery.config.loader import LoadedPipeline
from orrery.config.project import Project
from orrery.manifest.freshness import unchecked
from orrery.manifest.left_out import in_words, left_out


class Remarks:
    """Collects the remarks on all pipelines of a build, and tells each once."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._left: dict[str, str] = {}
        self._planned: set[str] = set()
        self._unchecked: dict[str, None] = {}

    def check_freshness(
        self, pipeline: LoadedPipeline, manifest: Mapping[str, Any], slim: Mapping[str, Any]
    ) -> None:
        """Take the sources whose age dbt cannot tell; raises ConfigError when the pipeline requires it."""
        found = unchecked(self._project, [manifest["sources"][uid] for uid in slim["unchecked"]])
        if found and pipeline.config.freshness == "require":
            raise ConfigError(found)
        for problem in found:
            place = f"{problem.file}:{problem.line}" if problem.line else problem.file
            self._unchecked[f"{place}: {problem.what}. {problem.fix}"] = None

    def take(
        self,
        pipeline: LoadedPipeline,
        selected: Iterable[str],
        manifest: Mapping[str, Any],
        slim: Mapping[str, Any],
    ) -> None:
        """Take what a pipeline selects and has no task for."""
        selected = set(selected)
        left = left_out(selected, manifest, slim, tests=pipeline.config.tests != "off")
        self._left |= left
        self._planned |= selected - left.keys()

    def lines(self) -> list[str]:
        """The remarks, a line each."""
        # What one pipeline leaves out, another one may run.
        left = {uid: reason for uid, reason in self._left.items() if uid not in self._planned}
        return [*self._unchecked, *([in_words(left)] if left else [])]
