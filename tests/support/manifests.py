"""Versions of pipelines as a build would leave them, without dbt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orrery.config.errors import OrreryError
from orrery.config.loader import LoadedPipeline, load_pipelines, load_text
from orrery.config.project import Project
from orrery.manifest import fingerprint
from orrery.manifest.index import Index
from orrery.manifest.store import ManifestStore, now
from orrery.manifest.versions import Versions


def keep(
    project: Project, slims: Mapping[str, Mapping[str, Any]], errors: Mapping[str, str] | None = None
) -> ManifestStore:
    """What a build leaves that found these slim manifests, and these errors, by pipeline."""
    store = ManifestStore(project)
    found = load_pipelines(project).valid
    versions = Versions(store, now(), None)
    for name, slim in slims.items():
        versions.add(found.get(name) or pipeline(name), dict(slim))
    wrong = {name: OrreryError(text) for name, text in (errors or {}).items()}
    entries = versions.entries([*slims, *wrong], wrong)
    store.write_index(Index(store.built_from(fingerprint.take(project)), entries=entries))
    return store


def pipeline(name: str, text: str = "select: '*'") -> LoadedPipeline:
    """A pipeline from the text of its file."""
    return load_text(text, name, f"dbt/pipelines/{name}.yml")


def fail(project: Project, text: str) -> None:
    """What a build leaves that did not come to the pipelines."""
    store = ManifestStore(project)
    built_from = store.built_from(fingerprint.take(project))
    store.write_index(store.index().failed([text], now(), built_from))
