"""dbt's types of resources, as manifests and unique ids name them."""

from __future__ import annotations

SOURCE = "source"
NODE_TYPES = ("seed", "model", "snapshot")
TEST_TYPES = ("test", "unit_test")
# What has rows.
DATA_TYPES = (*NODE_TYPES, SOURCE)


def type_of(unique_id: str) -> str:
    """The type of the resource with this unique id."""
    return unique_id.partition(".")[0]
