"""Where what Airflow shows differs from what dbt did."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from differential.choices import Case
from differential.expected import BAD, Expectation
from differential.files import MADE_TO_FAIL
from differential.oracle import Outcome

# What dbt says of a model that it skips because an ephemeral one does not compile.
_EPHEMERAL = "caused by compilation error in referenced ephemeral model"


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it should be; `kind` is what it is about, in one word."""

    kind: str
    text: str

    def __str__(self) -> str:
        return f"[{self.kind}] {self.text}"


@dataclass(frozen=True)
class Seen:
    """What is left of a run: Airflow's tasks, dbt's journal, and the warehouse.

    :param plan: what each task stands for
    :param shown: what Airflow shows of each task
    :param loose: tasks that wait for something else in this run than Airflow's graph says
    :param apart: each task is a command of its own, and several are at work at the same time
    """

    plan: Mapping[str, Any]
    ended: bool
    state: str
    shown: Mapping[str, Any]
    journal: list[dict[str, Any]]
    loose: frozenset[str] = frozenset()
    apart: bool = False


def compare(case: Case, right: Outcome, seen: Seen) -> list[Difference]:
    """All differences of a run on which no hand was laid."""
    if not seen.ended:
        states = Counter(str(task["state"]) for task in seen.shown.values())
        return [Difference("end", f"the run does not end: {dict(states)}")]
    found = [*_run_state(right, seen)]
    if right.refused:
        return found
    expected = Expectation(case, right, seen.plan, seen.loose)
    for task_id, task in seen.shown.items():
        if task_id not in seen.plan:
            continue
        states = expected.states(task_id)
        if task["state"] not in states:
            words = f"not {' or '.join(states)}: {_words(task_id, right, seen)}"
            found.append(Difference("state", f"{task_id} is {task['state']}, {words}"))
        found += _results(task_id, right, seen)
    found += _hidden(right, seen)
    found += _repeated(seen.journal)
    found += _early(seen)
    found += _tried(seen)
    return found


def _run_state(right: Outcome, seen: Seen) -> Iterable[Difference]:
    states = {task["state"] for task in seen.shown.values()}
    expected = right.success and not states & {"failed", "upstream_failed"}
    if seen.state != ("success" if expected else "failed"):
        why = "dbt fails" if not right.success else f"tasks are {', '.join(sorted(map(str, states)))}"
        yield Difference(
            "run", f"the run is a {seen.state}, where {why}: {_hooks(right)}{right.refused or ''}"
        )


def _hooks(right: Outcome) -> str:
    return "".join(
        f"{uid} {right.messages.get(uid)}; "
        for uid, status in right.statuses.items()
        if uid.startswith("operation.") and status in BAD
    )


def _words(task_id: str, right: Outcome, seen: Seen) -> str:
    return "; ".join(
        f"dbt says {right.statuses.get(uid)} of {uid}: {right.messages.get(uid)}"
        for uid in seen.plan[task_id]["nodes"]
    )


def _results(task_id: str, right: Outcome, seen: Seen) -> Iterable[Difference]:
    """The statuses and messages that the task's XCom has of its nodes."""
    task = seen.shown[task_id]
    if task["state"] not in ("success", "failed") or seen.plan[task_id]["kind"] in (
        "marker",
        "source freshness",
    ):
        return
    result = task["result"]
    told = {node["unique_id"]: node for node in (result or {}).get("nodes", ())}
    for uid in seen.plan[task_id]["nodes"]:
        status, node = right.statuses.get(uid), told.get(uid)
        if status is None:
            continue
        if node is None:
            yield Difference("result", f"{task_id} tells nothing of {uid}")
        elif node["status"] == "error" and status == "skipped" and MADE_TO_FAIL in (node["message"] or ""):
            continue  # an ephemeral model's error: see Expectation
        elif node["status"] != status:
            yield Difference("result", f"{task_id} tells of {uid}: {node['status']}, dbt says {status}")
        elif uid in right.messages and not _says(node["message"], right.messages[uid]):
            yield Difference(
                "message", f"{task_id} tells of {uid}: {node['message']!r}, dbt says {right.messages[uid]!r}"
            )


def _says(ours: str | None, theirs: str | None) -> bool:
    """Whether a message is dbt's; of a failed microbatch model dbt has one word, and we name the batches."""
    if theirs == "ERROR" or (theirs or "").startswith("PARTIAL SUCCESS"):
        return "batch" in (ours or "")
    return plain(ours) == plain(theirs)


def _hidden(right: Outcome, seen: Seen) -> Iterable[Difference]:
    """What dbt ran and no task stands for."""
    shown = {uid for task in seen.plan.values() for uid in task["nodes"]}
    for uid, status in right.statuses.items():
        if uid not in shown and not uid.startswith("operation."):
            yield Difference("hidden", f"dbt says {status} of {uid}, which no task stands for")


def _repeated(journal: list[dict[str, Any]]) -> Iterable[Difference]:
    """What ran more than once in a run."""
    counts = Counter(
        entry["uid"] for entry in journal if entry["event"] == "result" and entry["status"] != "skipped"
    )
    for uid, count in counts.items():
        if count > 1 and not uid.startswith("operation."):
            yield Difference("repeat", f"{uid} ran {count} times")


def _early(seen: Seen) -> Iterable[Difference]:
    """What began before something that it waits for had ended."""
    for task_id, task in seen.shown.items():
        if task_id not in seen.plan or task["state"] not in ("success", "failed") or not task["start"]:
            continue
        if task_id in seen.loose:
            continue
        for other in seen.plan[task_id]["upstream"]:
            before = seen.shown[other]
            if seen.plan[other]["kind"] == "marker" or before["state"] != "success":
                continue
            # Airflow's times come from two clocks' readings of one machine.
            if before["end"] and before["end"] > task["start"] + 0.002:
                yield Difference("order", f"{task_id} began before {other} had ended")


def _tried(seen: Seen) -> Iterable[Difference]:
    """What Airflow had to try again, although nothing was killed and no task has retries of its own."""
    for task_id, task in seen.shown.items():
        if task["try"] > 1:
            yield Difference("try", f"{task_id} was tried {task['try']} times")


def plain(message: str | None) -> str | None:
    """A message without what no two runs have in common."""
    if message is None:
        return None
    message = re.sub(r"\b(ours|dbts)(?=\b|_)", "s", message)
    message = re.sub(r"compiled code at \S+", "compiled code", message)
    return re.sub(r"\s+", " ", message).strip()


Warehouse = tuple[Mapping[str, Any], list[tuple[str, str]]]


def compare_warehouse(right: Outcome, theirs: Warehouse, ours: Warehouse) -> list[Difference]:
    """The differences between the tables, and between what hooks saw, of plain dbt and of Orrery."""
    return [*compare_tables(theirs[0], ours[0]), *_hook_runs(right, theirs[1], ours[1])]


def compare_tables(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[Difference]:
    """The differences between the relations of plain dbt and of Orrery."""
    found = []
    for name in sorted(theirs.keys() | ours.keys()):
        if name not in ours:
            found.append(Difference("table", f"{name} is not there"))
        elif name not in theirs:
            found.append(Difference("table", f"{name} is there, which dbt does not make"))
        elif ours[name] != theirs[name]:
            found.append(Difference("table", f"{name} has {ours[name]}, dbt makes {theirs[name]}"))
    return found


def _results_seen(rows: list[tuple[str, str]], hook: str, right: Outcome) -> str:
    """The results that a hook saw; dbt skips what reads a broken ephemeral model, and here it fails."""
    blamed = any(_EPHEMERAL in (message or "") for message in right.messages.values())
    return dict(rows)[hook].replace("=error", "=skipped") if blamed else dict(rows)[hook]


def _hook_runs(
    right: Outcome, theirs: list[tuple[str, str]], ours: list[tuple[str, str]]
) -> Iterable[Difference]:
    # With several commands dbt runs them with each, and Orrery once.
    expected, found = (Counter(hook for hook, _ in rows) for rows in (theirs, ours))
    for hook in sorted(expected | found):
        if found[hook] != min(expected[hook], 1):
            yield Difference(
                "hook", f"the hook {hook} ran {found[hook]} times, with dbt {expected[hook]} times"
            )
        elif right.commands == 1 and _results_seen(ours, hook, right) != _results_seen(theirs, hook, right):
            yield Difference(
                "hook", f"the hook {hook} saw {dict(ours)[hook]!r}, with dbt {dict(theirs)[hook]!r}"
            )
