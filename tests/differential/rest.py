"""Whether what is green rests on what is green, after any hands; read off dbt's journal and Airflow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from differential.compare import Difference, Seen
from differential.expected import BAD
from differential.hands import RUN
from orrery.config.stages import HOOKS_END, HOOKS_START

# What was published when a build was killed does not run again; news are published within this time.
_PUBLISHED = 1.5
_HELD = ("failed", "upstream_failed")
_ENDED = ("success", "failed", "upstream_failed", "skipped", "removed")


@dataclass(frozen=True)
class Execution:
    """dbt at work on a node, once. Without an end it was broken off."""

    begin: float
    end: float | None
    status: str

    @property
    def good(self) -> bool:
        """Whether the node was built, or the test passed."""
        return self.end is not None and self.status not in BAD


def executions(journal: list[dict[str, Any]], *, apart: bool) -> dict[str, list[Execution]]:
    """What dbt executed, by unique id, in the order of the beginnings.

    The batches of a microbatch model lie inside its own execution.

    :param apart: a command does not say that the one before it is over
    """
    found: dict[str, list[Execution]] = {}
    open_: dict[str, tuple[float, int]] = {}

    def break_off() -> None:
        for uid, (begin, _) in open_.items():
            found.setdefault(uid, []).append(Execution(begin, None, "broken off"))
        open_.clear()

    for entry in journal:
        match entry["event"]:
            case "command" if not apart:
                break_off()
            case "start":
                begin, depth = open_.get(entry["uid"], (entry["at"], 0))
                open_[entry["uid"]] = (begin, depth + 1)
            case "end" if entry["uid"] in open_:
                begin, depth = open_.pop(entry["uid"])
                if depth > 1:
                    open_[entry["uid"]] = (begin, depth - 1)
                elif entry["status"] != "skipped":
                    execution = Execution(begin, entry["at"], entry["status"])
                    found.setdefault(entry["uid"], []).append(execution)
    break_off()
    return found


@dataclass(frozen=True)
class Rest:
    """The questions about one run."""

    seen: Seen

    @cached_property
    def executed(self) -> dict[str, list[Execution]]:
        """What dbt executed."""
        return executions(self.seen.journal, apart=self.seen.apart)

    def differences(self) -> list[Difference]:
        """Everything that should not be."""
        if not self.seen.ended:
            states = {task_id: task["state"] for task_id, task in self.seen.shown.items()}
            return [Difference("end", f"the run does not end: {states}")]
        return [
            *self._order(),
            *self._old(),
            *self._states(),
            *self._repeated(),
        ]

    def _order(self) -> Iterator[Difference]:
        """Nodes that began before what they read had ended well."""
        for task_id, task in self.seen.plan.items():
            for uid in task["nodes"] if task_id not in self.seen.loose else ():
                for execution in self.executed.get(uid, ()):
                    for other, matters in self.above(task_id):
                        yield from self._before(uid, execution, other, matters)

    def _before(self, uid: str, execution: Execution, other: str, matters: bool) -> Iterator[Difference]:
        for parent in self.seen.plan[other]["nodes"]:
            runs = self.executed.get(parent, [])
            earlier = [run for run in runs if run.begin < execution.begin]
            if any(
                run.end is None or run.end > execution.begin
                for run in earlier[-1:]
                if run.status != "broken off"
            ):
                yield Difference("order", f"{uid} began while {parent} was at work")
            elif not earlier and runs:
                yield Difference("order", f"{uid} began before {parent}, which it waits for")
            elif (
                earlier
                and matters
                # dbt also begins with what it then skips.
                and execution.end is not None
                and not earlier[-1].good
                # With `stale: warn`, a source that is too old holds nothing back.
                and not (parent.startswith("source.") and self.seen.shown[other]["state"] == "success")
                and not self._marked(other, "success", execution.begin)
            ):
                yield Difference("order", f"{uid} ran although {parent} had ended as {earlier[-1].status}")

    def _old(self) -> Iterator[Difference]:
        """Green tasks whose inputs have been built, or have failed, after them."""
        for task_id in self.seen.plan:
            last = self.last(task_id)
            if (
                self.seen.shown[task_id]["state"] != "success"
                or last is None
                or task_id in self.seen.loose
                or self._marked(task_id, "success")
            ):
                continue
            for other, matters in self.above(task_id):
                before = self.last(other)
                # With `tests: end`, tests come after all nodes, of which they read few.
                excused = self._excused(other, task_id, last) or not (
                    matters or _name(task_id) == _name(other)
                )
                state = self.seen.shown[other]["state"]
                if before is not None and before.end is not None and before.end > last.begin and not excused:
                    why = f"on what {other} was before it was built again"
                    yield Difference("old", f"{task_id} is a success {why}")
                elif matters and state in _HELD and not self._unseen(other):
                    yield Difference(
                        "old", f"{task_id} is a success, and {other}, which it reads, is {state}"
                    )

    def _states(self) -> Iterator[Difference]:
        shown = self.seen.shown
        for task_id, task in shown.items():
            if task["state"] not in _ENDED:
                yield Difference("state", f"the run has ended, and {task_id} is {task['state']}")
            if task["try"] < 0:
                yield Difference("try", f"{task_id} has the try number {task['try']}")
            # What a build that is over has ended stays so until it is cleared, whatever the build does.
            over = (task.get("note") or "").startswith("The task 'build' ")
            if task_id in self.seen.plan and task["state"] == "upstream_failed" and not over:
                # All, as docs say: also where a person has marked what stands between as a success.
                above = {shown[other]["state"] for other in self._ancestors(task_id)}
                above |= {shown[other]["state"] for other in ("build", HOOKS_START) if other in shown}
                if not above & set(_HELD) and task_id not in {HOOKS_END, *self.seen.loose}:
                    yield Difference(
                        "state", f"{task_id} is upstream_failed, and nothing before it has failed"
                    )
        failed = sorted(task_id for task_id, task in shown.items() if task["state"] in _HELD)
        right = "failed" if failed else "success"
        if self.seen.state != right and not self._marked_at_last():
            yield Difference("run", f"the run is a {self.seen.state}; failed are {failed or 'none'}")

    def _repeated(self) -> Iterator[Difference]:
        """Nodes that ran again although they had been built, unasked for, as was what they read."""
        for task_id, task in self.seen.plan.items():
            runs = [self.executed.get(uid, []) for uid in task["nodes"]]
            if not runs or not all(runs):
                continue
            for number in range(1, max(map(len, runs))):
                first = [executed[number - 1] for executed in runs if len(executed) > number - 1]
                second = [executed[number] for executed in runs if len(executed) > number]
                ended = [run.end or 0 for run in first]
                if len(first) < len(runs) or not all(run.good for run in first):
                    continue
                since, until = min(run.begin for run in first), min(run.begin for run in second)
                if not self._asked(task_id, max(ended), since, until):
                    yield Difference("repeat", f"{task_id} had been built, and ran again")

    def _asked(self, task_id: str, ended: float, since: float, until: float) -> bool:
        # What was cleared while a round was at work may be built by it all the same, and does not count.
        rounds = [entry["at"] for entry in self.seen.journal if entry["event"] == "round"]
        since = max((at for at in rounds if at <= since), default=since)
        lineage = {task_id, *self._ancestors(task_id)}
        for entry in self.seen.journal:
            if not since <= entry["at"] <= until:
                continue
            if entry["event"] == "cleared" and not lineage.isdisjoint(entry["tasks"]):
                return True
            broken = entry["event"] == "killed" or (
                entry["event"] == "hand"
                and entry["act"] in ("failed", "success", "clear")
                and "build" in entry["tasks"]
            )
            if broken and entry["at"] < ended + _PUBLISHED:
                return True
        return False

    def above(self, task_id: str, matters: bool = True) -> Iterator[tuple[str, bool]]:
        """The tasks with nodes that a task waits for, and whether their failure matters to it."""
        matters = matters and not self.seen.plan[task_id].get("always", False)
        for other in self.seen.plan[task_id]["upstream"]:
            if self.seen.plan[other]["nodes"] and self.seen.plan[other]["kind"] != "marker":
                yield other, matters
            else:
                yield from self.above(other, matters)

    def _ancestors(self, task_id: str) -> Iterator[str]:
        for other, _ in self.above(task_id):
            yield other
            yield from self._ancestors(other)

    def last(self, task_id: str) -> Execution | None:
        """From the first beginning to the last end of the last time that a task's nodes were built."""
        lasts = [self.executed[uid][-1] for uid in self.seen.plan[task_id]["nodes"] if self.executed.get(uid)]
        lasts = [run for run in lasts if run.end is not None]
        if not lasts:
            return None
        return Execution(min(run.begin for run in lasts), max(run.end or 0 for run in lasts), lasts[0].status)

    def _marked(self, task_id: str, act: str, until: float = float("inf")) -> bool:
        return any(
            entry["event"] == "hand"
            and entry["act"] == act
            and task_id in entry["tasks"]
            and entry["at"] < until
            for entry in self.seen.journal
        )

    def _excused(self, other: str, task_id: str, last: Execution) -> bool:
        """Whether a person has asked for it: cleared or marked what a task reads, and not the task."""
        for entry in self.seen.journal:
            if other not in entry.get("tasks", ()):
                continue
            later = last.begin < entry["at"]
            cleared = entry["event"] == "cleared" and task_id not in entry["tasks"]
            act = entry["act"] if entry["event"] == "hand" else None
            if act == "success" or (later and (cleared or act == "failed")):
                return True
        return False

    def _unseen(self, other: str) -> bool:
        """Whether a task was marked when no build was at work, which would have seen it."""
        return any(
            entry["event"] == "hand"
            and entry["act"] in ("success", "failed")
            and other in entry["tasks"]
            and (entry["act"] == "success" or not entry["here"])
            for entry in self.seen.journal
        )

    def _marked_at_last(self) -> bool:
        """Whether a mark of the run was last, or of a task of a run that had ended: nobody looks again."""
        marked = False
        for entry in self.seen.journal:
            if entry["event"] == "hand" and entry["act"] in ("success", "failed"):
                marked = entry["task"] == RUN or not entry["here"]
            elif entry["event"] == "cleared":
                marked = False
        return marked

    def sound(self) -> set[str]:
        """Tasks that are green together with all that they rest on, none of which a person has excused."""
        good: set[str] = set()
        for task_id in _in_order(self.seen.plan):
            green = self.seen.shown[task_id]["state"] == "success" and not self._marked(task_id, "success")
            last = self.last(task_id)
            above = list(self.seen.plan[task_id]["upstream"])
            excused = last is not None and any(
                self._excused(other, task_id, last) for other, _ in self.above(task_id)
            )
            if green and not excused and all(other in good for other in above):
                good.add(task_id)
        return good


def _name(task_id: str) -> str:
    """What a task is about: a node, or the node whose tests it stands for."""
    return task_id.rpartition(".")[2].removesuffix("__unit")


def _in_order(plan: Mapping[str, Any]) -> Iterable[str]:
    from graphlib import TopologicalSorter

    return TopologicalSorter({task_id: task["upstream"] for task_id, task in plan.items()}).static_order()
