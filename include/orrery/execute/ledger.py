"""Keeps what the nodes of a run did, for later: in the warehouse, once per process of dbt."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from orrery.config.resources import type_of
from orrery.execute.collector import NodeRecord
from orrery.execute.node_runs import TABLE, NodeRun, moment, none_on, record
from orrery.execute.results import NodeResult
from orrery.manifest.dbt import Dbt

log = logging.getLogger(__name__)

# What is not written yet, in a run's folder; one row per line.
_UNWRITTEN = "node_runs.jsonl"


class Ledger:
    """The results of nodes, as rows of `orrery.node_runs`.

    :param dbt: its adapter's connection writes the rows, so that no other credentials are needed
    :param folder: the folder of the run, if what a killed process has taken is to be written by the next one
    :param choices: what whoever started the run has chosen (RunOptions.choices)
    """

    def __init__(
        self, pipeline: str, run_id: str, dbt: Dbt, folder: Path | None = None, choices: str = ""
    ) -> None:
        self._pipeline, self._run_id, self._dbt, self._choices = pipeline, run_id, dbt, choices
        self._target = dbt.target
        self._unwritten = folder / _UNWRITTEN if folder else None
        self._rows: dict[str, NodeRun] = {}
        if self._unwritten and self._unwritten.is_file():
            for line in self._unwritten.read_bytes().splitlines():
                with suppress(ValueError, TypeError):
                    row = NodeRun.of_json(line)
                    self._rows[row.unique_id] = row

    def take(self, nodes: Iterable[NodeRecord], try_number: int) -> None:
        """Remember nodes with which dbt is done; a later result of one replaces an earlier one."""
        rows = [self._row(node, node.result, try_number) for node in nodes if node.result is not None]
        self._rows |= {row.unique_id: row for row in rows}
        if self._unwritten:
            # A full disk must not fail the node.
            with suppress(OSError), self._unwritten.open("a", encoding="utf-8") as file:
                # A killed process may have left half a line.
                file.writelines(f"\n{row.as_json()}" for row in rows)

    def write(self) -> None:
        """Write what there is, in one statement. Never raises: a run does not fail for its history."""
        rows = list(self._rows.values())
        self._rows.clear()
        if not rows:
            return
        try:
            if reason := none_on(self._dbt.adapter_type):
                log.info(reason)
            else:
                self._dbt.execute(*record(rows))
            if self._unwritten:
                self._unwritten.unlink(missing_ok=True)
        except Exception as error:
            log.warning(
                "What dbt did here is not kept in %s, so ./orrery report lacks it: %s\n"
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
            resource_type=type_of(result.unique_id),
            status=result.status,
            seconds=result.seconds,
            rows_affected=result.rows_affected,
            failures=result.failures,
            bytes_processed=_whole(response, "bytes_processed"),
            bytes_billed=_whole(response, "bytes_billed"),
            started_at=moment(node.start),
            ended_at=moment(node.end),
            invocation_id=node.invocation_id,
            try_number=try_number,
            target=self._target,
            max_loaded_at=moment(response.get("max_loaded_at")),
            choices=self._choices,
        )


def _whole(response: Mapping[str, Any], key: str) -> int | None:
    value = response.get(key)
    return int(value) if isinstance(value, int | float) else None
