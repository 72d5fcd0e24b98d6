"""What a person chooses: the pipeline's file, and the form of each run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from differential.projects import Project


@dataclass(frozen=True)
class Pipeline:
    """What the pipeline's file says beside its selection, which is the whole project."""

    tests: Literal["gate", "end", "off"] = "gate"
    stale: Literal["fail", "skip", "warn"] = "fail"
    execute: Literal["build", "per_model"] = "build"

    def text(self) -> str:
        """The file."""
        # The method fqn knows no sources.
        says = {"tests": f"'{self.tests}'", "stale": self.stale, "execute": self.execute}
        return "select: [fqn:*, source:*]\n" + "".join(f"{key}: {value}\n" for key, value in says.items())


@dataclass(frozen=True)
class Choices:
    """The form of one run.

    :param fixed: what was broken has been fixed before the run
    """

    select: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    skip_stages: tuple[str, ...] = ()
    full_refresh: bool = False
    swap: bool = False
    less: bool = False
    threads: int = 4
    fixed: bool = False

    @property
    def variables(self) -> dict[str, Any]:
        """dbt's vars."""
        return {name: True for name, on in (("swap", self.swap), ("less", self.less)) if on}

    def conf(self) -> dict[str, Any]:
        """The configuration of the DAG run."""
        conf: dict[str, Any] = {"threads": self.threads}
        if self.select:
            conf["select"] = " ".join(self.select)
        if self.exclude:
            conf["exclude"] = " ".join(self.exclude)
        if self.skip_stages:
            conf["skip_stages"] = list(self.skip_stages)
        if self.full_refresh:
            conf["full_refresh"] = True
        if self.variables:
            conf["vars"] = self.variables
        return conf


@dataclass(frozen=True)
class Case:
    """A project, and runs of it one after the other in the same warehouse."""

    project: Project
    pipeline: Pipeline = field(default_factory=Pipeline)
    runs: tuple[Choices, ...] = (Choices(),)
