"""Keeps what the nodes of a build did, for later: in the warehouse, once per build."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from orrery.execute.collector import NodeRecord, TaskRecord
from orrery.execute.node_runs import TABLE, NodeRun, record
from orrery.execute.results import NodeResult
from orrery.manifest.dbt import Dbt

log = logging.getLogger(__name__)

_ADAPTER = "postgres"


class Ledger:
    """The results of a build, as rows of `orrery.node_runs`.

    :param dbt: its adapter's connection writes the rows, so that no other credentials are needed
    """

    def __init__(self, pipeline: str, run_id: str, dbt: Dbt) -> None:
        self._pipeline, self._run_id, self._dbt = pipeline, run_id, dbt
        self._rows: dict[str, NodeRun] = {}

    def take(self, ended: TaskRecord, try_number: int) -> None:
        """Remember the nodes of a task with which dbt is done; a later result replaces an earlier one."""
        for node in ended.nodes.values():
            if node.result is not None:
                self._rows[node.result.unique_id] = self._row(node, node.result, try_number)

    def write(self) -> None:
        """Write what there is, in one statement. Never raises: a run does not fail for its history."""
        rows = list(self._rows.values())
        self._rows.clear()
        if not rows:
            return
        try:
            adapter = self._dbt.adapter_type
            if adapter != _ADAPTER:
                log.info("There is no run ledger on %s: it needs PostgreSQL.", adapter)
                return
            self._dbt.execute(*record(rows))
        except Exception as error:
            log.warning(
                "The results of this build are not kept in %s, so ./orrery report lacks them: %s\n"
                "  dbt's role must be allowed to create the schema, or to select from, insert into and "
                "update the table.",
                TABLE,
                " ".join(str(error).split()),
            )

    def _row(self, node: NodeRecord, result: NodeResult, try_number: int) -> NodeRun:
        response = result.adapter_response
        return NodeRun(
            pipeline=self._pipeline,
            run_id=self._run_id,
            unique_id=result.unique_id,
            resource_type=result.unique_id.split(".", 1)[0],
            status=result.status,
            seconds=result.seconds,
            rows_affected=result.rows_affected,
            failures=result.failures,
            bytes_processed=_whole(response, "bytes_processed"),
            bytes_billed=_whole(response, "bytes_billed"),
            started_at=_moment(node.start),
            ended_at=_moment(node.end),
            invocation_id=node.invocation_id,
            try_number=try_number,
        )


def _whole(response: Mapping[str, Any], key: str) -> int | None:
    value = response.get(key)
    return int(value) if isinstance(value, int | float) else None


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
