"""The documentation of a task, shown in Airflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Resource = dict[str, Any]


def node_doc(resource: Resource) -> str:
    """Description, columns and raw SQL of a seed, model, snapshot or source; Markdown."""
    parts = [_headline(resource)]
    if resource.get("description"):
        parts.append(resource["description"].strip())
    columns = resource.get("columns") or {}
    if columns:
        rows = [
            f"| {name} | {column.get('data_type', '')} | {_cell(column.get('description', ''))} |"
            for name, column in columns.items()
        ]
        parts.append("\n".join(["| column | type | description |", "| --- | --- | --- |", *rows]))
    if resource.get("raw_code") and resource["resource_type"] != "seed":
        parts.append(f"```sql\n{resource['raw_code'].strip()}\n```")
    return "\n\n".join(parts)


def ingest_doc(sources: Sequence[Resource], kind: str, block: Mapping[str, Any]) -> str:
    """What fills a source, and the documentation of its tables; Markdown."""
    return "\n\n".join([_work(kind, block), *map(node_doc, sources)])


def exposure_doc(exposure: Resource) -> str:
    """What an exposure runs, and what it says of itself; Markdown."""
    return "\n\n".join(
        [_work(exposure["kind"], exposure["block"]), _headline(exposure), exposure["description"].strip()]
    ).strip()


def _work(kind: str, block: Mapping[str, Any]) -> str:
    """The kind of a block, with what it is about where that is a word."""
    about = block[kind]
    return f"**{kind}** `{about}`" if isinstance(about, str) else f"**{kind}**"


def tests_doc(tests: Iterable[Resource]) -> str:
    """The tests of one task, a line each; Markdown."""
    lines = []
    for test in tests:
        warns = str(test["config"].get("severity", "")).lower() == "warn"
        description = _cell(test.get("description", ""))
        lines.append(
            f"* `{test['name']}`"
            + (" (warns only)" if warns else "")
            + (f": {description}" if description else "")
        )
    return "\n".join(lines)


def _headline(resource: Resource) -> str:
    facts = [f"**{resource['resource_type']}** `{resource['original_file_path']}`"]
    config = resource.get("config", {})
    materialized = config.get("materialized")
    if resource["resource_type"] == "model" and materialized:
        facts.append(str(materialized))
    if config.get("group"):
        facts.append(f"group {config['group']}")
    if resource.get("tags"):
        facts.append("tags " + ", ".join(resource["tags"]))
    return " · ".join(facts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
