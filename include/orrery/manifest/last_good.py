"""The dbt project as the last good build has parsed it, for runs that begin while dbt cannot parse it.

dbt keeps the whole parsed project in its partial parse; here that file is read as dbt does it. A build keeps
one more for each set of vars that a pipeline has.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orrery.config.project import Project
from orrery.manifest.index import moment
from orrery.manifest.profile import read_profile
from orrery.manifest.store import ManifestStore
from orrery.manifest.var_parsing import CHANGED, READS
from orrery.manifest.watched_vars import Reads, digests

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest


def last_good(
    project: Project, variables: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Manifest, str] | None:
    """The parsed project of the last good build, and when that was.

    None when it would be another one here: for another target or dbt, with other environment variables, or
    with vars that the project reads and that no pipeline has.

    :param variables: dbt's `--vars`
    :param environment: variables that dbt gets beside those of the process
    """
    store = ManifestStore(project)
    good = store.index().good
    if good is None or good["target"] != read_profile(project).target:
        return None
    manifest = _read(store.partial_parse_of(variables)) if variables else None
    if manifest is None:
        manifest = _read(store.partial_parse)
        if manifest is None or _is_read(variables, manifest.env_vars.get(READS)):
            return None
    from dbt.constants import DEFAULT_ENV_PLACEHOLDER
    from dbt.version import __version__

    for note in (READS, CHANGED):
        manifest.env_vars.pop(note, None)
    here = os.environ | environment
    if manifest.metadata.dbt_version != __version__ or any(
        # dbt notes so that a variable was not set, and had a default.
        here.get(name, DEFAULT_ENV_PLACEHOLDER) != value
        for name, value in manifest.env_vars.items()
    ):
        return None
    manifest.build_flat_graph()
    return manifest, moment(good["at"])


def packed(manifest: Manifest) -> bytes:
    """A parsed project as dbt keeps it."""
    from dbt.parser.manifest import extended_mashumaro_encoder

    return bytes(manifest.to_msgpack(extended_mashumaro_encoder))


def _read(path: Path) -> Any:
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumuro_decoder

    try:
        return Manifest.from_msgpack(path.read_bytes(), decoder=extended_mashumuro_decoder)
    except FileNotFoundError:
        return None


def _is_read(variables: Mapping[str, Any], notes: str | None) -> bool:
    """Whether a project that was parsed without vars reads one of them, or may do so."""
    if not (variables and notes):
        return bool(variables)
    reads = Reads.load(notes)
    return bool(reads.readers(reads.changed(digests(variables))))
