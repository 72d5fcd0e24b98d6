"""Loads the pipeline files and turns every mistake in them into a Problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from orrery.config.document import Document, Location, parse_document, read_text
from orrery.config.environment import named
from orrery.config.errors import ConfigError, Problem, suggest
from orrery.config.pipeline import Pipeline
from orrery.config.project import Project
from orrery.config.text import first_unfit
from orrery.config.together import check_after, check_places

Model = TypeVar("Model", bound=BaseModel)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class LoadedPipeline:
    """A valid pipeline file: its name (the DAG id), its settings, its text, and the text with places."""

    name: str
    config: Pipeline
    document: Document = field(repr=False)
    text: str = field(default="", repr=False)


@dataclass(frozen=True)
class Pipelines:
    """All pipeline files of a project: the valid ones by name, and the errors of the others."""

    valid: Mapping[str, LoadedPipeline]
    broken: Mapping[str, ConfigError]

    @property
    def names(self) -> list[str]:
        """The names of all pipelines, broken ones too."""
        return sorted({*self.valid, *self.broken})

    def get(self, name: str) -> LoadedPipeline:
        """The pipeline `name`, with or without its environment; raises ConfigError if broken or not there."""
        file, name = f"dbt/pipelines/{name}.yml", named(name)
        if name in self.valid:
            return self.valid[name]
        if name in self.broken:
            raise self.broken[name]
        raise ConfigError([Problem(file, "no such pipeline", suggest(name, self.names, "pipeline"))])


def load_pipelines(project: Project) -> Pipelines:
    """Load dbt/pipelines/*.yml (and *.yaml); one broken file leaves the others valid."""
    valid: dict[str, LoadedPipeline] = {}
    broken: dict[str, ConfigError] = {}
    seen: dict[str, str] = {}
    files = [p for p in sorted(project.pipelines_dir.glob("*.y*ml")) if p.suffix in (".yml", ".yaml")]
    for path in files:
        name, shown = named(path.stem), project.relative(path)
        try:
            if name in seen:
                raise ConfigError(
                    [
                        Problem(
                            shown,
                            f"the pipeline name {name!r} is already taken by {seen[name]}",
                            "Rename one of the two files; a file's name is its pipeline's name.",
                        )
                    ]
                )
            seen[name] = shown
            valid[name] = load_text(read_text(path, shown), name, shown)
        except ConfigError as error:
            broken[name] = error
            valid.pop(name, None)
    check_after(valid, broken)
    check_places(valid, broken)
    return Pipelines(valid, broken)


def load_text(text: str, name: str, shown: str) -> LoadedPipeline:
    """The pipeline `name` from the text of its file; raises ConfigError.

    :param shown: what errors call the file
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            [
                Problem(
                    shown,
                    f"{name!r} cannot be the name of a pipeline",
                    "Name the file with letters, digits, _ and - only.",
                )
            ]
        )
    document = parse_document(text, shown)
    _check_characters(document)
    config = validate(Pipeline, document)
    unknown = [stage for stage in config.skip_stages if stage not in config.stage_names]
    if unknown:
        raise ConfigError(
            [
                document.problem(
                    _item(document, "skip_stages", stage),
                    f"unknown stage {stage!r}",
                    suggest(stage, config.stage_names, "stage"),
                    at_value=True,
                )
                for stage in unknown
            ]
        )
    return LoadedPipeline(name, config, document, text)


def _check_characters(document: Document) -> None:
    """Raise ConfigError for characters that Airflow's database cannot hold, which YAML writes as escapes."""
    problems = [
        document.problem(
            location, f"the character U+{ord(found):04X} cannot be stored", "Remove it.", at_value=True
        )
        for location in document.values
        if (found := first_unfit(document.at(location)))
    ]
    if problems:
        raise ConfigError(problems)


def _item(document: Document, key: str, value: str) -> Location:
    items = document.data.get(key)
    return (key, items.index(value)) if isinstance(items, list) else (key,)


def validate(model: type[Model], document: Document, at: Location = (), data: Any = None) -> Model:
    """`document` as an instance of `model`; raises ConfigError with the place of every mistake.

    :param at: where the block begins, when it is not the whole document
    :param data: the block, when it is not what stands in the document (dbt has rendered it, say)
    """
    try:
        return model.model_validate(document.data if data is None else data)
    except ValidationError as error:
        mistakes: list[dict[str, Any]] = [dict(item) for item in error.errors()]
        # A misspelt key is missing under its right name too; one message is enough.
        misspelt = {item["loc"][:-1] for item in mistakes if item["type"] == "extra_forbidden"}
        problems = [
            _problem(model, document, at, item)
            for item in mistakes
            if not (item["type"] == "missing" and item["loc"][:-1] in misspelt)
        ]
        raise ConfigError(_without_repeats(problems)) from None


def _without_repeats(problems: list[Problem]) -> list[Problem]:
    # A value that fits no member of a union is reported once per member.
    unique: dict[tuple[int, int], Problem] = {}
    for problem in problems:
        unique.setdefault((problem.line, problem.column), problem)
    return [unique[place] for place in sorted(unique)]


def _problem(model: type[BaseModel], document: Document, at: Location, error: Mapping[str, Any]) -> Problem:
    location = _location(document, at, error["loc"])
    kind, context = error["type"], error.get("ctx", {})
    if kind == "extra_forbidden":
        known = _fields(model, location[len(at) : -1])
        return document.problem(
            location, f"unknown key {location[-1]!r}", suggest(location[-1], known, "key")
        )
    if kind == "orrery":
        key = context["key"]
        place = location if key is None else (*location, key)
        return document.problem(place, context["what"], context["fix"], at_value=key is None)
    if kind == "literal_error":
        expected = [part.strip(" '") for part in context["expected"].replace(" or ", ", ").split(",")]
        return document.problem(
            location,
            f"{error['input']!r} is no value of {_key(location)!r}",
            suggest(error["input"], expected, "value"),
            at_value=True,
        )
    if kind == "missing":
        return document.problem(location, f"the key {error['loc'][-1]!r} is missing", "Add it.")
    return document.problem(location, *_wrong_value(location, error), at_value=True)


def _location(document: Document, at: Location, loc: tuple[Any, ...]) -> Location:
    """The place that pydantic means: it adds the names of union members, which are no keys of the file."""
    location = at
    for part in loc:
        longer = (*location, part)
        if longer in document.keys or longer in document.values:
            location = longer
    return location


_EXPECTED = {
    "string_type": "text; put the value in quotes",
    "int_type": "a whole number without quotes",
    "bool_type": "true or false without quotes",
    "date_type": "a date such as 2026-01-31",
    "date_from_datetime_inexact": "a date such as 2026-01-31, without a time",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
    "tuple_type": "a list, or one value",
}


def _key(location: Location) -> str:
    return next((part for part in reversed(location) if isinstance(part, str)), "the file")


def _wrong_value(location: Location, error: Mapping[str, Any]) -> tuple[str, str]:
    key = _key(location)
    expected = _EXPECTED.get(error["type"])
    if expected:
        return f"{key!r} has the wrong type: {error['input']!r}", f"Write {expected}."
    return f"{key!r}: {error['input']!r} is not possible", f"{error['msg'][:1].upper()}{error['msg'][1:]}."


def _fields(model: type[BaseModel], location: Location) -> list[str]:
    """The keys that are known at `location` inside `model`."""
    for part in location:
        if not isinstance(part, str) or part not in model.model_fields:
            return list(model.model_fields)
        inner = _models_in(model.model_fields[part].annotation)
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]
