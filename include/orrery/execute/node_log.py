"""The task log of a node that has no process of its own: dbt's lines about it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.configuration import conf
from airflow.sdk.log import init_log_file, load_remote_log_handler
from jinja2 import Environment

from orrery.execute.collector import Line

if TYPE_CHECKING:
    from jinja2 import Template

log = logging.getLogger(__name__)


class NodeLogs:
    """Writes task logs of one DAG run where Airflow looks for them.

    The file lies on the machine of the build, and the task instance names that machine, as for any
    task; with remote logging it is uploaded as well.
    """

    def __init__(self, ti: Any, logical_date: Any) -> None:
        self._ti = ti
        self._logical_date = logical_date
        template = conf.get("logging", "log_filename_template")
        self._template: Template = Environment(autoescape=False).from_string(str(template))
        self._written: list[str] = []

    def write(self, task_id: str, try_number: int, lines: Iterable[Line]) -> None:
        """Write the log of one try of a task; a log that cannot be written fails no build."""
        ti = {
            "dag_id": self._ti.dag_id,
            "run_id": self._ti.run_id,
            "task_id": task_id,
            "map_index": -1,
            "try_number": try_number,
        }
        stamp = self._logical_date.isoformat() if self._logical_date else ""
        name = self._template.render(ti=ti, try_number=try_number, logical_date=self._logical_date, ts=stamp)
        try:
            path = init_log_file(name)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(_json(line) + "\n" for line in lines)
        except OSError as error:
            log.warning("The log of %s cannot be written: %s", task_id, error)
        else:
            self._written.append(name)

    def upload(self) -> None:
        """Copy the logs to where remote logging wants them, if it is on."""
        handler = load_remote_log_handler()
        if handler is None:
            return
        for name in self._written:
            try:
                handler.upload(name, self._ti)
            except Exception:
                log.exception("The log %s cannot be uploaded", Path(name))
        self._written.clear()


def _json(line: Line) -> str:
    return json.dumps({"timestamp": line.time, "level": line.level, "event": line.text, "logger": "dbt"})
