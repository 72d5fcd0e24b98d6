"""The versions of pipelines that a build has made, and how they replace those of before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from orrery.config.environment import environment
from orrery.config.errors import OrreryError, causes_of
from orrery.config.loader import LoadedPipeline
from orrery.manifest.index import Entry, Trouble
from orrery.manifest.store import ManifestError, ManifestStore, now


class Prove(Protocol):
    """Makes the DAGs of versions as Airflow will."""

    @property
    def proof(self) -> str:
        """What DAGs are made with; what was tried with the same is not tried again. Empty: not known."""

    def __call__(self, files: Mapping[str, Path]) -> Mapping[str, str]:
        """What is wrong with the DAGs of these versions, by pipeline."""


class Versions:
    """The versions that a build has made, each on its way to become the one that counts."""

    def __init__(self, store: ManifestStore, started: str, prove: Prove | None) -> None:
        """`started`: when the build began; `prove` tries DAGs, without it Airflow has to."""
        self._store, self._started, self._prove = store, started, prove
        self._proof = prove.proof if prove else ""
        self._before = store.index()
        self._files: dict[str, Path] = {}
        self._after: dict[str, tuple[str, ...]] = {}

    def add(self, pipeline: LoadedPipeline, slim: dict[str, Any]) -> None:
        """Store a version."""
        self._files[pipeline.name] = self._store.keep(pipeline, slim)
        self._after[pipeline.name] = pipeline.config.after

    def prove(self) -> dict[str, OrreryError]:
        """Try the DAGs of those that have not been tried as they are; what is wrong, by name."""
        untried = {name: file for name, file in self._files.items() if not self._is_proven(name)}
        if self._prove is None or not untried:
            return {}
        return {name: ManifestError(text) for name, text in self._prove(untried).items()}

    def _is_proven(self, name: str) -> bool:
        before = self._before.entries.get(name)
        if before is None or before.manifest != self._files[name].name:
            return False
        return before.proof == self._proof

    def entries(self, names: Iterable[str], errors: Mapping[str, OrreryError]) -> dict[str, Entry]:
        """The entries of all pipelines that there are now, and of those of other environments."""
        here = environment()
        found = {name: entry for name, entry in self._before.entries.items() if entry.environment != here}
        for name in names:
            before = self._before.entries.get(name) or Entry(here)
            if name in errors:
                trouble = Trouble.of(causes_of([errors[name]]), self._started, before.trouble)
                found[name] = replace(before, trouble=trouble)
            else:
                manifest = self._files[name].name
                since = before.since if before.manifest == manifest else now()
                found[name] = Entry(here, manifest, since, self._started, self._after[name], self._proof)
        return found
