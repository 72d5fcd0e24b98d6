"""Finds and checks what stands below `config.meta.orrery` of sources, exposures and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from orrery.config.block import Block
from orrery.config.dbt_pods import DbtPods
from orrery.config.document import Document, Location, read_document
from orrery.config.errors import ConfigError, Problem, suggest
from orrery.config.kubernetes import Job, JobIngest, Spark, SparkIngest
from orrery.config.loader import validate
from orrery.config.project import Project
from orrery.config.templates import check_template

Resource = dict[str, Any]
Meta = TypeVar("Meta", bound=Block)

_BELOW: tuple[Location, ...] = (("config", "meta", "orrery"), ("meta", "orrery"))


class BlockReader:
    """Reads the blocks of one resource, and tells where in its file something is wrong.

    :param section: `sources`, `exposures` or `groups`, under which the resource stands as `name`
    :param table: the table of a source, when it has a block of its own
    """

    def __init__(
        self, project: Project, resource: Resource, section: str, name: str, table: str | None = None
    ) -> None:
        self._project = project
        path = project.dbt_dir / resource["original_file_path"]
        self._document, self._at = _place(path, project.relative(path), section, name, table)

    @classmethod
    def of_source(cls, project: Project, source: Resource, *, shared: bool) -> BlockReader:
        """The reader of a table, or, when all tables share what is said, of the source."""
        return cls(project, source, "sources", source["source_name"], None if shared else source["name"])

    @classmethod
    def of_exposure(cls, project: Project, exposure: Resource) -> BlockReader:
        """The reader of an exposure."""
        return cls(project, exposure, "exposures", exposure["name"])

    @classmethod
    def of_group(cls, project: Project, group: Resource) -> BlockReader:
        """The reader of a dbt group."""
        return cls(project, group, "groups", group["name"])

    def meta(self, model: type[Meta], value: Any) -> Meta:
        """The value of `orrery` as dbt has it; raises ConfigError."""
        return validate(model, self._document, self._at, value)

    def kind_of(self, content: Resource, at: Location, kinds: Mapping[str, type[Block]], noun: str) -> str:
        """The kind of a block; raises ConfigError when it is none, or several."""
        found = [kind for kind in kinds if kind in content]
        if len(found) == 1:
            return found[0]
        if found:
            what, fix = f"is {' and '.join(found)} at once", "Keep one of these keys."
        else:
            near = [suggest(key, kinds, "kind") for key in content]
            mean = next((each for each in near if each.startswith("Did you mean")), "")
            what, fix = "does not say what it is", mean or f"Write one of: {', '.join(kinds)}."
        raise ConfigError([self.problem(at, f"the {noun} block {what}", fix)])

    def block(self, content: Resource, at: Location, model: type[Meta]) -> Meta:
        """A block as its model; raises ConfigError, also for a template that cannot be rendered."""
        block = validate(model, self._document, (*self._at, *at), content)
        for kind, its in (("job", JobIngest), ("spark", SparkIngest)):
            if isinstance(block, its):
                check_template_of(self._project, getattr(block, kind), self.problem((*at, kind), "", ""))
        return block

    def problem(self, at: Location, what: str, fix: str, *, at_value: bool = False) -> Problem:
        """A problem at a place below `orrery`."""
        return self._document.problem((*self._at, *at), what, fix, at_value=at_value)


def check_template_of(project: Project, block: Job | Spark | DbtPods, place: Problem) -> None:
    """Raise ConfigError when the template of a block cannot be rendered; `place` is where it is used."""
    try:
        check_template(project, block)
    except ConfigError as error:
        used = f"{place.file}:{place.line}" if place.line else place.file
        raise ConfigError(
            [replace(each, fix=f"{each.fix}\n  It is used in {used}") for each in error.problems]
        ) from None


def _place(path: Path, shown: str, section: str, name: str, table: str | None) -> tuple[Document, Location]:
    """The file of a resource, and where its `orrery` stands in it."""
    try:
        document = read_document(path, shown)
    except ConfigError:
        # dbt reads more than we do, and a package's files lie elsewhere.
        return Document(shown, {}, {}, {}, ()), ()
    for here in _entries(document, section, name, table):
        for below in _BELOW:
            if (*here, *below) in document.keys:
                return document, (*here, *below)
    return document, ()


def place_of_table(document: Document, source: str, table: str) -> Location:
    """Where a table of a source stands in its file; the source where the table does not, or nothing."""
    return next(_entries(document, "sources", source, table), ())


def _entries(document: Document, section: str, name: str, table: str | None) -> Iterator[Location]:
    """The places of a resource with this name, or of a table in it."""
    for index, entry in enumerate(document.data.get(section) or []):
        if entry.get("name") != name:
            continue
        here: Location = (section, index)
        for number, inner in enumerate(entry.get("tables") or []):
            if table is not None and inner.get("name") == table:
                here = (*here, "tables", number)
        yield here
