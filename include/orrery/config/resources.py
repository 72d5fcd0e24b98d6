"""What manifests say of all of dbt's resources: their types, and their owners."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SOURCE = "source"
# How the unique ids of hooks begin, and how dbt tags those at the start and at the end of a run.
OPERATION = "operation"
ON_RUN_START, ON_RUN_END = "on-run-start", "on-run-end"
FUNCTION = "function"
# What makes a table or a view.
TABLE_TYPES = ("seed", "model", "snapshot")
# What `dbt build` makes in the warehouse.
NODE_TYPES = (*TABLE_TYPES, FUNCTION)
TEST_TYPES = ("test", "unit_test")
# What has rows.
DATA_TYPES = (*TABLE_TYPES, SOURCE)


def type_of(unique_id: str) -> str:
    """The type of the resource with this unique id."""
    return unique_id.partition(".")[0]


def owner_name(owner: Mapping[str, Any] | None, otherwise: str | None) -> str | None:
    """What to call the owner of a group or of an exposure, or `otherwise`; dbt takes lists of addresses."""
    known = owner or {}
    told = known.get("name") or known.get("email") or otherwise
    return ", ".join(map(str, told)) if isinstance(told, list) else told
