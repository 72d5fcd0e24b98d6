"""Which files a manifest was built from, so that a stale one is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from orrery.config.project import Project

# [size in bytes, modification time in nanoseconds, digest of the content]
Entry = list[Any]

_PATH_KEYS = {
    "model-paths": ["models"],
    "seed-paths": ["seeds"],
    "snapshot-paths": ["snapshots"],
    "test-paths": ["tests"],
    "macro-paths": ["macros"],
    "function-paths": ["functions"],
    # Their YAML files and blocks of docs can describe other resources, too.
    "analysis-paths": ["analyses"],
    "docs-paths": [],
}
_SUFFIXES = (".sql", ".yml", ".yaml", ".md", ".py", ".csv")
_TOP_FILES = (
    *("dbt_project.yml", "selectors.yml", "profiles.yml", "packages.yml", "dependencies.yml"),
    "packages/packages.yml",
)


def take(project: Project) -> dict[str, Entry]:
    """The fingerprint of every file that can change the manifest, by path inside the dbt project.

    The rows of a seed do not change the graph, so only the presence of a CSV file counts.
    """
    fingerprint: dict[str, Entry] = {}
    for name, path, stat in _files(project):
        fingerprint[name] = [stat.st_size, stat.st_mtime_ns, _digest(path)]
    return fingerprint


def changes(project: Project, built_from: Mapping[str, Entry]) -> list[str]:
    """What differs between the project now and `built_from`, in words; empty when nothing does.

    A file whose size and time are as recorded is not read; any other is compared by content,
    because a clone or an image has other times than the machine that built the manifest.
    """
    found: set[str] = set()
    result: list[str] = []
    for name, path, stat in _files(project):
        found.add(name)
        entry = built_from.get(name)
        if entry is None:
            result.append(f"{name} is new")
        elif entry[:2] != [stat.st_size, stat.st_mtime_ns] and entry[2] != _digest(path):
            result.append(f"{name} has changed")
    result += [f"{name} is gone" for name in built_from if name not in found]
    return sorted(result)


def names(project: Project) -> list[str]:
    """The files that can change the manifest, by path inside the dbt project."""
    return [name for name, _, _ in _files(project)]


def _digest(path: Path) -> str:
    if path.suffix == ".csv":
        return ""
    return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()


def _files(project: Project) -> Iterator[tuple[str, Path, os.stat_result]]:
    root = project.dbt_dir
    for name in _TOP_FILES:
        path = root / name
        if path.is_file():
            yield name, path, path.stat()
    for folder in [*_folders(root), project.pipelines_dir]:
        yield from _walk(root, folder)


def _folders(root: Path) -> list[Path]:
    try:
        settings = yaml.load((root / "dbt_project.yml").read_bytes(), Loader=yaml.CSafeLoader)
    except (OSError, yaml.YAMLError):
        settings = None
    if not isinstance(settings, dict):
        settings = {}
    names = {name for key, default in _PATH_KEYS.items() for name in settings.get(key) or default}
    return [root / str(name) for name in sorted(names)]


def _walk(root: Path, folder: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _walk(root, Path(entry.path))
        elif entry.name.endswith(_SUFFIXES):
            path = Path(entry.path)
            yield path.relative_to(root).as_posix(), path, entry.stat()
