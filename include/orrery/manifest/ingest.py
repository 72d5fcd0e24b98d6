"""The `ingest` blocks of sources: which data has to come in before the tables of a pipeline are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from orrery.config.document import Document, Location, read_document
from orrery.config.errors import ConfigError, Problem, suggest
from orrery.config.ingest import KINDS, TABLE, Files, SourceMeta
from orrery.config.loader import validate
from orrery.config.project import Project

Resource = dict[str, Any]


def ingestions(project: Project, sources: Mapping[str, Resource], used: Iterable[str]) -> list[Resource]:
    """What fills the `used` sources, by unique id, as the slim manifest has it.

    Each is `{"name", "kind", "block", "source"}`. A block of files on a source is one for each of its
    tables. Raises ConfigError.
    """
    found: list[Resource] = []
    problems: list[Problem] = []
    for uid in sorted(used):
        source = sources[uid]
        meta = source.get("config", {}).get("meta", {}).get("orrery")
        if meta is None:
            continue
        shared = meta == (source.get("source_meta") or {}).get("orrery")
        reader = _Reader(project, source, shared=shared)
        try:
            block = reader.read(meta)
        except ConfigError as error:
            problems += error.problems
            continue
        if block is None:
            continue
        kind, content = block
        name = f"{source['source_name']}__{source['name']}"
        found.append({"name": name, "kind": kind, "block": content, "source": uid})
    if problems:
        # Each table has the mistakes of its source's block.
        raise ConfigError(list(dict.fromkeys(problems)))
    return found


class _Reader:
    """Reads the block of one table, and tells where in its file something is wrong."""

    def __init__(self, project: Project, source: Resource, *, shared: bool) -> None:
        self._project, self._source, self._shared = project, source, shared

    def read(self, meta: Any) -> tuple[str, Resource] | None:
        """Kind and content of the block below `meta`; None when there is none. Raises ConfigError."""
        document, at = self._place()
        checked = validate(SourceMeta, document, at, meta)
        if checked.ingest is None:
            return None
        content, at = dict(checked.ingest), (*at, "ingest")
        kinds = [kind for kind in KINDS if kind in content]
        if len(kinds) != 1:
            raise ConfigError([self._no_kind(document, at, content, kinds)])
        block = validate(KINDS[kinds[0]], document, at, content)
        self._check_files(document, at, block)
        content["files"] = block.files.replace(TABLE, self._source["name"])
        return kinds[0], content

    def _check_files(self, document: Document, at: Location, block: Files) -> None:
        columns = self._source.get("columns", {})
        problems = [
            document.problem(
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
            problems.append(document.problem((*at, "files"), what, fix, at_value=True))
        if problems:
            raise ConfigError(problems)

    @staticmethod
    def _no_kind(document: Document, at: Location, content: Resource, kinds: list[str]) -> Problem:
        if kinds:
            what, fix = f"is {' and '.join(kinds)} at once", "Keep one of these keys."
        else:
            near = [suggest(key, KINDS, "kind") for key in content]
            mean = next((each for each in near if each.startswith("Did you mean")), "")
            what, fix = "does not say what it is", mean or f"Write one of: {', '.join(KINDS)}."
        return document.problem(at, f"the ingest block {what}", fix)

    def _place(self) -> tuple[Document, Location]:
        """The file of the source, and where its `orrery` stands in it."""
        path = self._project.dbt_dir / self._source["original_file_path"]
        shown = self._project.relative(path)
        try:
            document = read_document(path, shown)
        except ConfigError:
            # dbt reads more than we do, and a package's files lie elsewhere.
            return Document(shown, {}, {}, {}, ()), ()
        for index, source in enumerate(document.data.get("sources") or []):
            if source.get("name") != self._source["source_name"]:
                continue
            here: Location = ("sources", index)
            for number, table in enumerate(source.get("tables") or []):
                if not self._shared and table.get("name") == self._source["name"]:
                    here = (*here, "tables", number)
            for below in (("config", "meta", "orrery"), ("meta", "orrery")):
                if (*here, *below) in document.keys:
                    return document, (*here, *below)
        return document, ()
