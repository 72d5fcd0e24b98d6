"""What has happened, in words: messages from the results of tasks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orrery.alert.message import FailedTest, Message, Samples, first_lines, run_link, task_link
from orrery.alert.scope import Resource, Scope
from orrery.config.resources import TEST_TYPES, type_of
from orrery.config.stages import BUILD, INGEST, SOURCE_FRESHNESS
from orrery.execute.results import severity

# Rows of a failed test, by the test.
Sampler = Callable[[Resource], Samples | None]

_AGE = re.compile(r"loaded (\d+) s ago")
_UNITS = ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True)
class Failed:
    """A failed task, or instance of a mapped one.

    `result` is its XCom, in the shape of orrery.execute.results.summary, and `error` why it failed, where
    that does not say it.
    """

    run_id: str
    task_id: str
    map_index: int
    result: Mapping[str, Any] | None
    error: str


def failure(scope: Scope, task: Failed, sampler: Sampler = lambda test: None) -> Message:
    """The message of one failed task."""
    pipeline, run_id, result = scope.dag.dag_id, task.run_id, task.result or {}
    failed = [node for node in result.get("nodes", ()) if severity(node["status"]) > severity("warn")]
    tests = [_test(scope, node, sampler) for node in failed if type_of(node["unique_id"]) in TEST_TYPES]
    # A test that could run says nothing but the number of its rows.
    counted = bool(tests) and all(node["status"] == "fail" for node in failed)
    stale = _stale(scope, task.task_id, failed)
    impact = scope.impact(task.task_id)
    what = _of_tests(tests, task.task_id) or _what(scope, task.task_id, task.map_index)
    return Message(
        event="failure",
        pipeline=pipeline,
        run_id=run_id,
        title=f"{pipeline}: {what} {'is stale' if stale else 'failed'}",
        facts=_facts(scope, run_id, task.task_id) | stale,
        error=None if counted or stale else first_lines(result.get("message") or task.error) or None,
        tests=tests,
        held_back=impact.held_back,
        exposures=impact.exposures,
        links={
            "Task log": task_link(pipeline, run_id, task.task_id, task.map_index),
            "Run": run_link(pipeline, run_id),
        },
        command=f"./orrery retry {pipeline} --failed",
    )


def more_failures(scope: Scope, run_id: str, tasks: Sequence[str]) -> Message:
    """The message of failed tasks that get none of their own."""
    pipeline = scope.dag.dag_id
    count = f"{len(tasks)} more task{' has' if len(tasks) == 1 else 's have'} failed"
    return _of_run(
        scope, run_id, "failure", count, items=list(tasks), command=f"./orrery retry {pipeline} --failed"
    )


def warnings(scope: Scope, run_id: str, messages: Mapping[str, str]) -> Message:
    """The digest of warnings; `messages` are those of tasks, of one line or more each."""
    items = []
    for task_id, text in messages.items():
        kind, _, name = task_id.partition(".")
        lines = [line for line in text.splitlines() if line.strip()]
        if kind in (INGEST, SOURCE_FRESHNESS):
            lines = [f"{_what(scope, task_id)}: {_readable(line)}" for line in lines[:1]]
        items += lines or [name]
    return _of_run(
        scope, run_id, "warning", f"{len(items)} warning{'' if len(items) == 1 else 's'}", items=items
    )


def recovery(scope: Scope, run_id: str, failed_run: str) -> Message:
    """The message that a pipeline succeeds again."""
    what = "has recovered"
    facts = {"Failed run": failed_run} if failed_run != run_id else {}
    return _of_run(scope, run_id, "recovery", what, facts=facts)


def resolved(scope: Scope, run_id: str, title: str, first: str | None) -> Message:
    """What takes the place of the message of a failure that is over."""
    return Message(
        event="recovery",
        pipeline=scope.dag.dag_id,
        run_id=run_id,
        title=f"Resolved: {title}",
        error=first,
        links={"Run": run_link(scope.dag.dag_id, run_id)},
        done=True,
    )


def success(scope: Scope, run_id: str) -> Message:
    """The message that a run has succeeded."""
    return _of_run(scope, run_id, "success", "has succeeded")


def again(scope: Scope, run_id: str, title: str, error: str | None) -> Message:
    """The reply that something that failed has failed once more in the same run."""
    return Message(
        event="failure",
        pipeline=scope.dag.dag_id,
        run_id=run_id,
        title=f"Failed again: {title}",
        error=error,
        links={"Run": run_link(scope.dag.dag_id, run_id)},
    )


def late(scope: Scope, run_id: str, sla: str, state: str) -> Message:
    """The message that a run has not ended in time; `sla` is when it had to."""
    return _of_run(scope, run_id, "late", "is late", facts={"Has to end": sla, "State": state})


def late_ended(scope: Scope, run_id: str, state: str, *, done: bool) -> Message:
    """That a late run has ended: the reply, or what takes the place (`done`) of the message."""
    return replace(_of_run(scope, run_id, "late", f"was late, and has ended: {state}"), done=done)


def duration(seconds: float) -> str:
    """A span of time in its largest units, such as `2 hours 5 minutes`."""
    left, parts = int(seconds), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
    return " ".join(parts[:2]) or "0 seconds"


def _of_run(scope: Scope, run_id: str, event: Any, what: str, **more: Any) -> Message:
    pipeline = scope.dag.dag_id
    owner = scope.owner_of(None)
    facts = {"Run": run_id, **({"Owner": owner} if owner else {}), **more.pop("facts", {})}
    return Message(
        event=event,
        pipeline=pipeline,
        run_id=run_id,
        title=f"{pipeline}: {what}" if event in ("failure", "warning") else f"{pipeline} {what}",
        facts=facts,
        links={"Run": run_link(pipeline, run_id)},
        **more,
    )


def _of_tests(tests: Sequence[FailedTest], task_id: str) -> str:
    if len(tests) > 1:
        return f"{len(tests)} tests of {task_id.partition('.')[2]}"
    return f"test {tests[0].name}" if tests else ""


def _what(scope: Scope, task_id: str, map_index: int = -1) -> str:
    """What a task is to a dbt developer."""
    stage, _, name = task_id.partition(".")
    nodes = scope.nodes_of(task_id)
    if task_id == BUILD:
        return "dbt build"
    if stage == INGEST:
        return f"ingestion of {name}" + (f" (part {map_index})" if map_index >= 0 else "")
    kind = nodes[0]["resource_type"] if nodes else "task"
    if kind == "source":
        return f"source {nodes[0]['source_name']}.{nodes[0]['name']}"
    return f"tests of {name}" if kind in TEST_TYPES else f"{kind} {nodes[0]['name'] if nodes else name}"


def _facts(scope: Scope, run_id: str, task_id: str) -> dict[str, str]:
    facts = {"Run": run_id}
    nodes = scope.nodes_of(task_id)
    if nodes:
        facts["File"] = f"dbt/{nodes[0]['original_file_path']}"
    if owner := scope.owner_of(task_id):
        facts["Owner"] = owner
    return facts


def _test(scope: Scope, node: Mapping[str, Any], sampler: Sampler) -> FailedTest:
    uid = node["unique_id"]
    test = scope.resources.get(uid)
    if test is None:
        return FailedTest(uid.split(".")[2], failures=node["failures"])
    # Only a test that ran has rows.
    samples = sampler(test) if node["status"] == "fail" and test["resource_type"] == "test" else None
    return FailedTest(test["name"], test.get("column_name"), node["failures"], samples)


def _stale(scope: Scope, task_id: str, failed: list[dict[str, Any]]) -> dict[str, str]:
    """The age of a source that is too old, and its limit; nothing for anything else."""
    # dbt's word for too old is `error`; a source that could not be checked is a `runtime error`.
    if not task_id.startswith(f"{SOURCE_FRESHNESS}.") or not failed or failed[0]["status"] != "error":
        return {}
    facts = {}
    if age := _AGE.search(failed[0]["message"] or ""):
        facts["Loaded"] = f"{duration(int(age[1]))} ago"
    limit = (scope.resources.get(failed[0]["unique_id"], {}).get("freshness") or {}).get("error_after") or {}
    if limit.get("count") is not None:
        facts["Limit"] = f"{limit['count']} {limit['period']}{'' if limit['count'] == 1 else 's'}"
    return facts


def _readable(text: str) -> str:
    age = _AGE.search(text)
    return f"loaded {duration(int(age[1]))} ago" if age else text
