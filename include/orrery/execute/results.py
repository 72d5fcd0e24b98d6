"""What dbt says about the nodes that it ran."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from orrery.config.resources import NODE_TYPES, SOURCE, TEST_TYPES, type_of
from orrery.manifest.known_secrets import conceal

# XCom key of a task's NodeResults.
RESULT_KEY = "dbt"
# XCom key of a build: the warnings of its nodes, by their tasks.
WARNINGS_KEY = "warnings"

# Why a task is skipped whose nodes dbt does not know.
UNKNOWN = "dbt has no such node in this run: it was removed, or it is disabled with these vars."

# What is kept of the SQL of a failed node, in characters.
MOST_SQL = 20_000

# From good to bad; a task is as bad as its worst node. dbt 2 says "reused" of what it did not have to run.
_SEVERITY = (
    *("success", "pass", "no-op", "reused", "skipped"),
    *("warn", "fail", "partial success", "runtime error", "error"),
)


@dataclass(frozen=True)
class NodeResult:
    """The outcome of one dbt node.

    `status` is dbt's own word; `seconds` is dbt's execution time; `rows_affected` is what the
    adapter reports (None for tests, and where it does not know, as for views); `failures` is the
    number of rows that failed a test; `adapter_response` is what the warehouse told (BigQuery: bytes
    processed, job id; of a source `max_loaded_at`, ISO 8601).
    """

    unique_id: str
    status: str
    seconds: float
    rows_affected: int | None
    failures: int | None
    message: str | None
    adapter_response: Mapping[str, Any] = field(default_factory=dict)


def read_results(target: Path) -> list[NodeResult]:
    """The results in dbt's target folder: run_results.json, or sources.json after a freshness check."""
    document, result_of = read_document(target)
    return [result_of(result) for result in document["results"]]


def read_document(target: Path) -> tuple[dict[str, Any], Callable[[Mapping[str, Any]], NodeResult]]:
    """What `read_results` reads, and what makes a NodeResult of each of its `results`."""
    for name, reader in (("sources.json", _freshness_result), ("run_results.json", run_result)):
        path = target / name
        if path.is_file():
            return json.loads(path.read_bytes()), reader
    return {"results": []}, run_result


def summary(results: Iterable[NodeResult]) -> dict[str, Any]:
    """The results of one task as an XCom value: totals, and one entry per node."""
    nodes = list(results)
    known = [node.rows_affected for node in nodes if node.rows_affected is not None]
    worst = max((node.status for node in nodes), key=severity, default="success")
    messages = [_told(node) for node in nodes if node.message and severity(node.status) >= severity("warn")]
    return {
        "status": worst,
        "seconds": round(sum(node.seconds for node in nodes), 3),
        "rows_affected": sum(known) if known else None,
        "message": "\n".join(messages) or None,
        "nodes": [asdict(node) for node in nodes],
    }


class _Node(BaseModel, extra="allow"):
    """What readers of a summary need to know of a node."""

    unique_id: Annotated[str, Field(pattern=r"^[^.]+\.[^.]+\.[^.]+")]
    status: str
    failures: int | None = None
    message: str | None = None


class _Summary(BaseModel):
    """The shape of `summary`, as far as its readers need it."""

    status: str
    seconds: float | None = None
    rows_affected: int | None = None
    message: str | None = None
    nodes: tuple[_Node, ...] = ()


def read_summary(value: Any) -> dict[str, Any] | None:
    """The XCom RESULT_KEY of a task, in the shape of `summary`; None for anything else.

    Whoever may run a task or use Airflow's API can write an XCom of that name.
    """
    try:
        return _Summary.model_validate(value).model_dump()
    except ValidationError:
        return None


def read_warnings(value: Any) -> dict[str, str]:
    """The XCom WARNINGS_KEY of a build; empty for anything else."""
    texts = value.items() if isinstance(value, Mapping) else ()
    return {key: text for key, text in texts if isinstance(key, str) and isinstance(text, str)}


def outcome(message: str, *, status: str = "success", rows: int | None = None) -> dict[str, Any]:
    """The XCom value of a task in which dbt had no part, in the shape of `summary`."""
    return {"status": status, "seconds": None, "rows_affected": rows, "message": message, "nodes": []}


def refusal(error: Exception) -> dict[str, Any]:
    """The XCom value of a task that could not begin, in the shape of `summary`."""
    return outcome(str(error), status="error")


def _told(node: NodeResult) -> str:
    """The message of a node; that of a test does not name the test, so its name comes first."""
    kind, *rest = node.unique_id.split(".")
    if kind not in TEST_TYPES:
        return str(node.message)
    # Of a unit test the name comes after the model's, of a data test before a hash.
    name = rest[-1] if kind == "unit_test" else rest[1]
    return f"{name}: {node.message}"


def severity(status: str) -> int:
    """How bad a status of dbt is: the higher, the worse; an unknown one is the worst."""
    return _SEVERITY.index(status) if status in _SEVERITY else len(_SEVERITY)


def failing(status: str) -> bool:
    """Whether a status of dbt makes its command fail."""
    return severity(status) > severity("warn")


def is_stale(results: Iterable[NodeResult]) -> bool:
    """Whether a source is older than its `error_after`; an unreadable one has a `runtime error`."""
    return any(type_of(node.unique_id) == SOURCE and node.status == "error" for node in results)


def run_result(result: Mapping[str, Any]) -> NodeResult:
    """One entry of `results` in dbt's run_results.json."""
    builds = type_of(result["unique_id"]) in NODE_TYPES
    response = result.get("adapter_response") or {}
    rows = response.get("rows_affected") if builds else None
    return NodeResult(
        unique_id=result["unique_id"],
        status=result["status"],
        seconds=result["execution_time"],
        # PostgreSQL reports -1 for statements without rows, such as create view.
        rows_affected=int(rows) if isinstance(rows, int | float) and rows >= 0 else None,
        failures=result.get("failures"),
        message=conceal(result.get("message") or "") or None,
        adapter_response=response,
    )


def result_of(result: Any) -> NodeResult:
    """One of the results that dbt returns in this process, a `RunResult`."""
    return run_result(
        {
            "unique_id": result.node.unique_id,
            "status": str(result.status),
            "execution_time": round(result.execution_time, 6),
            "adapter_response": result.adapter_response,
            "failures": result.failures if type_of(result.node.unique_id) in TEST_TYPES else None,
            "message": result.message,
        }
    )


def _freshness_result(result: Mapping[str, Any]) -> NodeResult:
    """One entry of `results` in dbt's sources.json."""
    age = result.get("max_loaded_at_time_ago_in_s")
    return NodeResult(
        unique_id=result["unique_id"],
        status=result["status"],
        seconds=result.get("execution_time", 0.0),
        rows_affected=None,
        failures=None,
        message=conceal(result.get("error") or "")
        or (f"loaded {age:.0f} s ago" if age is not None else None),
        adapter_response=(result.get("adapter_response") or {})
        | {key: result[key] for key in ("max_loaded_at",) if result.get(key)},
    )
