"""The JSON Schemas of the YAML blocks, committed for editors."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel

from orrery.config.ingest import Files
from orrery.config.pipeline import Pipeline
from orrery.config.project import Project

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_MODELS: dict[str, type[BaseModel]] = {"pipeline": Pipeline, "ingest": Files}


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
    return {
        project.schema_dir / f"{name}.json": json.dumps(
            {"$schema": _DIALECT, **model.model_json_schema()}, indent=2
        )
        + "\n"
        for name, model in _MODELS.items()
    }
