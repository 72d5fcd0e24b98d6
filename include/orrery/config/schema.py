"""The JSON Schemas of the YAML blocks, committed for editors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orrery.config.pipeline import Pipeline
from orrery.config.project import Project


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
    schema: dict[str, Any] = Pipeline.model_json_schema()
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return {project.schema_dir / "pipeline.json": json.dumps(schema, indent=2) + "\n"}
