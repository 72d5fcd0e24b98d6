"""Reads the run ledger from the warehouse, as dbt's role, and without dbt."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from typing import Any

import psycopg2

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.execute.node_runs import COLUMNS, TABLE, NodeRun, none_on
from orrery.manifest.profile import read_output, read_profile

# Nobody waits longer for a page.
_CONNECT_SECONDS = 3
_OPTIONS = "-c statement_timeout=3000 -c default_transaction_read_only=on"
_MOST_ROWS = 100_000
# psycopg2's names of the settings of dbt-postgres, which knows two for some.
_SETTINGS = {
    "host": ("host",),
    "port": ("port",),
    "user": ("user",),
    "password": ("password", "pass"),
    "dbname": ("dbname", "database"),
    "sslmode": ("sslmode",),
    "sslcert": ("sslcert",),
    "sslkey": ("sslkey",),
    "sslrootcert": ("sslrootcert",),
}
_QUERY = f"""
select {", ".join(COLUMNS)} from {TABLE}
join unnest(%(pipelines)s::text[], %(runs)s::text[]) as wanted (pipeline, run_id) using (pipeline, run_id)
where target in (%(target)s, '') and (%(types)s::text[] is null or resource_type = any (%(types)s))
limit {_MOST_ROWS}
"""


class LedgerError(OrreryError):
    """The run ledger cannot be read; the text is one sentence for the page."""


def read_nodes(
    project: Project, runs: Iterable[tuple[str, str]], types: Iterable[str] | None = None
) -> list[NodeRun]:
    """What the nodes did in these runs, in no order. Raises LedgerError and ProfileError.

    :param runs: pairs of pipeline and run id
    :param types: the resource types that are wanted; by default all
    """
    pairs = list(runs)
    wanted = {
        "pipelines": [pipeline for pipeline, _ in pairs],
        "runs": [run_id for _, run_id in pairs],
        "types": list(types) if types is not None else None,
        "target": read_profile(project).target,
    }
    settings = _settings(project)
    try:
        with closing(psycopg2.connect(**settings)) as link, link.cursor() as cursor:
            cursor.execute(_QUERY, wanted)
            return [NodeRun(*row) for row in cursor.fetchall()]
    except (
        psycopg2.errors.UndefinedTable,
        psycopg2.errors.InvalidSchemaName,
        psycopg2.errors.UndefinedColumn,
    ):
        # The next build makes it, or brings it up to date.
        return []
    except psycopg2.errors.InsufficientPrivilege:
        raise LedgerError(f"dbt's role may not read the run ledger, {TABLE}.") from None
    except psycopg2.errors.QueryCanceled:
        raise LedgerError("The warehouse takes too long to answer.") from None
    except psycopg2.Error:
        # libpq's text names addresses and users, which are nothing for a page.
        raise LedgerError(
            "The warehouse does not answer, so there are no results of nodes and tests."
        ) from None


def _settings(project: Project) -> dict[str, Any]:
    """Arguments of psycopg2.connect."""
    output = read_output(project)
    if reason := none_on(str(output.get("type"))):
        raise LedgerError(reason)
    settings: dict[str, Any] = {
        name: output[key]
        for name, keys in _SETTINGS.items()
        for key in keys
        if output.get(key) not in (None, "")
    }
    options = f"{_OPTIONS} -c role={output['role']}" if output.get("role") else _OPTIONS
    return settings | {"connect_timeout": _CONNECT_SECONDS, "options": options}
