"""What is wrong with pipelines only together; the checks make broken ones of valid ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from orrery.config.errors import ConfigError, suggest
from orrery.config.stores import Place

if TYPE_CHECKING:
    from orrery.config.loader import LoadedPipeline


def check_after(valid: dict[str, LoadedPipeline], broken: dict[str, ConfigError]) -> None:
    """Pipelines may come after others that there are, and not wait for each other."""
    known = {*valid, *broken}
    for name, pipeline in list(valid.items()):
        problems = [
            pipeline.document.problem(
                ("schedule", "after"), f"unknown pipeline {other!r}", suggest(other, known, "pipeline")
            )
            for other in pipeline.config.after
            if other not in known
        ]
        cycle = _cycle(name, lambda key: valid[key].config.after if key in valid else ())
        if cycle:
            problems.append(
                pipeline.document.problem(
                    ("schedule", "after"),
                    "the pipelines wait for each other: " + " -> ".join(cycle),
                    "Remove one of these after entries.",
                )
            )
        if problems:
            broken[name] = ConfigError(problems)
    for name in broken:
        valid.pop(name, None)


def check_places(valid: dict[str, LoadedPipeline], broken: dict[str, ConfigError]) -> None:
    """No two pipelines may publish to one place.

    They would replace each other's latest files, and delete each other's runs.
    """
    first: dict[Place, str] = {}
    for name, pipeline in list(valid.items()):
        block = pipeline.config.publish
        if block is None or block.to is None:
            continue
        other = first.setdefault(Place.parse(block.to), name)
        if other != name:
            problem = valid.pop(name).document.problem(
                ("publish", "to"),
                f"the pipeline {other!r} publishes to this place, too",
                "Give each pipeline a folder of its own below it.",
                at_value=True,
            )
            broken[name] = ConfigError([problem])


def _cycle(start: str, parents: Callable[[str], Iterable[str]]) -> list[str]:
    """The names on a way from `start` back to itself, or an empty list."""
    ways = [[start]]
    visited: set[str] = set()
    while ways:
        way = ways.pop()
        for parent in parents(way[-1]):
            if parent == start:
                return [*way, parent]
            if parent not in visited:
                visited.add(parent)
                ways.append([*way, parent])
    return []
