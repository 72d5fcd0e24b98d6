"""Which tasks of a build dbt runs next.

One command of dbt runs all that waits. While it runs, people clear and mark tasks, and tasks fail that
Airflow will try again; so when it is over, the build takes stock: what waits then and can run makes the next
round.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import UTC, datetime

from orrery.execute.airflow_tasks import AirflowTasks
from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.grounds import DONE
from orrery.execute.journal import Journal, still_true
from orrery.execute.run_graph import FAILED, RunGraph
from orrery.execute.tally import Tally

# States in which a task waits for a build.
_WAITING = (None, "up_for_reschedule", "deferred")
# States in which a worker has a task, or will have it in a moment, and for how many seconds a build waits.
_BUSY = ("scheduled", "queued", "running", "restarting")
_SETTLE = 20.0
_PAUSE = 0.5
_STUCK = "dbt did not run it, although nothing that it waits for has failed. See the log of the task 'build'."


class Rounds:
    """Takes the tasks that wait, round by round.

    `graph` is the order of the run's tasks; what runs dbt may learn more of it with each round.

    :param task_ids: the tasks in which dbt has a part
    """

    def __init__(
        self,
        airflow: AirflowTasks,
        graph: RunGraph,
        task_ids: Collection[str],
        tally: Tally,
        journal: Journal,
    ) -> None:
        self.graph = graph
        self._airflow, self._tally, self._journal = airflow, tally, journal
        self._task_ids = list(task_ids)
        self._tries: dict[str, Try] = {}
        # What has been run, each with what tells this try from others.
        self._seen: set[tuple[str, int, str | None]] = set()
        self._last: set[str] = set()

    def next(self) -> dict[str, Try]:
        """The tasks that dbt is to run now; none when all have ended or are left to others.

        A round without progress is the last one: what it would run has been run before, nothing has ended
        since and nobody has cleared it. These tasks end as upstream_failed.
        """
        if not self._seen:
            self._replay()
        elif not self._any_waits():
            return {}
        tries = self._take()
        signs = {(task_id, each.number, each.since) for task_id, each in tries.items()}
        if signs <= self._seen and not any(task_id in self._tally.ended for task_id in self._last):
            for task_id in tries:
                self._upstream_fail(task_id, self._tally.held_back.get(task_id, _STUCK))
            return {}
        self._seen |= signs
        self._last = set(tries)
        self._tally.begin(tries)
        return tries

    def _any_waits(self) -> bool:
        states = self._airflow.states()
        return any(states.get(task_id) in _WAITING for task_id in self._task_ids)

    def _hold(self) -> dict[str, Try]:
        held = self._airflow.hold(self._task_ids, self.graph)
        self._tries |= held
        self._journal.tries |= {task_id: each.number for task_id, each in held.items()}
        return held

    def _take(self) -> dict[str, Try]:
        """Take the tasks on which nobody else works; returns those that can run.

        What descends from a failed task is upstream_failed, also where Airflow does not know that it does.
        A worker may be about to ask for a task on which others depend, or to fail it: that takes a moment,
        which the build waits. What still cannot run then, is given back.
        """
        deadline = time.monotonic() + _SETTLE
        while True:
            held = self._hold()
            states = self._airflow.states(self.graph.parents)
            outside = {
                task_id: states.get(task_id)
                for task_id in self.graph.parents
                if task_id not in held and states.get(task_id) not in DONE
            }
            failed = {task_id for task_id, state in outside.items() if self._is_failed(task_id, state)}
            doomed = self.graph.descendants(failed) & held.keys()
            early = (self.graph.descendants(outside) & held.keys()) - doomed
            busy = {
                task_id
                for task_id, state in outside.items()
                if state in _BUSY and self._tally.ended.get(task_id) is not NodeState.FAILED
            }
            if busy.isdisjoint(self.graph.ancestors(early)) or time.monotonic() > deadline:
                break
            time.sleep(_PAUSE)
        for task_id in doomed:
            cause = min(failed & self.graph.ancestors([task_id]))
            self._upstream_fail(task_id, f"{cause} has failed.")
        for task_id in early:
            self._tally.release(task_id)
        return {task_id: each for task_id, each in held.items() if task_id not in doomed | early}

    def _is_failed(self, task_id: str, state: str | None) -> bool:
        """Whether a task has failed for good, or a worker is about to make it so."""
        told = self._tally.ended.get(task_id) is NodeState.FAILED and self._tries[task_id].last
        return state in FAILED or (told and state in _BUSY)

    def _upstream_fail(self, task_id: str, reason: str) -> None:
        now = datetime.now(UTC).isoformat()
        self._tally.add(Update(task_id, NodeState.UPSTREAM_FAILED, start=now, end=now, note=reason))

    def _replay(self) -> None:
        """Publish what an earlier try of the build has done, and was killed before it could publish it.

        It counts when the task is still in the same try, and all that it descends from is done: what was
        cleared in between is not.
        """
        entries = self._journal.read()
        if not entries:
            return
        held, states = self._hold(), self._airflow.states(self.graph.parents)
        for update in still_true(entries, held, self.graph, states):
            self._tally.add(update)
        self._airflow.flush()
        # From here on nothing in it is of any worth.
        self._journal.clear()
