"""What is told, whoever gets it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from airflow.sdk.configuration import conf

from orrery.config.alerts import Event

# Of dbt's error.
_LINES, _CHARACTERS = 12, 1500


@dataclass(frozen=True)
class Samples:
    """Some of the rows that failed a test, as text."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class FailedTest:
    """A test that failed or warned; `failures` is the number of its rows."""

    name: str
    column: str | None = None
    failures: int | None = None
    samples: Samples | None = None


@dataclass(frozen=True)
class Message:
    """One message, as plain text without any markup.

    `title` is one line; `facts` are labels and values about what failed; `error` is the error itself; `items`
    the lines of a digest. `held_back` is the number of nodes that do not run, `exposures` are the names of
    those that are affected. `links` lead into Airflow, by what they show. `done` is set when it is over.
    """

    event: Event
    pipeline: str
    run_id: str
    title: str
    facts: Mapping[str, str] | None = None
    error: str | None = None
    tests: Sequence[FailedTest] = ()
    items: Sequence[str] = ()
    held_back: int = 0
    exposures: Sequence[str] = ()
    links: Mapping[str, str] | None = None
    command: str | None = None
    done: bool = False

    @property
    def text(self) -> str:
        """The message in one line."""
        first = (self.error or "").partition("\n")[0]
        return f"{self.title}: {first}" if first else self.title

    def as_dict(self) -> dict[str, Any]:
        """The message as JSON has it; what is empty is left out."""
        return {key: value for key, value in asdict(self).items() if value or key == "held_back"}


def first_lines(text: str | None) -> str:
    """The beginning of an error, of a length that can be read in a message."""
    lines = (text or "").strip().splitlines()
    short = "\n".join(lines[:_LINES])[:_CHARACTERS]
    return short if short == "\n".join(lines) else f"{short}\n…"


def run_link(pipeline: str, run_id: str) -> str:
    """The page of a run in Airflow."""
    base = str(conf.get("api", "base_url", fallback="http://localhost:8080")).rstrip("/")
    return f"{base}/dags/{quote(pipeline)}/runs/{quote(run_id, safe='')}"


def task_link(pipeline: str, run_id: str, task_id: str, map_index: int = -1) -> str:
    """The page of a task instance in Airflow, with its log."""
    page = f"{run_link(pipeline, run_id)}/tasks/{quote(task_id)}"
    return f"{page}/mapped/{map_index}" if map_index >= 0 else page
