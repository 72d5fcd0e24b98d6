"""Pages from templates, and the headers that they are sent with."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orrery.pages import words

_TEMPLATES = Path(__file__).with_name("templates")
_STYLE = (_TEMPLATES / "style.css").read_text(encoding="utf-8")
_SCRIPT = (_TEMPLATES / "page.js").read_text(encoding="utf-8")


def _source(text: str) -> str:
    """How a policy names a text that stands in the page itself."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_COMMON = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
# One style, one script, frames with what runs have published, and nothing else, whatever dbt's texts say.
PAGE_HEADERS = _COMMON | {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; frame-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    )
}
# What runs have published is not ours: it may run scripts, but as nobody, with no way to Airflow.
FILE_HEADERS = _COMMON | {"Content-Security-Policy": "sandbox allow-scripts"}

_jinja = Environment(
    loader=FileSystemLoader(_TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_jinja.filters.update(
    {
        name: getattr(words, name)
        for name in ("ago", "called", "count", "duration", "freshness", "kind", "moment", "schedule")
    }
)
# The two texts are ours; not a character may change on the way.
_jinja.globals.update(style=Markup(_STYLE), script=Markup(_SCRIPT))


class Links:
    """The addresses of pages, wherever Airflow lies. `airflow` is Airflow's own root."""

    def __init__(self, request: Request) -> None:
        self.airflow = request.scope.get("app_root_path", "")
        self._own = request.scope.get("root_path", "")

    @property
    def index(self) -> str:
        return f"{self._own}/"

    def product(self, name: str) -> str:
        return f"{self._own}/pipelines/{_part(name)}"

    def file(self, name: str, folder: str, file: str) -> str:
        """A published file itself."""
        return f"{self.product(name)}/files/{_part(folder)}/{_part(file)}"

    def view(self, name: str, folder: str, file: str) -> str:
        """The page around a published HTML file."""
        return f"{self.product(name)}/view/{_part(folder)}/{_part(file)}"

    def dag(self, name: str) -> str:
        return f"{self.airflow}/dags/{_part(name)}"

    def run(self, name: str, run_id: str) -> str:
        return f"{self.dag(name)}/runs/{_part(run_id)}"

    def task(self, name: str, run_id: str, task_id: str, map_index: int = -1) -> str:
        """The page of a task instance, which opens with its log."""
        page = f"{self.run(name, run_id)}/tasks/{_part(task_id)}"
        return f"{page}/mapped/{map_index}" if map_index >= 0 else page


def _part(text: str) -> str:
    return quote(text, safe="")


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template, which gets `links` beside the values."""
    text = _jinja.get_template(template).render(links=Links(request), **values)
    return HTMLResponse(text, status, headers=PAGE_HEADERS)
