"""What the last builds have found: which version of each pipeline is good, and what is wrong since when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

# Changes whenever the stored files change in a way that an older reader cannot follow.
FORMAT = 6


@dataclass(frozen=True)
class Trouble:
    """What is wrong, cause by cause, and since which build."""

    causes: tuple[str, ...]
    since: str

    @property
    def text(self) -> str:
        return "\n\n".join(self.causes)

    @classmethod
    def of(cls, causes: Iterable[str], now: str, before: Trouble | None) -> Trouble:
        """The trouble of a build at `now`, which has lasted since the build before if that had some."""
        return cls(tuple(causes), before.since if before else now)

    @classmethod
    def read(cls, value: Mapping[str, Any] | None) -> Trouble | None:
        """The trouble that the index has, if any."""
        return cls(tuple(value["causes"]), value["since"]) if value else None


@dataclass(frozen=True)
class Entry:
    """A pipeline: its last good version, if it ever had one, and what is wrong with it now.

    :param environment: for which its name was made
    :param manifest: the file of the good version
    :param since: when this version began to count
    :param good_at: when a build last found it good
    :param after: the pipelines that this one comes after
    :param proof: with what the DAG was tried (see orrery.manifest.proof); empty when it was not
    """

    environment: str
    manifest: str = ""
    since: str = ""
    good_at: str = ""
    after: tuple[str, ...] = ()
    proof: str = ""
    trouble: Trouble | None = None

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Entry:
        """An entry as the index has it."""
        return cls(**{**value, "after": tuple(value["after"]), "trouble": Trouble.read(value["trouble"])})


@dataclass(frozen=True)
class Index:
    """The last build of a project, good or not, and all its pipelines by name.

    :param built_from: what the build was made from: `files`, `packages`, `target`, `environment`
    :param good: when dbt could last parse the project (`at`), and for which `target`
    :param trouble: what kept the build from coming to the pipelines
    """

    built_from: Mapping[str, Any]
    good: Mapping[str, str] | None = None
    trouble: Trouble | None = None
    entries: Mapping[str, Entry] = field(default_factory=dict)

    def failed(self, causes: Iterable[str], now: str, built_from: Mapping[str, Any]) -> Index:
        """The index after a build that did not come to the pipelines: all of them stay as they were."""
        return replace(self, built_from=built_from, trouble=Trouble.of(causes, now, self.trouble))

    def of_environment(self, name: str) -> dict[str, Entry]:
        """The pipelines of one environment."""
        return {pipeline: entry for pipeline, entry in self.entries.items() if entry.environment == name}

    def trouble_of(self, pipeline: str) -> Trouble | None:
        """What is wrong with a pipeline: its own trouble, or that of the whole project."""
        entry = self.entries.get(pipeline)
        return (entry.trouble if entry else None) or self.trouble

    def standing(self, pipeline: str) -> tuple[str, str] | None:
        """Which version of a pipeline runs while something is wrong, and the first line of what it is.

        None when nothing is.
        """
        entry, trouble = self.entries.get(pipeline), self.trouble_of(pipeline)
        if trouble is None:
            return None
        whose = "the pipeline" if entry and entry.trouble else "the project"
        since = f"{whose} has an error since {moment(trouble.since)}"
        version = (
            f"Runs on the version of {moment(entry.good_at)}" if entry and entry.manifest else "Does not run"
        )
        first = trouble.text.strip().replace(":\n", ": ", 1).partition("\n")[0]
        return f"{version}: {since}.", first

    def as_json(self) -> dict[str, Any]:
        """The index as it is stored."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def read(cls, value: Mapping[str, Any]) -> Index:
        """The index as it was stored."""
        entries = {name: Entry.read(entry) for name, entry in value["entries"].items()}
        return cls(value["built_from"], value["good"], Trouble.read(value["trouble"]), entries)


def moment(text: str) -> str:
    """A stored time as people read it: `2026-01-31 14:02:11 UTC`."""
    return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S UTC")
