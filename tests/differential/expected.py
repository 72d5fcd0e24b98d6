"""Which states Airflow should show, after what plain dbt did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from differential.choices import Case
from differential.files import NAME
from differential.oracle import Outcome, reads
from differential.projects import Node

BAD = ("error", "fail", "runtime error", "partial success")
States = tuple[str, ...]

_BROKEN = {"failed", "upstream_failed"}
_HELD: States = ("upstream_failed",)
_LEFT: States = ("skipped",)
_NEITHER: States = ("skipped", "upstream_failed")


class Expectation:
    """The states that tasks should have.

    An ephemeral model that does not compile has no task. dbt names its error, and skips what reads it; here
    that fails with this error.

    :param plan: what each task stands for
    :param loose: tasks that wait for something else in this run than Airflow's graph says
    """

    def __init__(
        self, case: Case, right: Outcome, plan: Mapping[str, Any], loose: frozenset[str] = frozenset()
    ) -> None:
        self._case, self._right, self._plan, self._loose = case, right, plan, loose
        self._known: dict[str, States] = {}

    def states(self, task_id: str) -> States:
        """The states that a task may have."""
        if task_id not in self._known:
            self._known[task_id] = self._states(task_id)
        return self._known[task_id]

    def _states(self, task_id: str) -> States:
        task = self._plan[task_id]
        above = [set(self.states(other)) for other in task["upstream"] if not task["always"]]
        # Whether something may hold it back, and whether it surely does.
        surely = any(each <= _BROKEN for each in above)
        held = task_id in self._loose or any(each & _BROKEN for each in above)
        match task["kind"]:
            case "hook":
                return self._hooks(task_id)
            case "source freshness":
                return self._source(task, held=held)
            case "marker":
                # dbt gives no word about ephemeral models; a marker of theirs follows what they read.
                states: States = ("success", "skipped")
                return _HELD if surely else (*states, *_HELD) if held else states
        nodes = set(task["nodes"])
        if not nodes:
            return ("success", "skipped")
        lacking = all(self._lacks_its_table(uid) for uid in nodes)
        states = _HELD if lacking else self._node(nodes, held=held)
        # dbt tries what reads a source that cannot be read, and fails. And Airflow may hold back by its own
        # edges what fails, before it does so.
        excused = task_id in self._loose or self._unreadable(nodes)
        return (*states, *_HELD) if states == ("failed",) and excused else states

    def _unreadable(self, nodes: set[str]) -> bool:
        """Whether nodes descend from a source whose check has failed."""
        project, statuses = self._case.project, self._right.statuses
        failed = {s.ref for s in project.sources if statuses.get(f"source.{NAME}.{s.ref}") == "runtime error"}
        return any(reads(uid, project) & (failed | project.descendants(failed)) for uid in nodes)

    def _node(self, nodes: set[str], *, held: bool) -> States:
        right = self._right
        statuses = {right.statuses.get(uid) for uid in nodes}
        if nodes & right.stale:
            return _NEITHER if self._case.pipeline.stale == "skip" else _HELD
        if right.broken:
            # dbt says nothing of any node.
            left = (right.selected and not right.selected & nodes) or self._is_disabled(nodes)
            return _NEITHER if left else _HELD
        if statuses & set(BAD):
            return ("failed",)
        broken = ("failed",) if self._read_broken(nodes) else ()
        if "skipped" in statuses:
            return (*broken, *_HELD)
        if statuses == {None}:
            return (*broken, *(_NEITHER if held else _LEFT))
        return ("success",)

    def _read_broken(self, nodes: set[str]) -> bool:
        """Whether one of the nodes reads, itself or through others, a broken ephemeral model."""
        project = self._case.project
        left = [name for uid in nodes for name in reads(uid, project)]
        left += [above for name in left if name in project.by_name for above in _above(project.by_name[name])]
        read: set[str] = set()
        while left:
            node = project.by_name.get(left.pop())
            if node is None or node.kind != "ephemeral" or node.name in read:
                continue
            read.add(node.name)
            left += _above(node)
        return any(project.by_name[name].fault == "compile" for name in read)

    def _is_disabled(self, nodes: set[str]) -> bool:
        """Whether dbt knows none of a task's nodes in this run; a test goes with what it reads."""
        return all(reads(uid, self._case.project) & self._right.disabled for uid in nodes)

    def _lacks_its_table(self, uid: str) -> bool:
        """Whether a test reads a source whose maker has failed; dbt cannot be told so of generic tests."""
        project, statuses = self._case.project, self._right.statuses
        makers = {project.makers().get(name) for name in reads(uid, project)} - {None}
        return any(statuses.get(f"seed.{NAME}.{maker}") in (*BAD, "skipped") for maker in makers)

    def _hooks(self, task_id: str) -> States:
        """The states of a task of hooks; the one at the end also shows what no other last task shows."""
        nodes, right = self._plan[task_id]["nodes"], self._right
        when = task_id.removeprefix("hooks.on_run_")
        raises = right.raised and any(
            hook.when == when and hook.fault == "compile" for hook in self._case.project.hooks
        )
        statuses = {right.statuses.get(uid) for uid in nodes}
        if statuses & set(BAD) or (raises and bool(right.broken) == (when == "start")):
            return ("failed",)
        states: States = ("success",)
        if "skipped" in statuses:
            states = _NEITHER
        elif nodes and statuses == {None}:
            # Of hooks that ran before dbt was ended there is no result.
            states = (*states, *_LEFT) if right.raised else _LEFT
        return (*states, *_HELD) if when == "end" and not right.success else states

    def _source(self, task: Mapping[str, Any], *, held: bool) -> States:
        status = self._right.statuses.get(task["nodes"][0])
        if status is None:
            return _NEITHER if held else _LEFT
        if held:
            return _HELD
        if status == "runtime error":
            return ("failed",)
        if status == "error":
            return {"fail": ("failed",), "skip": _LEFT, "warn": ("success",)}[self._case.pipeline.stale]
        return ("success",)


def _above(node: Node) -> tuple[str, ...]:
    return (*node.parents, *((node.swap,) if node.swap else ()))
