"""What dbt says when it cannot parse a project, with the place and the near match that it leaves out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orrery.config.errors import Problem, nearest
from orrery.config.project import Project
from orrery.manifest import fingerprint
from orrery.manifest.install import are_installed

if TYPE_CHECKING:
    from dbt.contracts.graph.manifest import Manifest

# Files that are a node each.
_NODES = (".sql", ".py", ".csv")
_MISSING_VARIABLE = re.compile(r"Env var required but not provided: '(?P<name>[^']+)'")
_NOT_FOUND = re.compile(
    r"\((?P<file>[^()\n]+\.\w+)\) depends on a (?P<kind>node|source) named '(?P<name>[^']+)'"
    r"(?: in package or project '[^']*')? which was not found"
)

# What dbt says of a macro of a package that is not there.
_UNDEFINED = re.compile(r"'\w+' is undefined")


def could_not_parse(project: Project, error: object) -> str:
    """The message of a project that dbt cannot parse: dbt's own, and what helps to find the place."""
    said = str(error).strip()
    place = _missing_variable(project, said) or _not_found(project, said) or _missing_package(project, said)
    folder = project.relative(project.dbt_dir)
    return "\n".join([f"dbt could not parse the project in {folder}/:", said, *map(str, place)])


def _missing_variable(project: Project, said: str) -> list[Problem]:
    found = _MISSING_VARIABLE.search(said)
    if found is None:
        return []
    name = found["name"]
    fix = (
        f"Set {name} where dbt runs (for the tasks of Airflow: where Airflow is started, and start it anew), "
        f"or give it a default: env_var('{name}', '...')."
    )
    asked = re.compile(rf"env_var\s*\(\s*(['\"])(?P<name>{re.escape(name)})\1\s*\)")
    what = f"the environment variable {name} is not set"
    # dbt stops at the first; all of them have to be known to be rid of it.
    places = [each for path in _files(project) for each in _places(project, path, asked, what, fix)]
    return places or [Problem(project.relative(project.dbt_dir), what, fix)]


def _not_found(project: Project, said: str) -> list[Problem]:
    found = _NOT_FOUND.search(said)
    if found is None:
        return []
    name = found["name"].rpartition(".")[2]
    near = None
    if found["kind"] == "node":
        near = nearest(
            name, {path.stem for path in _files(project) if path.suffix in (".sql", ".py", ".csv")}
        )
    fix = f"Did you mean {near!r}?" if near else "./orrery dbt ls shows what there is."
    asked = re.compile(rf"['\"](?P<name>{re.escape(name)})['\"]")
    path = project.dbt_dir / found["file"]
    return _places(project, path, asked, f"there is no {found['kind']} {found['name']!r}", fix)[:1]


def _missing_package(project: Project, said: str) -> list[Problem]:
    if not _UNDEFINED.search(said) or are_installed(project):
        return []
    listed = project.relative(project.dbt_dir / "packages" / "packages.yml")
    what = "not all dbt packages that it lists are installed"
    return [Problem(listed, what, "If that is why: ./orrery build --packages tries again.")]


def _places(project: Project, path: Path, asked: re.Pattern[str], what: str, fix: str) -> list[Problem]:
    """Where in a file a pattern, whose group `name` is the culprit, is found."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    return [
        Problem(
            project.relative(path),
            what,
            fix,
            line=number,
            column=match.start("name") + 1,
            # A line of a profile may hold a password.
            source=line if path.name != "profiles.yml" else "",
            length=len(match["name"]),
        )
        for number, line in enumerate(lines, start=1)
        for match in asked.finditer(line)
    ]


def _files(project: Project) -> Iterator[Path]:
    """The files that dbt reads."""
    yield from (project.dbt_dir / name for name in fingerprint.names(project))
    if project.profiles_dir != project.dbt_dir:
        yield project.profiles_dir / "profiles.yml"


def cycle(project: Project, manifest: Manifest) -> str | None:
    """The message about nodes that read each other in a circle, with their files; None when there are none.

    dbt parses such a project, and refuses each selection of it.
    """
    resources: dict[str, Any] = {**manifest.nodes, **manifest.unit_tests, **manifest.functions}
    graph = {
        uid: [parent for parent in resource.depends_on_nodes if parent in resources]
        for uid, resource in resources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # Each one reads the one before it.
        circle: list[str] = error.args[1]
        lines = [
            f"  {reader} ({project.relative(project.dbt_dir / resources[reader].original_file_path)}) "
            f"reads {read}"
            for read, reader in pairwise(circle)
        ]
        told = " --> ".join(reversed(circle))
        folder = project.relative(project.dbt_dir)
        return "\n".join(
            [
                f"dbt could not order the models in {folder}/: Found a cycle: {told}",
                *lines,
                "  Remove one of these references.",
            ]
        )
    return None
