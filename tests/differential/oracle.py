"""What is right: what plain dbt does with the same project and choices.

Where Orrery says by design more than `dbt build` does, the design is put into dbt's words here, and nowhere
else:

* A seed that makes a source's table comes before what reads the source: plain dbt is told so by `--
  depends_on` comments (in the files of its copy of the project, not for the resolution of selections).
* A pipeline checks how fresh its sources are. `dbt build` leaves out what descends from a source that is
  too old, unless `stale: warn`; `dbt source freshness` gives the words.
* `skip_stages` leaves out the nodes of the stages, and nothing else: the selection of dbt is written out as
  a list of names without these.
* `tests: off` is `--exclude-resource-type`; `tests: end` is a command without tests, and one with the tests
  that do not descend from a failure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from differential.choices import Case, Choices
from differential.projects import Project
from differential.servers import Server

_FAILED = ("error", "skipped", "partial success")


@dataclass
class Outcome:
    """What dbt did in one run: the final status and message of each node by unique id, and whether it
    succeeded.

    :param stale: what descends from a source that is too old
    :param commands: how many commands of dbt's there were
    :param refused: why nothing was run at all
    :param raised: what ended a command before its time
    :param broken: what ended dbt before it came to a node
    :param disabled: the names of nodes that dbt does not know in this run
    :param journal: the entries of differential.recorder
    """

    statuses: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str | None] = field(default_factory=dict)
    success: bool = True
    stale: set[str] = field(default_factory=set)
    selected: set[str] = field(default_factory=set)
    commands: int = 0
    refused: str | None = None
    raised: str | None = None
    broken: str | None = None
    disabled: set[str] = field(default_factory=set)
    journal: list[dict[str, Any]] = field(default_factory=list)


class Oracle:
    """Plain dbt on a copy of the project.

    :param root: a copy whose selections are Orrery's
    :param ordered: a copy with the order that Orrery adds; the same where it adds none
    """

    def __init__(self, dbt: Server, case: Case, root: Path, ordered: Path) -> None:
        self._dbt, self._case, self._root, self._ordered = dbt, case, root, ordered
        self._journal = root.with_suffix(".jsonl")

    def run(self, choices: Choices) -> Outcome:
        """One run."""
        outcome = Outcome()
        outcome.disabled = {node.name for node in self._case.project.nodes if node.gated and choices.less}
        if self._is_plain(choices):
            self._command(["build", *_refresh(choices)], choices, outcome)
            return outcome
        listed = self._list(choices)
        if isinstance(listed, str):
            outcome.refused = listed
            outcome.success = False
            return outcome
        nodes = {uid: name for uid, name in listed.items() if not self._left_out(uid, choices)}
        outcome.selected = set(nodes)
        sources = {uid for uid in nodes if uid.startswith("source.")} & self._checked_sources()
        outcome.stale = self._stale(choices, sources, nodes)
        checked = listed.keys() & self._checked_sources()
        # Whole stages may be left out until nothing is left: that is what somebody has asked for.
        if not checked and all(uid.startswith("source.") for uid in listed):
            outcome.refused = "nothing is selected"
            outcome.success = False
            return outcome
        self._build(choices, {uid: name for uid, name in nodes.items() if uid not in outcome.stale}, outcome)
        if sources:
            names = [f"source:diff.app.{uid.split('.')[-1]}" for uid in sorted(sources)]
            self._command(["source", "freshness", "--select", *names], choices, outcome)
        return outcome

    def _is_plain(self, choices: Choices) -> bool:
        """Whether `dbt build` without a selection is what is right."""
        chosen = choices.select or choices.exclude or choices.skip_stages
        return not chosen and self._case.pipeline.tests == "gate" and not self._checked_sources()

    def _build(self, choices: Choices, nodes: dict[str, str], outcome: Outcome) -> None:
        tests = {uid for uid in nodes if _is_test(uid)}
        built = {uid for uid in nodes if not uid.startswith("source.")}
        match self._case.pipeline.tests:
            case "gate":
                steps = [built]
            case "off":
                steps = [built - tests]
            case "end":
                # Tests of sources stand before what reads them all the same.
                last = {uid for uid in tests if stage_of(uid, self._case.project) != "source_tests"}
                steps = [built - last, last]
        for number, step in enumerate(steps):
            if number == 1:
                step = {uid for uid in step if not self._after_failure(uid, choices, outcome)}  # noqa: PLW2901
            if not step:
                continue
            select = ["--select", *(nodes[uid] for uid in sorted(step)), "--indirect-selection", "empty"]
            # In a `dbt build` of tests alone, some would wait for others, as what they test would.
            command = ["test", *select] if step <= tests else ["build", *select, *_refresh(choices)]
            self._command(command, choices, outcome)

    def _command(self, command: list[str], choices: Choices, outcome: Outcome) -> None:
        self._journal.write_text("", encoding="utf-8")
        outcome.commands += 1
        variables = ["--vars", json.dumps(choices.variables)] if choices.variables else []
        request = {
            "root": str(self._ordered),
            "journal": str(self._journal),
            "commands": [[*command, *variables, "--threads", str(choices.threads)]],
        }
        (done,) = self._dbt.ask(request)["done"]
        entries = [json.loads(line) for line in self._journal.read_text(encoding="utf-8").splitlines()]
        outcome.journal += entries
        for entry in entries:
            if entry["event"] == "end":
                # When dbt is ended before its time there are no results.
                outcome.statuses[entry["uid"]] = entry["status"]
            if entry["event"] == "result":
                outcome.statuses[entry["uid"]] = entry["status"]
                outcome.messages[entry["uid"]] = entry["message"]
        # What a stale source means is the pipeline's to say.
        if command[0] != "source" and not done["success"]:
            outcome.success = False
            outcome.raised = done["exception"]
            if not any(entry["event"] == "start" for entry in entries):
                outcome.broken = done["exception"]

    def _list(self, choices: Choices) -> dict[str, str] | str:
        """The selected nodes with their names for dbt's `--select`, or why dbt refuses."""
        variables = ["--vars", json.dumps(choices.variables)] if choices.variables else []
        command = ["ls", "--output", "json", "--output-keys", "unique_id name resource_type fqn", *variables]
        for option, tokens in (("--select", choices.select), ("--exclude", choices.exclude)):
            command += [option, *tokens] if tokens else []
        request = {"root": str(self._root), "journal": str(self._journal), "commands": [command]}
        (done,) = self._dbt.ask(request)["done"]
        if not done["success"]:
            return str(done["exception"])
        found = [json.loads(line) for line in done["listed"] or ()]
        return {node["unique_id"]: "fqn:" + ".".join(node["fqn"]) for node in found if "fqn" in node}

    def _left_out(self, uid: str, choices: Choices) -> bool:
        return stage_of(uid, self._case.project) in choices.skip_stages

    def _checked_sources(self) -> set[str]:
        return {f"source.diff.app.{source.name}" for source in self._case.project.sources if source.age}

    def _stale(self, choices: Choices, checked: set[str], nodes: Iterable[str]) -> set[str]:
        """What a source that is too old holds back."""
        project = self._case.project
        if self._case.pipeline.stale == "warn":
            return set()
        old = {s.ref for s in project.sources if s.age == "stale" and f"source.diff.{s.ref}" in checked}
        barred = project.descendants(old, swap=choices.swap) | old
        return {uid for uid in nodes if not uid.startswith("source.") and reads(uid, project) & barred}

    def _after_failure(self, test: str, choices: Choices, outcome: Outcome) -> bool:
        """Whether a test descends from what failed."""
        project = self._case.project
        failed = {name_of(uid) for uid, status in outcome.statuses.items() if status in _FAILED}
        return bool(reads(test, project) & (failed | project.descendants(failed, swap=choices.swap)))


def _refresh(choices: Choices) -> list[str]:
    return ["--full-refresh"] if choices.full_refresh else []


def _is_test(uid: str) -> bool:
    return uid.startswith(("test.", "unit_test."))


def name_of(uid: str) -> str:
    """The name by which a project knows what a unique id stands for."""
    kind, _, *rest = uid.split(".")
    match kind:
        case "source":
            return ".".join(rest)
        case "model" if len(rest) > 1:
            return "_".join(rest)
        case "unit_test":
            return rest[1]
        case _:
            return rest[0]


def reads(uid: str, project: Project) -> set[str]:
    """What a node is, or what a test reads: names of nodes and sources."""
    name = name_of(uid)
    if not _is_test(uid):
        return {name}
    for owner, check in project.checked():
        if check.name == name:
            return {owner, *check.also}
    return set()


def stage_of(uid: str, project: Project) -> str:
    """The stage in which Orrery's documentation places a node."""
    if _is_test(uid):
        read = reads(uid, project)
        return "source_tests" if read and all(name.startswith("app.") for name in read) else "tests"
    kind = uid.split(".", maxsplit=1)[0]
    if kind == "source":
        return "source_freshness"
    if kind in ("seed", "snapshot", "function"):
        return kind
    node = project.by_name.get(name_of(uid))
    return node.folder if node is not None else "core"
