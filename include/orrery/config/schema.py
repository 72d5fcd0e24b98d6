"""The JSON Schemas of the YAML blocks, committed for editors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter

from orrery.config.kinds import INGEST_KINDS, RUN_KINDS
from orrery.config.pipeline import Pipeline
from orrery.config.project import Project

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# An editor shows what is possible in a block of any kind.
_KINDS: dict[str, Mapping[str, type[BaseModel]]] = {"ingest": INGEST_KINDS, "run": RUN_KINDS}


def write_schemas(project: Project) -> None:
    """Write every schema into include/schema/."""
    for path, text in _schemas(project).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def stale_schemas(project: Project) -> list[Path]:
    """The schema files that are missing or differ from the models."""
    return [
        path
        for path, text in _schemas(project).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text
    ]


def _schemas(project: Project) -> dict[Path, str]:
    schemas = {"pipeline": Pipeline.model_json_schema()}
    for name, kinds in _KINDS.items():
        members: Any = reduce(or_, kinds.values())
        schemas[name] = TypeAdapter(members).json_schema()
    return {
        project.schema_dir / f"{name}.json": json.dumps({"$schema": _DIALECT, **schema}, indent=2) + "\n"
        for name, schema in schemas.items()
    }
