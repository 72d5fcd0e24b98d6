"""What a build does to the tasks of its run in Airflow's database, and what users' hands do to both."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from airflow.utils.state import TaskInstanceState
from sqlalchemy.orm import Session

from orrery.config.stages import BUILD
from orrery.execute.channel import (
    HELD,
    HOLD,
    NODE_OPERATOR,
    ORPHANED,
    PUBLISH,
    REBUILD,
    RELEASE,
    SETTLE,
    Answer,
    NodeState,
    Update,
)
from orrery.execute.listener import on_task_instance_failed
from orrery.execute.node import BuiltNodeOperator
from unit.execute.airflow_run import AirflowRun, database, news

CHAIN: dict[str, list[str]] = {"c1": [], "c2": ["c1"], "c3": ["c2"], "c4": ["c3"]}


@pytest.fixture
def session() -> Iterator[Session]:
    with database() as session:
        yield session


@pytest.fixture
def run(session: Session) -> AirflowRun:
    """A chain of four; a build is at work and holds them all."""
    made = AirflowRun(session, CHAIN)
    made.begin_build()
    hold(made)
    return made


def hold(run: AirflowRun) -> dict[str, dict[str, object]]:
    """Hold all nodes; returns the tries that the build has."""
    tasks = list(run.graph.parents)
    message = {"tasks": tasks, "host": "worker", "pid": 7, "graph": run.graph.as_text()}
    run.store().set(HOLD, message)
    found: dict[str, dict[str, object]] = run.store().get(HELD)
    return found


def publish(run: AirflowRun, *updates: Update) -> None:
    run.store().set(PUBLISH, {"updates": [update.as_dict() for update in updates], "alive": False})


def ends(run: AirflowRun, **states: str) -> None:
    """Publish what dbt has made of tasks, one after the other."""
    for task_id, state in states.items():
        publish(run, news(task_id, "running"))
        publish(run, news(task_id, state))


def test_nodes_are_known_by_their_operator(run: AirflowRun) -> None:
    assert BuiltNodeOperator.__name__ == NODE_OPERATOR == run.ti("c1").operator


def test_a_build_ends_its_tasks(run: AirflowRun) -> None:
    assert set(run.states().values()) == {"deferred"}
    ends(run, c1="success", c2="success", c3="success", c4="success")
    assert set(run.states().values()) == {"success"}
    assert [run.tries(tid) for tid in CHAIN] == [[1]] * 4


def test_a_waiting_task_that_is_cleared_is_the_builds_again_when_it_is_held(run: AirflowRun) -> None:
    ends(run, c1="success")
    run.clear("c3")
    ends(run, c2="success", c3="success")
    assert run.states() == {"c1": "success", "c2": "success", "c3": None, "c4": "deferred"}
    held = hold(run)
    assert held["c3"]["number"] == 2
    ends(run, c3="success", c4="success")
    assert set(run.states().values()) == {"success"}


def test_cleared_with_downstream_while_its_child_runs_all_run_again(run: AirflowRun) -> None:
    ends(run, c1="success")
    publish(run, news("c2", "running"))
    assert run.clear("c1", down=True) == set(CHAIN)
    assert run.ti("c2").state == "restarting"
    ends(run, c2="success", c3="success", c4="success")
    assert set(run.states().values()) == {None}
    assert {tid: held["number"] for tid, held in hold(run).items()} == dict.fromkeys(CHAIN, 2)


def test_what_ends_while_its_ancestor_is_cleared_runs_again(run: AirflowRun) -> None:
    ends(run, c1="success", c2="success")
    publish(run, news("c3", "running"))
    run.clear("c1")
    # c2 had ended before: it keeps its success, as in Airflow.
    ends(run, c3="success", c4="success")
    assert run.states() == {"c1": None, "c2": "success", "c3": None, "c4": None}
    assert {tid: held["number"] for tid, held in hold(run).items()} == {"c1": 2, "c3": 2, "c4": 2}
    assert run.tries("c3") == [1, 2]
    ends(run, c1="success", c3="success", c4="success")
    assert set(run.states().values()) == {"success"}


def test_a_failure_on_data_from_before_does_not_count_either(run: AirflowRun) -> None:
    ends(run, c1="success")
    publish(run, news("c2", "running"))
    run.clear("c1")
    publish(run, news("c2", "failed"), news("c3", "upstream_failed"), news("c4", "upstream_failed"))
    assert run.states() == {"c1": None, "c2": None, "c3": None, "c4": None}


@pytest.mark.parametrize("at_once", [True, False])
def test_a_failure_holds_back_what_descends_from_it(run: AirflowRun, at_once: bool) -> None:
    ends(run, c1="success")
    batch = [news("c2", "failed"), news("c3", "upstream_failed", note="c2 failed"), news("c4", "skipped")]
    if at_once:
        publish(run, *batch[:2])
    else:
        for each in batch[:2]:
            publish(run, each)
    # What the run leaves out must not hide the failure.
    publish(run, batch[2])
    run.work()
    assert run.states() == {"c1": "success", "c2": "failed", "c3": "upstream_failed", "c4": "upstream_failed"}
    assert run.note("c3") == "c2 failed"
    run.end_build("success")
    assert run.schedule() == "failed"


@pytest.mark.parametrize("marked", ["c2", "c3"])
def test_marked_as_failed_while_the_build_is_at_work(run: AirflowRun, marked: str) -> None:
    ends(run, c1="success")
    publish(run, news("c2", "running"))
    run.mark(marked, "failed")
    ends(run, c2="success", c3="success", c4="success")
    states = {"c1": "success", "c2": "success", "c3": "upstream_failed", "c4": "upstream_failed"}
    assert run.states() == states | {marked: "failed"}
    assert run.note("c4").startswith(f"{marked} has failed or was marked failed")
    run.end_build("success")
    assert run.schedule() == "failed"


def test_marked_as_success_while_it_runs(run: AirflowRun) -> None:
    ends(run, c1="success")
    publish(run, news("c2", "running"))
    run.mark("c2", "success")
    publish(run, news("c2", "failed"))
    ends(run, c3="success", c4="success")
    assert set(run.states().values()) == {"success"}


def test_edges_that_airflow_does_not_know_count(session: Session) -> None:
    run = AirflowRun(session, {"x": [], "y": ["x"]}, hidden=[("x", "y")])
    run.begin_build()
    hold(run)
    ends(run, x="success")
    run.mark("x", "failed")
    ends(run, y="success")
    assert run.states() == {"x": "failed", "y": "upstream_failed"}


def test_a_try_says_whether_it_is_the_last(session: Session) -> None:
    run = AirflowRun(session, {"a": []}, retries=1)
    run.begin_build()
    first = hold(run)["a"]
    assert (first["number"], first["last"]) == (1, False)
    ends(run, a="failed")
    run.work()
    assert run.ti("a").state == "up_for_retry"
    run.end_build("success")
    run.schedule()
    run.work()
    assert run.ti("a").state == "up_for_reschedule"
    run.begin_build()
    second = hold(run)["a"]
    assert (second["number"], second["last"]) == (2, True)
    assert str(second["since"]) > str(first["since"])
    ends(run, a="failed")
    run.work()
    assert run.states() == {"a": "failed"}
    assert run.tries("a") == [1, 2]


def test_a_task_that_is_to_be_tried_again_does_not_end_its_descendants(session: Session) -> None:
    run = AirflowRun(session, {"a": [], "b": ["a"]}, retries=1)
    run.begin_build()
    hold(run)
    ends(run, a="failed")
    publish(run, news("b", "upstream_failed"))
    assert run.states() == {"a": "scheduled", "b": None}
    assert run.ti("b").try_number == 0


def test_numbers_of_tries_go_back_with_what_is_given_back(run: AirflowRun) -> None:
    publish(run, news("c1", "running"))
    run.store().set(RELEASE, {"reason": "it was stopped.", "final": False})
    assert set(run.states().values()) == {None}
    assert [run.ti(tid).try_number for tid in CHAIN] == [0] * 4
    # A worker has one, which is Airflow's first try of it; then a build takes it, and gives it back.
    run.end_build("success")
    run.schedule()
    run.work()
    assert run.states()["c1"] == "up_for_reschedule"
    assert hold(run)["c1"]["number"] == 1
    publish(run, Update("c1", NodeState.RELEASED))
    assert run.ti("c1").try_number == 0


def test_a_node_asks_for_a_build_and_one_is_coming(run: AirflowRun) -> None:
    ends(run, c1="success", c2="success", c3="success", c4="success")
    run.end_build("success")
    run.clear("c2")
    run.schedule()
    run.work()
    assert run.states()["c2"] == "up_for_reschedule"
    assert run.ti(BUILD).state is None
    assert run.store("c2").get(REBUILD) == {"answer": Answer.COMING}


def test_a_build_that_was_killed_for_good_ends_what_is_left(run: AirflowRun) -> None:
    ends(run, c1="success")
    publish(run, news("c2", "running"))
    run.set(BUILD, try_number=3)
    run.end_build("failed")
    # Nothing is heard from it any more, so Airflow resumes what waits.
    for task_id in ("c3", "c4"):
        run.set(task_id, state="scheduled", next_method="__fail__")
    run.set("c3", state="running", unixname="airflow")
    run.store("c3").set(ORPHANED, {})
    left = {"c2", "c3", "c4"}
    assert run.states() == {"c1": "success", **dict.fromkeys(left, "upstream_failed")}
    for task_id in left:
        assert run.note(task_id).startswith("The task 'build' has failed for good, after 3 tries;")
        assert "./orrery retry shop --failed" in run.note(task_id)
    answer = run.store("c3").get(ORPHANED)
    assert answer == {"answer": Answer.OVER, "why": run.note("c3")}
    assert run.schedule() == "failed"
    assert run.ti(BUILD).state == "failed"
    assert [run.tries(tid) for tid in CHAIN] == [[1]] * 4


def test_a_build_that_still_has_tries_keeps_its_tasks(run: AirflowRun) -> None:
    run.set(BUILD, state="up_for_retry")
    run.set("c3", state="scheduled", next_method="__fail__")
    run.store("c3").set(ORPHANED, {})
    assert set(run.states().values()) == {"deferred"}
    assert run.ti(BUILD).state == "up_for_retry"


def test_a_build_that_is_marked_failed_stays_stopped(run: AirflowRun) -> None:
    ends(run, c1="success")
    publish(run, news("c2", "running"))
    run.mark(BUILD, "failed")
    run.store().set(RELEASE, {"reason": "it was stopped.", "final": False})
    assert run.states() == {"c1": "success", **dict.fromkeys(["c2", "c3", "c4"], "upstream_failed")}
    assert run.note("c2").startswith("The task 'build' was stopped before this task had ended.")
    assert run.schedule() == "failed"
    assert run.ti(BUILD).state == "failed"


def test_what_asks_after_a_build_was_marked_failed_is_ended(run: AirflowRun) -> None:
    """The build could not say a word: its tasks were given back before, and come one by one."""
    ends(run, c1="success")
    run.store().set(RELEASE, {"reason": "it was stopped.", "final": False})
    run.mark(BUILD, "failed")
    assert run.schedule() == "running"
    run.work()
    assert run.states() == {"c1": "success", **dict.fromkeys(["c2", "c3", "c4"], "upstream_failed")}
    assert run.ti(BUILD).state == "failed"


def test_what_was_cleared_after_the_end_of_a_failed_build_has_it_run_again(run: AirflowRun) -> None:
    ends(run, c1="success")
    run.mark(BUILD, "failed")
    run.store().set(RELEASE, {"reason": "it was stopped.", "final": False})
    run.schedule()
    run.set(BUILD, end_date=run.ti(BUILD).end_date - timedelta(minutes=1))
    run.clear("c2")
    run.schedule()
    run.work()
    assert run.states()["c2"] == "up_for_reschedule"
    assert run.ti(BUILD).state is None


def test_a_build_that_is_marked_as_success_comes_back_for_what_waits(run: AirflowRun) -> None:
    ends(run, c1="success")
    run.mark(BUILD, "success")
    run.store().set(RELEASE, {"reason": "it was stopped.", "final": False})
    assert run.states() == {"c1": "success", "c2": None, "c3": None, "c4": None}
    run.schedule()
    run.work()
    assert run.ti(BUILD).state is None
    assert run.states()["c2"] == "up_for_reschedule"


@pytest.mark.parametrize(("final", "tries"), [(True, 1), (False, 3)])
def test_a_build_that_fails_for_good_says_why_at_each_task(run: AirflowRun, final: bool, tries: int) -> None:
    ends(run, c1="success")
    run.set(BUILD, try_number=tries)
    run.store().set(RELEASE, {"reason": "no space left", "final": final})
    assert run.states() == {"c1": "success", **dict.fromkeys(["c2", "c3", "c4"], "upstream_failed")}
    assert run.note("c4").startswith("The task 'build' has failed for good: no space left")
    assert run.note("c4").endswith("./orrery retry shop --failed") == (not final)


@pytest.mark.parametrize("state", ["failed", "up_for_retry", "running"])
def test_when_airflow_makes_a_build_failed_its_nodes_end_with_it(run: AirflowRun, state: str) -> None:
    ends(run, c1="success")
    build = run.ti(BUILD)
    build.state = TaskInstanceState(state)
    on_task_instance_failed(task_instance=build)
    left = {tid: found for tid, found in run.states().items() if tid in ("c2", "c3", "c4")}
    if state == "failed":
        assert left == dict.fromkeys(["c2", "c3", "c4"], "upstream_failed")
        assert run.note("c4").startswith("The task 'build' was stopped before this task had ended.")
    else:
        assert "upstream_failed" not in left.values()


def built(run: AirflowRun) -> None:
    """The chain has been built, and the build has ended."""
    ends(run, **dict.fromkeys(CHAIN, "success"))
    run.set(BUILD, state="success")


def settle(run: AirflowRun) -> None:
    run.store().set(SETTLE, {})


def test_what_was_built_on_a_node_that_is_then_marked_as_failed_is_no_success(run: AirflowRun) -> None:
    built(run)
    run.mark("c2", "failed")
    settle(run)
    assert run.states() == {"c1": "success", "c2": "failed", "c3": "upstream_failed", "c4": "upstream_failed"}
    assert run.note("c3") == "c2 has failed or was marked failed since this was built on what it was before."


def test_what_is_marked_as_success_after_the_failure_stays_one(run: AirflowRun) -> None:
    built(run)
    run.mark("c2", "failed")
    run.mark("c4", "success")
    run.set("c4", updated_at=run.ti("c2").updated_at + timedelta(seconds=1))
    settle(run)
    assert run.states() == {"c1": "success", "c2": "failed", "c3": "upstream_failed", "c4": "success"}


@pytest.mark.parametrize("last", [True, False])
def test_what_a_node_was_built_on_falls_only_with_its_last_try(run: AirflowRun, last: bool) -> None:
    built(run)
    run.set("c2", state="scheduled", next_method="fail", try_number=1, max_tries=0 if last else 2)
    settle(run)
    assert run.states()["c3"] == ("upstream_failed" if last else "success")


def test_no_build_comes_for_a_node_that_waits_for_a_worker(session: Session) -> None:
    """As dbt sees it: Airflow does not know the edge, and has the node ask again and again."""
    run = AirflowRun(session, {"x": [], "y": ["x"], "z": []}, hidden=[("x", "y")])
    run.begin_build()
    hold(run)
    ends(run, x="success", y="success", z="success")
    run.end_build("success")
    run.set("x", state="up_for_retry")
    run.clear("y", "z")
    run.set("y", state="running")
    run.store("y").set(REBUILD, {})
    assert run.ti(BUILD).state == "success"
    run.set("z", state="running")
    run.store("z").set(REBUILD, {})
    assert run.ti(BUILD).state is None


def test_the_graph_survives(run: AirflowRun) -> None:
    """A later message need not tell it again."""
    run.store().set(HOLD, {"tasks": list(CHAIN), "host": "worker", "pid": 7})
    ends(run, c1="success")
    run.mark("c1", "failed")
    ends(run, c2="success")
    assert run.states()["c2"] == "upstream_failed"
