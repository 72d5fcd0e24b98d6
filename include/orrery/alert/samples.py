"""Rows that failed a test, for those who may see them."""

from __future__ import annotations

import logging
import re
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orrery.alert.message import Samples
from orrery.config.alerts import MOST_SAMPLES
from orrery.config.project import Project
from orrery.execute.options import RunOptions
from orrery.execute.profile import use_connection
from orrery.execute.results import MOST_SQL
from orrery.manifest.dbt import Dbt
from orrery.manifest.known_secrets import conceal

log = logging.getLogger(__name__)

Resource = dict[str, Any]

# dbt's own tests, which show the tested column under these names.
_OWN_TESTS = ("not_null", "unique", "accepted_values", "relationships")
_OWN_COLUMNS = frozenset({"unique_field", "value_field", "from_field", "n_records"})
# For all of dbt's start, and for the query.
SECONDS, _QUERY_SECONDS = 10.0, 4.0


@dataclass(frozen=True)
class Permit:
    """How many rows may be shown, and which columns; None: all of them."""

    rows: int
    columns: frozenset[str] | None = None


def permit(test: Resource, parents: Sequence[Resource], most: int) -> Permit | None:
    """What may be shown of a failed test; None: nothing.

    The test itself allows it (`config.meta.orrery.samples`), or all that it reads does. Columns that are
    tagged `pii` are never shown. Where there are any, only columns that are declared are, by their names;
    and of tests whose SQL may give one column the name of another, only those that allow it themselves.
    """
    own = _allowed(test)
    rows = min(most, own or min((_allowed(parent) for parent in parents), default=0))
    if rows < 1:
        return None
    columns = [(name.lower(), column) for parent in parents for name, column in parent["columns"].items()]
    private = {name for name, column in columns if column.get("pii")}
    if not private:
        return Permit(rows)
    declared = frozenset(name for name, _ in columns if name not in private)
    metadata = test.get("test_metadata") or {}
    if metadata.get("name") in _OWN_TESTS and metadata.get("namespace") in (None, "dbt"):
        tested = str(test.get("column_name") or "").strip('"`').lower()
        return Permit(rows, declared | _OWN_COLUMNS) if tested in declared else None
    return Permit(rows, declared) if own else None


def _allowed(resource: Resource) -> int:
    meta = (resource.get("config", {}).get("meta") or {}).get("orrery") or {}
    found = meta.get("samples") if isinstance(meta, dict) else None
    if found is True:
        return MOST_SAMPLES
    return found if isinstance(found, int) and found > 0 else 0


def sql_of(compiled: str, name: str) -> str | None:
    """The SQL of one test in that of a task, where each stands below its name; None when it is not there."""
    if len(compiled) >= MOST_SQL:
        # It may have been cut.
        return None
    parts = re.split(r"(?m)^-- (\S+)$", compiled)
    if len(parts) == 1:
        return compiled.strip() or None
    for title, sql in zip(parts[1::2], parts[2::2], strict=True):
        # Cosmos names the files, and those under `run` are no queries.
        if title == name or (Path(title).stem == name and "/compiled/" in title):
            return sql.strip()
    return None


def shown(names: Sequence[str], rows: Sequence[Sequence[Any]], allowed: Permit) -> Samples | None:
    """The rows as text, without the columns that may not be seen; None when none is left."""
    kept = [
        index
        for index, name in enumerate(names)
        if allowed.columns is None or name.lower() in allowed.columns
    ]
    if not kept or not rows:
        return None
    cells = (
        tuple("null" if row[index] is None else conceal(str(row[index])) for index in kept)
        for row in rows[: allowed.rows]
    )
    return Samples(tuple(names[index] for index in kept), tuple(cells))


def read_samples(sql: str, allowed: Permit, options: RunOptions) -> Samples | None:
    """Run a failed test once more, for some of its rows; None when they cannot be had in time."""
    found: list[Samples | None] = []

    def read() -> None:
        try:
            found.append(shown(*_rows(sql, allowed.rows, options), allowed))
        except Exception as error:
            # Its text may hold values of rows.
            log.info("There are no samples of the failed rows: %s", type(error).__name__)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        log.info("There are no samples of the failed rows: they did not come within %g s", SECONDS)
    return found[0] if found else None


def _rows(sql: str, most: int, options: RunOptions) -> tuple[list[str], list[tuple[Any, ...]]]:
    project = Project.find()
    with tempfile.TemporaryDirectory(prefix="orrery-samples-", ignore_cleanup_errors=True) as folder:
        use_connection(project, Path(folder))
        dbt = Dbt(project, target_dir=Path(folder), variables=options.variables)
        return dbt.rows(sql, most, seconds=_QUERY_SECONDS)
