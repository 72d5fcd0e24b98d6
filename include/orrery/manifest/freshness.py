"""Which sources can be checked for their age."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orrery.config.document import Document, Location, read_document
from orrery.config.errors import ConfigError, Problem
from orrery.config.project import Project
from orrery.manifest.blocks import place_of_table

Resource = dict[str, Any]
_FIX = "Add loaded_at_field or loaded_at_query, remove freshness, or write freshness: off in the pipeline."


def has_threshold(source: Mapping[str, Any]) -> bool:
    """Whether a source has an age at which it warns or fails."""
    # dbt writes {"count": null, "period": null} for a threshold that is not set.
    freshness = source.get("freshness") or {}
    return any(
        (freshness.get(threshold) or {}).get("count") is not None
        for threshold in ("warn_after", "error_after")
    )


def as_checked(sources: Mapping[str, Resource], mode: str, *, metadata: bool) -> dict[str, Resource]:
    """The sources as a pipeline sees them, without the thresholds that it does not check.

    Those whose age dbt cannot tell are `unchecked`: `dbt source freshness` fails for them, and `dbt build`,
    which checks no source, does not mind.

    :param mode: `freshness` of the pipeline
    :param metadata: whether the warehouse knows when a table has changed
    """
    seen = dict(sources)
    for uid, source in sources.items():
        unknown = has_threshold(source) and not metadata and not _tells(source)
        if mode == "off":
            seen[uid] = {**source, "freshness": None}
        elif unknown:
            seen[uid] = {**source, "freshness": None, "unchecked": True}
    return seen


def unchecked(project: Project, sources: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """What is wrong with sources whose age dbt cannot tell, each with its place in its file."""
    return [_problem(project, source) for source in sources]


def _tells(source: Mapping[str, Any]) -> bool:
    return bool(source.get("loaded_at_field") or source.get("loaded_at_query"))


def _problem(project: Project, source: Mapping[str, Any]) -> Problem:
    path = project.dbt_dir / source["original_file_path"]
    shown = project.relative(path)
    what = (
        f"the age of the source {source['source_name']}.{source['name']} is not checked: it has neither "
        "loaded_at_field nor loaded_at_query, and this warehouse does not tell when a table has changed"
    )
    try:
        document = read_document(path, shown)
    except ConfigError:
        # dbt reads more than we do, and a package's files lie elsewhere.
        return Problem(shown, what, _FIX)
    return document.problem(_place(document, source), what, _FIX)


def _place(document: Document, source: Mapping[str, Any]) -> Location:
    table = place_of_table(document, source["source_name"], source["name"])
    for entry in (table, table[:2]):
        for below in (("config", "freshness"), ("freshness",)):
            if (*entry, *below) in document.keys:
                return (*entry, *below)
    return table
