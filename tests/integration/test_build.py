"""`execute: build` for real: everything that can fail is killed, and nothing runs twice or is lost."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import httpx
import psutil
import psycopg2
import pytest

from orrery.local import health, processes
from support import trial
from support.airflow import Json, moment
from support.live import Live, own_stack
from support.waiting import wait_for

pytestmark = pytest.mark.integration

T = TypeVar("T")

BUILD = "build"
FAULTS = "trial_faults"
MARKED = "trial_marked"
# The tasks of the pipeline trial_faults when core.fault_held waits for its lock.
BEFORE = {
    *("core.fault_root", "core.fault_other", "core.fault_left", "core.fault_right", "core.fault_lone"),
    *("core.fault_beside", "tests.fault_left", "tests.fault_right"),
}
HELD = "core.fault_held"
AFTER = {"tests.fault_held", "core.fault_after", "core.fault_joined", "core.fault_last"}
NODES = {*BEFORE, HELD, *AFTER}
MIDWAY = {
    **dict.fromkeys(BEFORE, "success"),
    **dict.fromkeys(AFTER, "deferred"),
    HELD: "running",
    BUILD: "running",
}
ENDED = {"success", "skipped", "failed", "upstream_failed"}
# A part that hangs is started anew within 3 minutes, and one more for each look that fails on a busy
# machine; nothing waits that long on a good day.
SECONDS = 480
TABLES = """
create schema if not exists dev;
drop table if exists dev.trial_build_log, dev.trial_switch, dev.trial_arrivals, dev.trial_mark;
create table dev.trial_build_log (
    model text, invocation text,
    began timestamptz default transaction_timestamp(), ended timestamptz default clock_timestamp()
);
create table dev.trial_switch as select 1 as divisor;
create table dev.trial_arrivals as select 1 as id, now() - interval '2 hours' as loaded_at;
"""


class Built(NamedTuple):
    """A line that a model has written about itself, in the transaction that built it."""

    model: str
    invocation: str
    began: Any
    ended: Any


@dataclass(frozen=True)
class Midway:
    """A run of trial_faults in the middle: `tasks` at that moment, and the backend of the waiting query."""

    run_id: str
    tasks: dict[str, Json]
    query: int
    release: Callable[[], None]


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    """A stack of their own, which these tests treat badly."""
    with own_stack() as live:
        yield live


@pytest.fixture(scope="module")
def stack(live: Live) -> Live:
    """The stack with the tables that the models of these tests use, and all pipelines known to Airflow."""
    assert live.orrery("up").code == 0
    live.query(TABLES)
    done = live.orrery("run", FAULTS)
    assert done.code == 0, done.output
    assert set(seen(live, FAULTS, done.run_id)) == {*NODES, BUILD}
    return live


@pytest.fixture(autouse=True)
def _clean_tables(stack: Live) -> None:
    stack.query("delete from dev.trial_build_log; update dev.trial_switch set divisor = 1")


def clear(live: Live, dag_id: str, run_id: str, **choice: Any) -> set[str]:
    """Clear tasks as the web interface does; returns their ids."""
    body = {"dag_run_id": run_id, "dry_run": False, "only_failed": False, "reset_dag_runs": True, **choice}
    answer = live.airflow.post(f"/dags/{dag_id}/clearTaskInstances", body)
    return {task["task_id"] for task in answer["task_instances"]}


def start(live: Live, dag_id: str, conf: Json | None = None) -> str:
    """Start a run; returns its id."""
    answer = live.airflow.trigger(dag_id, conf)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["dag_run_id"])


def patiently(look: Callable[[], T]) -> T | None:
    """What `look` sees, or None as long as Airflow does not answer."""
    try:
        return look()
    except httpx.HTTPError:
        return None


def ended(live: Live, dag_id: str, run_id: str) -> str:
    """The state of a run once it has ended, whatever happens to the api-server meanwhile."""

    def look() -> str | None:
        run = patiently(lambda: live.airflow.get(f"/dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"))
        return str(run["state"]) if run and run["state"] in ("success", "failed") else None

    try:
        return str(wait_for(f"{dag_id} {run_id} ends", look, SECONDS))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{live.airflow.states(dag_id, run_id)}") from None


def run(live: Live, dag_id: str, conf: Json | None = None) -> tuple[str, dict[str, Json]]:
    """A run from beginning to end: its state, and its tasks."""
    run_id = start(live, dag_id, conf)
    state = ended(live, dag_id, run_id)
    return state, live.airflow.tasks(dag_id, run_id)


def xcom(live: Live, task: Json) -> Json:
    """What a task says of its nodes."""
    found: Json = live.airflow.xcom(task["dag_id"], task["dag_run_id"], task["task_id"])
    return found


def log_of(live: Live, task: Json) -> str:
    """The log of a task's latest try."""
    path = (
        f"/dags/{task['dag_id']}/dagRuns/{quote(task['dag_run_id'], safe='')}/taskInstances/"
        f"{task['task_id']}/logs/{task['try_number']}?full_content=true"
    )
    return json.dumps(live.airflow.get(path)["content"], ensure_ascii=False)


def log_lines(live: Live) -> list[Built]:
    """What has been built since the test began, in the order of time."""
    rows = live.query("select model, invocation, began, ended from dev.trial_build_log order by ended")
    return [Built(*row) for row in rows]


def log_lines_of_models(live: Live) -> list[Built]:
    return [line for line in log_lines(live) if not line.model.startswith("on-run-")]


def models(live: Live) -> list[str]:
    return [line.model for line in log_lines_of_models(live)]


def models_of(tasks: set[str]) -> list[str]:
    """The names of the models among tasks."""
    return sorted(task.partition(".")[2] for task in tasks if task.startswith("core."))


def states(tasks: dict[str, Json]) -> dict[str, str]:
    """The states of all tasks but those of hooks, which are tested elsewhere."""
    return {task_id: task["state"] for task_id, task in tasks.items() if not is_hook(task_id)}


def is_hook(task_id: str) -> bool:
    return task_id.startswith("hooks.")


def seen(live: Live, dag_id: str, run_id: str) -> dict[str, str]:
    """The states of the tasks of a run, without those of hooks."""
    return states(live.airflow.tasks(dag_id, run_id))


def changed(before: dict[str, Json], after: dict[str, Json]) -> set[str]:
    """The tasks that have another start, end or try."""
    return {
        task_id
        for task_id, task in after.items()
        for key in ("start_date", "end_date", "try_number")
        if task[key] != before[task_id][key] and not is_hook(task_id)
    }


def in_lineage_order(live: Live, tasks: dict[str, Json], among: set[str]) -> bool:
    edges = {edge for edge in live.airflow.edges(FAULTS) if set(edge) <= among}
    assert edges
    return all(moment(tasks[a]["end_date"]) <= moment(tasks[b]["start_date"]) for a, b in edges)


def backends(live: Live, condition: str) -> list[int]:
    """The server processes of dbt's queries, but this one."""
    rows = live.query(
        "select pid from pg_stat_activity where usename = 'transformer' and pid <> pg_backend_pid()"
        f" and {condition}"
    )
    return [pid for (pid,) in rows]


def waiting_query(live: Live) -> list[int]:
    return backends(live, "wait_event_type = 'Lock' and wait_event = 'advisory'")


def nothing_left(live: Live) -> None:
    """No query of a build is left in the warehouse; its connections close a moment after its end."""
    wait_for("dbt has left the warehouse", lambda: not backends(live, "state <> 'idle'"))


@contextmanager
def locked(live: Live) -> Iterator[Callable[[], None]]:
    """The model fault_held waits, until the function is called or the block ends."""
    with closing(psycopg2.connect(live.stack.warehouse_dsn("transformer"))) as link:
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(%s)", (trial.LOCK,))
        yield link.close


@contextmanager
def midway(live: Live) -> Iterator[Midway]:
    """A run in which some nodes are published as built, one runs, and the others wait for it."""
    with locked(live) as release:
        run_id = start(live, FAULTS)
        wait_for("the run is midway", lambda: seen(live, FAULTS, run_id) == MIDWAY, SECONDS)
        tasks = live.airflow.tasks(FAULTS, run_id)
        [query] = wait_for("its query waits", lambda: waiting_query(live))
        yield Midway(run_id, tasks, query, release)


def is_complete(live: Live, half: Midway) -> dict[str, Json]:
    """The run has succeeded and each node was built once; what had been published was left alone."""
    tasks = live.airflow.tasks(FAULTS, half.run_id)
    assert states(tasks) == dict.fromkeys({*NODES, BUILD}, "success")
    assert Counter(models(live)) == Counter(models_of(NODES))
    assert not changed(half.tasks, tasks) & BEFORE
    nothing_left(live)
    return tasks


def invocations(live: Live) -> list[str]:
    """The dbt invocations that have built models, in the order of time."""
    return list(dict.fromkeys(line.invocation for line in log_lines_of_models(live)))


def is_gone(live: Live, query: int) -> bool:
    return query not in backends(live, "state <> 'idle'")


def pid_of(live: Live, component: str) -> int | None:
    return next(status.pid for status in live.stack.status() if status.name == component)


def kill(live: Live, component: str) -> None:
    """Kill a component and wait until the supervisor has started it again."""
    pid = pid_of(live, component)
    assert pid
    os.kill(pid, signal.SIGKILL)
    wait_for(f"{component} is started again", lambda: pid_of(live, component) not in (None, pid))


def test_killed_build_goes_on_where_it_was(stack: Live) -> None:
    with midway(stack) as half:
        task = psutil.Process(half.tasks[BUILD]["pid"])
        assert task in stack.members()
        assert processes.leads_task(task)
        task.kill()
        wait_for("the killed dbt's query is cancelled", lambda: is_gone(stack, half.query))
        half.release()
        assert ended(stack, FAULTS, half.run_id) == "success"
    tasks = is_complete(stack, half)
    assert tasks[BUILD]["try_number"] == 2
    assert len(invocations(stack)) == 2
    # The ledger has the nodes of both.
    assert stack.query(
        "select count(distinct invocation_id), bool_or(unique_id like '%.fault_root') from orrery.node_runs"
        f" where run_id = '{half.run_id}'"
    ) == [(2, True)]


def test_killed_scheduler_costs_nothing(stack: Live) -> None:
    with midway(stack) as half:
        kill(stack, "scheduler")
        wait_for("the orphaned dbt's query is cancelled", lambda: is_gone(stack, half.query))
        half.release()
        assert ended(stack, FAULTS, half.run_id) == "success"
    is_complete(stack, half)
    assert len(invocations(stack)) == 2


@pytest.mark.parametrize("component", ["api-server", "triggerer"])
def test_build_does_not_mind(component: str, stack: Live) -> None:
    with midway(stack) as half:
        pid = pid_of(stack, component)
        assert pid
        os.kill(pid, signal.SIGKILL)
        half.release()
        assert ended(stack, FAULTS, half.run_id) == "success"
    wait_for(f"{component} is started again", lambda: pid_of(stack, component) not in (None, pid))
    tasks = is_complete(stack, half)
    assert tasks[BUILD]["try_number"] == 1
    assert len(invocations(stack)) == 1


def test_killed_database_fails_only_what_ran(stack: Live) -> None:
    with midway(stack) as half:
        kill(stack, "postgres")
        half.release()
        # Each part does more than to see that the database is back, or else is started anew: in 3 minutes.
        since = time.time() + 10
        port = stack.info.api_port
        wait_for("all goes on", lambda: not health.unhealthy(port, since), SECONDS)
        if ended(stack, FAULTS, half.run_id) == "failed":
            tasks = stack.airflow.tasks(FAULTS, half.run_id)
            failed = {task_id for task_id, task in tasks.items() if task["state"] == "failed"}
            assert failed <= {HELD, BUILD}
            assert set(states(tasks).values()) <= ENDED
            done = stack.orrery("retry", FAULTS, "--failed", "--run-id", half.run_id)
            assert done.code == 0, done.output
    is_complete(stack, half)


def test_cleared_build_stops_and_goes_on(stack: Live) -> None:
    with midway(stack) as half:
        assert clear(stack, FAULTS, half.run_id, task_ids=[BUILD]) == {BUILD}
        wait_for("the cleared build's query is cancelled", lambda: is_gone(stack, half.query))
        half.release()
        assert ended(stack, FAULTS, half.run_id) == "success"
    is_complete(stack, half)
    assert len(invocations(stack)) == 2


def test_failure_is_explained_and_mended_in_one_go(stack: Live) -> None:
    stack.query("update dev.trial_switch set divisor = 0")
    run_id = start(stack, FAULTS)
    assert ended(stack, FAULTS, run_id) == "failed"
    before = stack.airflow.tasks(FAULTS, run_id)
    assert states(before) == {
        **dict.fromkeys({*BEFORE, BUILD}, "success"),
        **dict.fromkeys(AFTER, "upstream_failed"),
        HELD: "failed",
    }
    said = xcom(stack, before[HELD])
    assert said["status"] == "error"
    assert "Database Error in model fault_held" in said["message"]
    assert "division by zero" in said["message"]
    log = log_of(stack, before[HELD])
    assert "division by zero" in log
    assert f"pg_advisory_xact_lock_shared({trial.LOCK})" in log, "the compiled SQL"
    assert xcom(stack, before["tests.fault_right"])["status"] == "warn"
    assert before["tests.fault_right"]["note"].startswith(
        "Warning: assert_fault_right_is_empty: Got 1 result"
    )
    assert Counter(models(stack)) == Counter(models_of(BEFORE))

    stack.query("update dev.trial_switch set divisor = 1; delete from dev.trial_build_log")
    assert clear(stack, FAULTS, run_id, only_failed=True) == {HELD, *AFTER}
    assert ended(stack, FAULTS, run_id) == "success"
    after = stack.airflow.tasks(FAULTS, run_id)
    assert states(after) == dict.fromkeys({*NODES, BUILD}, "success")
    assert changed(before, after) == {HELD, *AFTER, BUILD}
    assert sorted(models(stack)) == models_of({HELD, *AFTER})
    assert len(invocations(stack)) == 1
    assert in_lineage_order(stack, after, {HELD, *AFTER})
    assert xcom(stack, after[HELD])["status"] == "success"
    nothing_left(stack)


def test_cleared_nodes_alone_run_again(stack: Live) -> None:
    run_id = start(stack, FAULTS)
    assert ended(stack, FAULTS, run_id) == "success"
    before = stack.airflow.tasks(FAULTS, run_id)

    stack.query("delete from dev.trial_build_log")
    assert clear(stack, FAULTS, run_id, task_ids=["core.fault_left"]) == {"core.fault_left"}
    assert ended(stack, FAULTS, run_id) == "success"
    one = stack.airflow.tasks(FAULTS, run_id)
    assert models(stack) == ["fault_left"]
    assert changed(before, one) == {"core.fault_left", BUILD}
    assert one["core.fault_left"]["try_number"] == before["core.fault_left"]["try_number"] + 1

    stack.query("delete from dev.trial_build_log")
    subtree = {"core.fault_left", "tests.fault_left", HELD, *AFTER}
    again = clear(stack, FAULTS, run_id, task_ids=["core.fault_left"], include_downstream=True)
    assert again == subtree
    assert ended(stack, FAULTS, run_id) == "success"
    after = stack.airflow.tasks(FAULTS, run_id)
    assert states(after) == dict.fromkeys({*NODES, BUILD}, "success")
    assert sorted(models(stack)) == models_of(subtree)
    assert changed(one, after) == {*subtree, BUILD}
    assert len(invocations(stack)) == 1
    assert in_lineage_order(stack, after, subtree)


def test_failed_node_is_tried_again(stack: Live) -> None:
    def state() -> str:
        return stack.airflow.states("trial_retried", run_id)[HELD]

    stack.query("update dev.trial_switch set divisor = 0")
    run_id = start(stack, "trial_retried")
    wait_for("the node waits for its second try", lambda: state() == "up_for_retry")
    assert models(stack) == []
    stack.query("update dev.trial_switch set divisor = 1")
    # Airflow waits five minutes before the next try: let them have passed.
    airflow = stack.stack.warehouse_dsn("postgres").replace("/warehouse", "/airflow")
    with closing(psycopg2.connect(airflow)) as link, link, link.cursor() as cursor:
        cursor.execute(
            "update task_instance set end_date = end_date - interval '1 hour'"
            " where dag_id = 'trial_retried' and run_id = %s and task_id = %s and state = 'up_for_retry'",
            (run_id, HELD),
        )
        assert cursor.rowcount == 1
    assert ended(stack, "trial_retried", run_id) == "success"
    tasks = stack.airflow.tasks("trial_retried", run_id)
    assert states(tasks) == dict.fromkeys([BUILD, HELD, "core.fault_after"], "success")
    assert (tasks[HELD]["try_number"], tasks["core.fault_after"]["try_number"]) == (2, 1)
    assert models(stack) == ["fault_held", "fault_after"]
    assert len(invocations(stack)) == 1


HANDS = "trial_hands"


class Chain:
    """A run of trial_hands that builds one of its chains, whose second model waits until `release`."""

    def __init__(self, live: Live, number: int, stack: ExitStack) -> None:
        self._live, self._number = live, number
        link = stack.enter_context(closing(psycopg2.connect(live.stack.warehouse_dsn("transformer"))))
        link.autocommit = True
        with link.cursor() as cursor:
            cursor.execute("select pg_advisory_lock(%s)", (self._lock,))
        self.release = link.close
        self.run_id = start(live, HANDS, {"select": f"hand_{number}_1+"})

    @property
    def _lock(self) -> int:
        return trial.LOCK + 1 + self._number

    def task(self, number: int) -> str:
        """The id of the task of a model: 1 to 4."""
        return f"core.hand_{self._number}_{number}"

    @property
    def query(self) -> list[int]:
        """The server process of the model that waits for the lock."""
        return backends(
            self._live,
            "pid in (select pid from pg_locks where locktype = 'advisory' and not granted"
            f" and objid = {self._lock})",
        )

    @property
    def path(self) -> str:
        return f"/dags/{HANDS}/dagRuns/{quote(self.run_id, safe='')}"

    def mark(self, task_id: str, state: str) -> None:
        """Mark a task as the web interface does."""
        self._live.airflow.patch(f"{self.path}/taskInstances/{task_id}", {"new_state": state})

    def clear(self, task_id: str, **choice: Any) -> None:
        clear(self._live, HANDS, self.run_id, task_ids=[task_id], **choice)

    def states(self) -> list[str]:
        """The states of the four models, and of the build."""
        tasks = self._live.airflow.states(HANDS, self.run_id)
        return [tasks[task_id] for task_id in (*map(self.task, range(1, 5)), BUILD)]

    def ended(self) -> tuple[str, list[str]]:
        """How the run has ended, and its tasks."""
        return ended(self._live, HANDS, self.run_id), self.states()

    def note(self, number: int) -> str:
        return str(self._live.airflow.tasks(HANDS, self.run_id)[self.task(number)]["note"])

    def built(self) -> str:
        """The numbers of the models that were built, in the order of time."""
        mine = [name for name in models(self._live) if name.startswith(f"hand_{self._number}_")]
        return "".join(name[-1] for name in mine)


@contextmanager
def chains(live: Live, *numbers: int) -> Iterator[list[Chain]]:
    """Runs at the same time, each in the middle of its chain."""
    with ExitStack() as stack:
        made = [Chain(live, number, stack) for number in numbers]
        for chain in made:
            wait_for(f"{chain.run_id} is midway", lambda chain=chain: chain.query, SECONDS)
            wait_for(f"{chain.run_id} is seen", lambda chain=chain: chain.states() == HALF, SECONDS)
        yield made


HALF = ["success", "running", "deferred", "deferred", "running"]
FAILED = ("failed", ["success", "failed", "upstream_failed", "upstream_failed", "success"])


def test_a_mark_holds_back_descendants_and_what_is_cleared_runs_again(stack: Live) -> None:
    with chains(stack, 0, 1, 2) as (running, waiting, cleared):
        running.mark(running.task(2), "failed")
        waiting.mark(waiting.task(3), "failed")
        cleared.clear(cleared.task(1), include_downstream=True)
        for chain in (running, waiting, cleared):
            chain.release()
        assert running.ended() == FAILED
        failed = ["success", "success", "failed", "upstream_failed", "success"]
        assert waiting.ended() == ("failed", failed)
        assert cleared.ended() == ("success", ["success"] * 5)
    assert running.note(4) == (
        f"{running.task(2)} has failed or was marked failed, so what dbt made of this task does not count."
    )
    # With the data of before, and once more with those of after.
    assert cleared.built() == "12341234"
    tasks = stack.airflow.tasks(HANDS, cleared.run_id)
    assert [tasks[cleared.task(number)]["try_number"] for number in range(1, 5)] == [2, 2, 2, 2]


def test_what_is_cleared_alone_runs_alone_and_a_stopped_build_stays_stopped(stack: Live) -> None:
    with chains(stack, 3, 4, 5) as (cleared, marked, stopped):
        cleared.clear(cleared.task(1))
        marked.mark(marked.task(2), "success")
        stopped.mark(BUILD, "failed")
        wait_for("the stopped build's query is cancelled", lambda: not stopped.query)
        for chain in (cleared, marked):
            chain.release()
        assert cleared.ended() == ("success", ["success"] * 5)
        assert marked.ended() == ("success", ["success"] * 5)
        left = ["upstream_failed"] * 3
        assert stopped.ended() == ("failed", ["success", *left, "failed"])
    assert cleared.built() == "12341234"
    assert marked.built() == "1234"
    assert stopped.built() == "1"
    assert stopped.note(2).startswith("The task 'build' was stopped before this task had ended.")
    tasks = stack.airflow.tasks(HANDS, stopped.run_id)
    assert tasks[BUILD]["try_number"] == 1
    # What is cleared later goes on, with the build.
    assert clear(stack, HANDS, stopped.run_id, only_failed=True) >= {BUILD, *map(stopped.task, (2, 3, 4))}
    assert stopped.ended() == ("success", ["success"] * 5)


def test_a_build_that_is_always_killed_ends(stack: Live) -> None:
    with chains(stack, 6, 7) as (killed, deleted):
        # Airflow deletes no run that is at work.
        stack.airflow.patch(deleted.path, {"state": "failed"})
        stack.airflow.delete(deleted.path)
        wait_for("the query of the deleted run is cancelled", lambda: not deleted.query)
        for number in (1, 2, 3):
            build = stack.airflow.tasks(HANDS, killed.run_id)[BUILD]
            assert build["try_number"] == number
            [query] = wait_for("its query waits", lambda: killed.query, SECONDS)
            psutil.Process(build["pid"]).kill()
            wait_for("its query is cancelled", lambda query=query: query not in killed.query)
            if number < 3:
                again = lambda number=number: (  # noqa: E731
                    stack.airflow.tasks(HANDS, killed.run_id)[BUILD]["try_number"] > number and killed.query
                )
                wait_for("the build is tried again", again, SECONDS)
        left = ["upstream_failed"] * 3
        assert killed.ended() == ("failed", ["success", *left, "failed"])
    tasks = stack.airflow.tasks(HANDS, killed.run_id)
    assert tasks[BUILD]["try_number"] == 4, "the last one builds nothing"
    told = "The task 'build' has failed for good: it has not come to its end in 3 tries;"
    assert killed.note(2).startswith(told)
    assert {tasks[killed.task(number)]["try_number"] for number in (1, 2, 3, 4)} == {1}
    assert killed.built() == "1"
    nothing_left(stack)


def test_a_build_of_a_paused_dag_goes_on_to_its_end(stack: Live) -> None:
    def pause(paused: bool) -> None:
        stack.airflow.patch(f"/dags/{FAULTS}", {"is_paused": paused})

    with midway(stack) as half:
        pause(True)
        half.release()
        all_done = dict.fromkeys({*NODES, BUILD}, "success")
        wait_for("all is built", lambda: seen(stack, FAULTS, half.run_id) == all_done, SECONDS)
        pause(False)
        assert ended(stack, FAULTS, half.run_id) == "success"
    is_complete(stack, half)


def test_a_stale_source_fails_skips_or_warns_as_the_pipeline_says(stack: Live) -> None:
    freshness, reading = (
        "source_freshness.trial_stale__trial_arrivals",
        {"core.trial_arrived", "core.trial_arrived_again"},
    )
    # Its age is told in seconds: 7200 now, and below 8000 for the next thirteen minutes.
    stack.query("update dev.trial_arrivals set loaded_at = now() - interval '2 hours'")
    found: dict[str, dict[str, Json]] = {}
    # One after the other, as they build the same models.
    for policy in ("fail", "skip", "warn"):
        state, found[policy] = run(stack, f"trial_stale_{policy}")
        assert state == ("failed" if policy == "fail" else "success")
    common = {BUILD: "success", "core.trial_apart": "success", "function.trial_half": "success"}
    expected = {
        "fail": ("failed", "upstream_failed"),
        "skip": ("skipped", "skipped"),
        "warn": ("success", "success"),
    }
    for policy, (of_source, of_readers) in expected.items():
        assert states(found[policy]) == {
            **common,
            freshness: of_source,
            **dict.fromkeys(reading, of_readers),
        }, policy
        said = xcom(stack, found[policy][freshness])
        assert said["status"] == "error"
        assert "loaded 7" in said["message"], "two hours in seconds"
    assert "loaded 7" in log_of(stack, found["fail"][freshness])
    assert found["skip"][freshness]["note"].startswith("The source is stale: loaded 7")
    for task_id in reading:
        assert found["skip"][task_id]["note"].startswith(
            "The source trial_stale__trial_arrivals is stale: loaded 7"
        )
    assert found["warn"][freshness]["note"].startswith("Warning: loaded 7")
    built = Counter(models(stack))
    assert built == {"trial_apart": 3, "trial_arrived": 1, "trial_arrived_again": 1}
    function = xcom(stack, found["warn"]["function.trial_half"])
    assert [node["unique_id"] for node in function["nodes"]] == ["function.orrery_demo.trial_half"]


def test_readers_of_a_stale_source_are_skipped_where_each_task_runs_for_itself(stack: Live) -> None:
    dag_id, freshness = "trial_stale_per_model", "source_freshness.trial_stale__trial_arrivals"
    reader, after = "core.trial_arrived", "core.trial_arrived_again"
    stack.query("update dev.trial_arrivals set loaded_at = now() - interval '2 hours'")
    state, tasks = run(stack, dag_id)
    assert state == "success"
    common = {"core.trial_apart": "success", "function.trial_half": "success", freshness: "skipped"}
    assert states(tasks) == {**common, reader: "skipped", after: "skipped"}
    assert xcom(stack, tasks[freshness])["status"] == "error"
    told = "The source trial_stale__trial_arrivals is stale: loaded 7"
    assert xcom(stack, tasks[after])["message"].startswith(told)
    assert told in log_of(stack, tasks[reader])
    # Who clears a node alone wants it built.
    run_id = tasks[reader]["dag_run_id"]
    clear(stack, dag_id, run_id, task_ids=[reader])
    assert ended(stack, dag_id, run_id) == "success"
    assert stack.airflow.states(dag_id, run_id) == {**common, reader: "success", after: "skipped"}
    assert models(stack) == ["trial_apart", "trial_arrived"]


def test_hooks_of_the_project_run_once(stack: Live) -> None:
    state, tasks = run(stack, "trial_phases")
    assert state == "success", states(tasks)
    assert set(states(tasks).values()) == {"success"}
    # A seed that is a source, its freshness, and what reads it: three commands of dbt.
    assert set(states(tasks)) == {
        *(BUILD, "seed.trial_phase_seed", "source_freshness.trial_phases__trial_phase_seed"),
        "core.trial_phase_last",
    }
    assert [line.model for line in log_lines(stack)] == ["on-run-start", "trial_phase_last", "on-run-end"]


def test_a_run_of_a_part_builds_that_part_and_skips_the_rest(stack: Live) -> None:
    state, tasks = run(stack, FAULTS, {"select": "fault_beside+ fault_left", "exclude": "fault_last"})
    assert state == "success"
    chosen = {"core.fault_beside", "core.fault_joined", "core.fault_left", "tests.fault_left"}
    built = {task_id for task_id, state in states(tasks).items() if state == "success"}
    assert built == {*chosen, BUILD}
    for task_id in NODES - chosen:
        assert tasks[task_id]["state"] == "skipped"
        assert tasks[task_id]["note"] == "This run leaves it out (select, exclude)."
    assert sorted(models(stack)) == models_of(chosen)


def test_failure_is_not_hidden_by_what_is_left_out(stack: Live) -> None:
    stack.query("update dev.trial_switch set divisor = 0")
    run_id = start(stack, FAULTS, {"select": "fault_held", "exclude": "resource_type:test"})
    # All last tasks of the graph are left out.
    assert ended(stack, FAULTS, run_id) == "failed"
    assert seen(stack, FAULTS, run_id) == {
        **dict.fromkeys(NODES, "skipped"),
        **dict.fromkeys(AFTER, "upstream_failed"),
        HELD: "failed",
        BUILD: "success",
    }
    assert models(stack) == []

    stack.query("update dev.trial_switch set divisor = 1")
    assert clear(stack, FAULTS, run_id, only_failed=True) == {HELD, *AFTER}
    assert ended(stack, FAULTS, run_id) == "success"
    assert seen(stack, FAULTS, run_id) == {
        **dict.fromkeys(NODES, "skipped"),
        **dict.fromkeys((HELD, BUILD), "success"),
    }
    assert models(stack) == ["fault_held"]


def test_variables_and_threads_reach_dbt(stack: Live) -> None:
    conf = {"select": "fault_root fault_other", "vars": {"pause": 0.5}, "threads": 1}
    state, tasks = run(stack, FAULTS, conf)
    assert state == "success"
    first, second = log_lines_of_models(stack)
    assert {first.model, second.model} == {"fault_root", "fault_other"}
    for line in (first, second):
        assert (line.ended - line.began).total_seconds() >= 0.5
    assert first.ended <= second.began
    one, other = sorted((tasks["core.fault_root"], tasks["core.fault_other"]), key=lambda t: t["start_date"])
    assert moment(one["end_date"]) <= moment(other["start_date"])


REFUSED = [
    ({"select": "no_such_model"}, "select: 'no_such_model' matches no node of the dbt project."),
    ({"select": "trial_marc"}, "Did you mean 'trial_mark'?"),
    ({"select": "--profiles-dir /etc"}, "select cannot contain the option '--profiles-dir'."),
    ({"select": "x; rm -rf /"}, "select cannot contain the option '-rf'."),
    ({"select": "trial_mark;reboot"}, "select: 'trial_mark;reboot' matches no node of the dbt project."),
    ({"select": "no_such_method:x"}, "select: dbt does not accept 'no_such_method:x'"),
    ({"select": "trial_totals"}, "leave nothing of this pipeline to run."),
    ({"exclude": "*"}, "leave nothing of this pipeline to run."),
    ({"exclude": "--target=prod"}, "exclude cannot contain the option '--target=prod'."),
    ({"selct": "trial_mark"}, "Unknown choice 'selct' in the configuration of this run."),
]


def test_refused_choices_start_nothing(stack: Live) -> None:
    runs = [start(stack, MARKED, conf) for conf, _ in REFUSED]
    for run_id, (conf, message) in zip(runs, REFUSED, strict=True):
        assert ended(stack, MARKED, run_id) == "failed", conf
        tasks = stack.airflow.tasks(MARKED, run_id)
        build = tasks.pop(BUILD)
        assert (build["state"], build["try_number"]) == ("failed", 1), conf
        said = xcom(stack, build)
        assert said["status"] == "error"
        assert message in said["message"], conf
        assert message in log_of(stack, build), conf
        for task in tasks.values():
            assert task["state"] == "upstream_failed", conf
            assert task["pid"] is None, conf
    assert log_lines(stack) == []
    assert stack.query("select to_regclass('dev.trial_mark')") == [(None,)]


@pytest.mark.parametrize(
    "conf",
    [
        {"select": 7},
        {"vars": "--target prod"},
        {"threads": 0},
        {"threads": 65},
        {"threads": "4"},
        {"full_refresh": "yes"},
        {"skip_stages": ["sead"]},
    ],
    ids=str,
)
def test_choices_of_the_wrong_kind_make_no_run(conf: Json, stack: Live) -> None:
    before = len(stack.airflow.runs(MARKED))
    assert stack.airflow.trigger(MARKED, conf).status_code == 400
    assert len(stack.airflow.runs(MARKED)) == before


def test_runs_at_the_same_time_do_not_meet(stack: Live) -> None:
    # The first one makes the table.
    assert run(stack, MARKED)[0] == "success"
    markers = [f"marker {number}" for number in range(20)]
    runs = {marker: start(stack, MARKED, {"vars": {"marker": marker}}) for marker in markers}
    for run_id in runs.values():
        assert ended(stack, MARKED, run_id) == "success"
    for run_id in runs.values():
        tasks = stack.airflow.tasks(MARKED, run_id)
        assert states(tasks) == dict.fromkeys([BUILD, "core.trial_mark", "tests.trial_mark"], "success")
        assert {task["try_number"] for task in tasks.values()} == {1}
        assert xcom(stack, tasks[BUILD])["message"] == "dbt build: 4 success"
        [node] = xcom(stack, tasks["core.trial_mark"])["nodes"]
        assert node["rows_affected"] == 1
    rows = stack.query("select marker, invocation from dev.trial_mark where marker <> 'none'")
    assert sorted(marker for marker, _ in rows) == sorted(markers)
    assert len({invocation for _, invocation in rows}) == len(markers)
