"""The Airflow side of a build: which tasks wait for it, and what Airflow learns of them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from orrery.config.errors import OrreryError
from orrery.config.project import Project
from orrery.config.stages import INGEST
from orrery.execute.airflow_tasks import AirflowTasks
from orrery.execute.assignment import Assignment
from orrery.execute.channel import MEMORY, RELEASE, NodeState, Try, Update
from orrery.execute.elementary import why_absent
from orrery.execute.grounds import DONE
from orrery.execute.hidden import hidden_failure
from orrery.execute.journal import Journal
from orrery.execute.marker import due_markers
from orrery.execute.memory import Memory
from orrery.execute.node_log import NodeLogs
from orrery.execute.options import SKIPPED_STAGE, RunOptions
from orrery.execute.publisher import Publisher, Store
from orrery.execute.reporter import Logs
from orrery.execute.results import outcome
from orrery.execute.rounds import Rounds
from orrery.execute.run_folder import folder_of
from orrery.execute.run_graph import FAILED, RunGraph
from orrery.execute.tally import Tally
from orrery.manifest.packages import ELEMENTARY
from orrery.plan.model import PipelinePlan, TaskKind
from orrery.plan.objects import check_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import Context

# How much of an error the tasks that it ends show.
_LONGEST = 500


class Runner(Protocol):
    """Where dbt runs: orrery.execute.dbt_run.DbtRun, or a pod."""

    @property
    def warnings(self) -> Mapping[str, str]:
        """What dbt warned of, by task."""

    def begin(self) -> None:
        """Get ready; raises OptionsError and DbtError before anything runs."""

    @property
    def graph(self) -> RunGraph:
        """The order of the tasks in this run, as far as it is known."""

    def run(self, tries: Mapping[str, Try]) -> None:
        """Run tasks, given by their ids."""

    def end(self, hidden: str | None = None) -> None:
        """All nodes have ended: run what comes after them; `hidden` as for DbtRun.end."""

    def stop(self) -> None:
        """Dbt is about to be interrupted."""

    def close(self) -> None:
        """Nothing more is to be run."""


class MakeRunner(Protocol):
    """Makes the runner of a build."""

    def __call__(self, assignment: Assignment, tally: Tally, logs: Logs, context: Context) -> Runner: ...


class BuildRun:
    """The work of the task `build`.

    `execute` runs everything of the pipeline that waits for it, in dbt's order, and returns how many
    tasks ended in which state. A failed node fails its own task, not the build.
    """

    def __init__(
        self, plan: PipelinePlan, options: RunOptions, context: Context, make_runner: MakeRunner
    ) -> None:
        self._plan, self._options, self._make_runner = plan, options, make_runner
        self._context = context
        self._ti: Any = context["ti"]
        self._store: Store = context["task_state_store"]
        self._memory = Memory(self._store)
        self._assignment = Assignment.of(plan, options, self._ti, **self._memory.known)
        self._logs = NodeLogs(self._ti, context.get("logical_date"))
        self._tally: Tally
        self._airflow: AirflowTasks
        self._runner: Runner | None = None
        # Whether the build has said that it does not reach its end, and Airflow has heard it.
        self.gave_up = False

    def stop(self) -> None:
        """Say that the build is about to be interrupted: what dbt then cancels has not failed."""
        if self._runner is not None:
            self._runner.stop()

    @property
    def warnings(self) -> dict[str, str]:
        """What dbt warned of, by task."""
        return dict(self._runner.warnings) if self._runner else {}

    def execute(self) -> Counter[str]:
        """Build; raises OptionsError, DbtError, NotConfiguredError before anything runs."""
        project = Project.find()
        if self._options.uri:
            works = [task.work for task in self._plan.tasks.values() if task.work and task.stage == INGEST]
            check_object(works, self._options.uri, project)
        publisher = Publisher(self._store, lost=_stop_this_process)
        journal = Journal(folder_of(project, self._ti.dag_id, self._ti.run_id), publisher)
        memory = self._memory
        tally = self._tally = Tally(journal, lambda batches: publisher.keep(MEMORY, memory.learn(batches)))
        self._airflow = AirflowTasks(self._ti, self._store, publisher)
        runner = self._runner = self._make_runner(self._assignment, tally, self._logs, self._context)
        try:
            runner.begin()
            self._run(runner, journal)
            counts = self._finish(runner.graph)
        except BaseException as error:
            publisher.close()
            self._give_up(error)
            runner.close()
            raise
        publisher.close()
        journal.clear()
        runner.close()
        self._logs.upload()
        return counts

    def _run(self, runner: Runner, journal: Journal) -> None:
        """Run what waits, and the hooks around it."""
        built = self._assignment.built
        hooks = [task_id for task_id, task in built.items() if task.kind is TaskKind.HOOK]
        rounds = Rounds(self._airflow, runner.graph, built.keys() - set(hooks), self._tally, journal)
        around: dict[str, Try] | None = None
        while tries := rounds.next():
            if around is None:
                # A new command of dbt runs hooks, also those that have run with an earlier one.
                around = self._airflow.hold(hooks, runner.graph, again=True)
                tries |= around
            runner.run(tries)
            rounds.graph = runner.graph
        if around is None and (around := self._airflow.hold(hooks, runner.graph)):
            runner.run(around)
        self._airflow.settle()
        runner.end(hidden_failure(self._plan.tasks, self._airflow.states(), self._tally.ended))

    def _give_up(self, error: BaseException) -> None:
        """Say that this try does not reach its end, and whether another one could help."""
        stopped = isinstance(error, KeyboardInterrupt)
        reason = "it was stopped." if stopped else str(error) or type(error).__name__
        # Airflow may have forgotten this try; then the next one takes the tasks over.
        with suppress(Exception):
            self._store.set(RELEASE, {"reason": reason[:_LONGEST], "final": isinstance(error, OrreryError)})
            self.gave_up = True

    def _finish(self, graph: RunGraph) -> Counter[str]:
        """End what only waits for the nodes; returns how many of these ended in which state.

        Points that only wait end here, so that the scheduler need not go through them one by one, and so do
        tasks with nothing to publish: of a worker's task Airflow notices that seconds late.
        """
        states = self._airflow.states()
        due, left = due_markers(self._plan.tasks, states), self._nothing_to_publish()
        ended = Counter(str(state) for state in self._outcomes(states))
        held = self._airflow.hold([*due, *left], graph) if due or left else {}
        moment = datetime.now(UTC).isoformat()
        for task_id in due:
            if task_id in held:
                self._tally.add(Update(task_id, NodeState.SUCCESS, start=moment, end=moment))
        for task_id, reason in left.items():
            if task_id in held:
                result = outcome(reason, status="skipped")
                self._tally.add(
                    Update(task_id, NodeState.SKIPPED, start=moment, end=moment, result=result, note=reason)
                )
        return ended

    def _outcomes(self, states: Mapping[str, str | None]) -> Iterator[str]:
        """The states in which tasks have ended here, as Airflow has accepted them."""
        for task_id, told in self._tally.ended.items():
            # A worker is about to fail it.
            failed = told is NodeState.FAILED and states.get(task_id) in ("scheduled", "queued", "running")
            state = told.value if failed else states.get(task_id)
            if state in DONE | FAILED:
                yield str(state)

    def _nothing_to_publish(self) -> dict[str, str]:
        """Tasks with nothing to publish, each with the reason."""
        absent = why_absent(Project.find())
        left: dict[str, str] = {}
        for task_id, task in self._plan.tasks.items():
            if task.kind is not TaskKind.PUBLISH:
                continue
            skipped = SKIPPED_STAGE.format(task.stage) if task.stage in self._options.skip_stages else None
            if reason := skipped or (absent if task.name == ELEMENTARY else None):
                left[task_id] = reason
        return left


def _stop_this_process() -> None:
    # The signal with which Airflow stops a task: it ends dbt in the main thread.
    os.kill(os.getpid(), signal.SIGTERM)
