"""The SQL that dbt made of its nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from orrery.manifest.known_secrets import conceal

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest


def compiled_sql(manifest: Manifest, uids: Sequence[str]) -> str:
    """The compiled SQL of the nodes; of several, each under its name."""
    codes = {uid: getattr(_node(manifest, uid), "compiled_code", None) for uid in uids}
    found = {uid: conceal(str(code)).strip() for uid, code in codes.items() if code}
    if len(found) == 1:
        return next(iter(found.values()))
    return "\n\n".join(f"-- {uid.split('.')[2]}\n{code}" for uid, code in found.items())


def compiled_paths(manifest: Manifest, uids: Sequence[str]) -> list[str]:
    """The files that hold the compiled SQL of the nodes."""
    paths = (getattr(_node(manifest, uid), "compiled_path", None) for uid in uids)
    return [str(path) for path in paths if path]


def _node(manifest: Manifest, uid: str) -> Any:
    return manifest.nodes.get(uid) or manifest.functions.get(uid)
