"""The `ingest` blocks of sources: what has to come in before the tables of a pipeline are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orrery.config.document import Location
from orrery.config.errors import ConfigError, Problem, suggest
from orrery.config.ingest import TABLE, Files
from orrery.config.kinds import INGEST_KINDS, PER_TABLE, SourceMeta
from orrery.config.project import Project
from orrery.manifest.blocks import BlockReader
from orrery.manifest.profile import Profile, read_profile

Resource = dict[str, Any]
# The types of the warehouses that files can be loaded into, and those of them that load chunks.
_LOADED, _CHUNKED = ("postgres", "bigquery"), ("postgres",)


def ingestions(
    project: Project, sources: Mapping[str, Resource], used: Iterable[str], *, full_refresh: bool = False
) -> list[Resource]:
    """What fills the `used` sources, by unique id, as the slim manifest has it.

    Each is `{"name", "kind", "block", "sources", "after"}`: the tables that it is for, and the names of
    those that come before it. A block on a source is one for all its tables; but one of files, which are
    those of a table, is one for each. Raises ConfigError.
    """
    found: dict[str, Resource] = {}
    problems: list[Problem] = []
    profile = read_profile(project)
    for uid in sorted(used):
        source = sources[uid]
        meta = source.get("config", {}).get("meta", {}).get("orrery")
        if meta is None:
            continue
        shared = meta == (source.get("source_meta") or {}).get("orrery")
        try:
            steps = _Steps(project, profile, source, shared=shared).read(meta, full_refresh=full_refresh)
        except ConfigError as error:
            problems += error.problems
            continue
        before: list[str] = []
        for name, kind, content in steps:
            entry = found.setdefault(
                name, {"name": name, "kind": kind, "block": content, "sources": [], "after": []}
            )
            entry["sources"].append(uid)
            entry["after"] += [other for other in before if other not in entry["after"]]
            before = [name]
    if problems:
        # Each table has the mistakes of its source's block.
        raise ConfigError(list(dict.fromkeys(problems)))
    return list(found.values())


class _Steps:
    """The steps that fill one table, the last of which has its plain name."""

    def __init__(self, project: Project, profile: Profile, source: Resource, *, shared: bool) -> None:
        self._profile, self._source, self._shared = profile, source, shared
        self._reader = BlockReader.of_source(project, source, shared=shared)

    def read(self, meta: Any, *, full_refresh: bool) -> list[tuple[str, str, Resource]]:
        """Name, kind and content of each step; raises ConfigError."""
        checked = self._reader.meta(SourceMeta, meta)
        key, value = "ingest", checked.ingest
        if full_refresh and checked.ingest_full_refresh is not None:
            key, value = "ingest_full_refresh", checked.ingest_full_refresh
        if value is None:
            return []
        places: list[tuple[Location, Resource]] = [((key,), value)] if isinstance(value, dict) else []
        if isinstance(value, list):
            places = [((key, number), step) for number, step in enumerate(value)]
        # The other block is checked, too: a mistake in it must not wait for its day.
        for other in ("ingest", "ingest_full_refresh"):
            unused = getattr(checked, other) if other != key else None
            if unused is not None:
                listed = unused if isinstance(unused, list) else [unused]
                for number, step in enumerate(listed):
                    self._step(dict(step), (other, number) if isinstance(unused, list) else (other,))
        steps: list[tuple[str, str, Resource]] = []
        for number, (at, step) in enumerate(places, start=1):
            kind, content = self._step(dict(step), at)
            last = number == len(places)
            steps.append((self._name(kind, "" if last else f"__{kind}", steps), kind, content))
        return steps

    def _name(self, kind: str, ending: str, earlier: list[tuple[str, str, Resource]]) -> str:
        name = str(self._source["source_name"])
        if not self._shared or kind in PER_TABLE:
            name += f"__{self._source['name']}"
        taken = {other for other, _, _ in earlier}
        number = 2
        while (full := name + ending) in taken:
            name, number = f"{name}_{number}", number + 1
        return full

    def _step(self, content: Resource, at: Location) -> tuple[str, Resource]:
        kind = self._reader.kind_of(content, at, INGEST_KINDS, "ingest")
        block = self._reader.block(content, at, INGEST_KINDS[kind])
        if isinstance(block, Files):
            self._check_files(block, at)
            content["files"] = block.files.replace(TABLE, self._source["name"])
            if self._profile.adapter not in ("", *_CHUNKED):
                content.pop("chunk_size", None)
        return kind, content

    def _check_files(self, block: Files, at: Location) -> None:
        columns = self._source.get("columns", {})
        problems = [
            self._reader.problem(
                (*at, "key"),
                f"the key column {name!r} is not among the columns of {self._source['name']!r}",
                suggest(name, columns, "column"),
                at_value=True,
            )
            for name in block.key
            if name not in columns
        ]
        if self._shared and TABLE not in block.files:
            what = f"the pattern is the same for all tables of {self._source['source_name']!r}"
            fix = f"Write {TABLE} in it, or move the block to a table."
            problems.append(self._reader.problem((*at, "files"), what, fix, at_value=True))
        if self._profile.adapter not in ("", *_LOADED):
            what = "files are loaded into PostgreSQL and BigQuery only, and the target "
            what += f"{self._profile.target!r} is of type {self._profile.adapter}"
            fix = "Fill the table by other means and remove the block, or use a target of one of them."
            problems.append(self._reader.problem((*at, "files"), what, fix))
        if problems:
            raise ConfigError(problems)
