"""The documentation of a task, shown in Airflow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Resource = dict[str, Any]


def node_doc(resource: Resource) -> str:
    """Description, columns or arguments, and raw SQL of a node or source; Markdown."""
    parts = [_headline(resource)]
    if resource.get("description"):
        parts.append(resource["description"].strip())
    if columns := resource.get("columns"):
        parts.append(_table("column", [{"name": name, **column} for name, column in columns.items()]))
    if arguments := resource.get("arguments"):
        parts.append(_table("argument", arguments))
    if returns := resource.get("returns"):
        told = _cell(returns.get("description") or "")
        parts.append(f"Returns `{returns['data_type']}`" + (f": {told}" if told else ""))
    if resource.get("raw_code") and resource["resource_type"] != "seed":
        parts.append(f"```sql\n{resource['raw_code'].strip()}\n```")
    return "\n\n".join(parts)


def _table(noun: str, entries: Iterable[Mapping[str, Any]]) -> str:
    rows = [
        f"| {entry['name']} | {entry.get('data_type', '')} | {_cell(entry.get('description') or '')} |"
        for entry in entries
    ]
    return "\n".join([f"| {noun} | type | description |", "| --- | --- | --- |", *rows])


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


def hooks_doc(when: str, hooks: Mapping[str, str]) -> str:
    """What the task of dbt's hooks of one moment does, and their code; Markdown."""
    if not hooks:
        return "Fails when a node has failed, and no other last task of the run shows it."
    return "\n\n".join(
        [f"dbt's `{when}` hooks.", *(f"```sql\n{code.strip()}\n```" for code in hooks.values())]
    )


def _headline(resource: Resource) -> str:
    facts = [f"**{resource['resource_type']}** `{resource['original_file_path']}`"]
    config = resource.get("config", {})
    materialized = config.get("materialized")
    if resource["resource_type"] == "model" and materialized:
        facts.append(str(materialized))
    if config.get("group"):
        facts.append(f"group {config['group']}")
    if resource.get("tags"):
        facts.append("tags " + ", ".join(map(str, resource["tags"])))
    return " · ".join(facts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
