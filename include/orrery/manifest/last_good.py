"""The dbt project as the last good build has parsed it, for runs that begin while dbt cannot parse it.

dbt keeps the whole parsed project in its partial parse; here that file is read as dbt does it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from orrery.config.project import Project
from orrery.manifest.index import moment
from orrery.manifest.profile import read_profile
from orrery.manifest.store import ManifestStore
from orrery.manifest.var_parsing import READS

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest


def last_good(project: Project, environment: Mapping[str, str]) -> tuple[Manifest, str] | None:
    """The parsed project of the last good build, and when that was.

    None when it would be another one here: for another target or dbt, or with other environment variables.

    :param environment: variables that dbt gets beside those of the process
    """
    store = ManifestStore(project)
    good = store.index().good
    if good is None or good["target"] != read_profile(project).target or not store.partial_parse.is_file():
        return None
    from dbt.constants import DEFAULT_ENV_PLACEHOLDER
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumuro_decoder
    from dbt.version import __version__

    content = store.partial_parse.read_bytes()
    manifest: Any = Manifest.from_msgpack(content, decoder=extended_mashumuro_decoder)
    manifest.env_vars.pop(READS, None)
    here = os.environ | environment
    if manifest.metadata.dbt_version != __version__ or any(
        # dbt notes so that a variable was not set, and had a default.
        here.get(name, DEFAULT_ENV_PLACEHOLDER) != value
        for name, value in manifest.env_vars.items()
    ):
        return None
    manifest.build_flat_graph()
    return manifest, moment(good["at"])
