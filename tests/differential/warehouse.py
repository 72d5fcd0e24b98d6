"""What is in a schema of the warehouse after a run."""

from __future__ import annotations

from typing import Any

from differential.files import SEEN, SWITCH
from differential.projects import Node
from support.warehouse import query

# What no two runs have in common.
_VOLATILE = ("dbt_scd_id", "dbt_updated_at", "dbt_valid_from")
_OWN = (SEEN, SWITCH)


def contents(uri: str, schema: str) -> dict[str, Any]:
    """The rows of each relation of a schema and of that beside it, without volatile columns."""
    found: dict[str, Any] = {}
    relations = query(
        uri,
        "select relnamespace::regnamespace::text, relname, relkind::text from pg_class"
        f" where relnamespace::regnamespace::text in ('{schema}', '{schema}_extra')"
        " and relkind in ('r', 'v', 'm')",
    )
    for namespace, name, kind in relations:
        if name in _OWN:
            continue
        columns = " - ".join(f"'{column}'" for column in _VOLATILE)
        rows = query(
            uri,
            f"select (to_jsonb(t) - {columns} || case when to_jsonb(t) ? 'dbt_valid_to' then"
            " jsonb_build_object('dbt_valid_to', to_jsonb(t) ->> 'dbt_valid_to' is null) else '{}' end)::text"
            f' from "{namespace}"."{name}" as t order by 1',
        )
        found[f"{namespace.removeprefix(schema)}.{name}"] = (kind, [row for (row,) in rows])
    return found


def relation(node: Node) -> str:
    """The name under which `contents` has what a node makes."""
    name = f"{node.name}_alias" if node.alias else node.name
    return f"{'_extra' if node.own_schema else ''}.{name}"


def hooks(uri: str, schema: str) -> list[tuple[str, str]]:
    """Which hooks ran, and what they saw."""
    rows = query(uri, f"select hook, seen from {schema}.{SEEN} order by hook, seen")
    return [(str(hook), str(seen)) for hook, seen in rows]
