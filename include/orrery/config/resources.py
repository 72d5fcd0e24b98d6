"""What manifests say of all of dbt's resources: their types, and their owners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCE = "source"
NODE_TYPES = ("seed", "model", "snapshot")
TEST_TYPES = ("test", "unit_test")
# What has rows.
DATA_TYPES = (*NODE_TYPES, SOURCE)


def type_of(unique_id: str) -> str:
    """The type of the resource with this unique id."""
    return unique_id.partition(".")[0]


def owner_name(owner: Mapping[str, Any] | None, otherwise: str | None) -> str | None:
    """What to call the owner of a group or of an exposure, or `otherwise`."""
    known = owner or {}
    return known.get("name") or known.get("email") or otherwise
