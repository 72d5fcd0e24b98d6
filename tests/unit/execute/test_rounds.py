"""Which tasks dbt runs in which round, in a real metadata database, whatever users do meanwhile."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sqlalchemy.orm import Session

from orrery.config.stages import BUILD
from orrery.execute import rounds as module
from orrery.execute.airflow_tasks import AirflowTasks
from orrery.execute.channel import PUBLISH, Try, Update
from orrery.execute.journal import Journal
from orrery.execute.publisher import Publisher
from orrery.execute.rounds import Rounds
from orrery.execute.tally import Tally
from unit.execute.airflow_run import DAG_ID, RUN_ID, AirflowRun, database, news

ENDED = ("success", "skipped", "failed", "upstream_failed")
CHAIN: dict[str, list[str]] = {"c1": [], "c2": ["c1"], "c3": ["c2"], "c4": ["c3"]}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody works here while a build waits."""
    monkeypatch.setattr(module, "_SETTLE", 0.0)


@pytest.fixture
def session() -> Iterator[Session]:
    with database() as session:
        yield session


@dataclass
class Publishing:
    """Publishes at once."""

    run: AirflowRun
    dead: bool = False

    def add(self, update: Update) -> None:
        if not self.dead:
            self.run.store().set(PUBLISH, {"updates": [update.as_dict()], "alive": False})

    def flush(self) -> None:
        pass


class Killed(Exception):
    """The process of the build is gone."""


@dataclass
class Dbt:
    """Runs tasks in the order of the graph, one by one.

    `fails` are the tasks that fail. `during` is called while each task is at work, and `after` when it has
    ended.
    """

    run: AirflowRun
    folder: Path
    fails: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    during: Callable[[str], None] = lambda _: None
    after: Callable[[str], None] = lambda _: None
    built: list[str] = field(default_factory=list)
    rounds: list[set[str]] = field(default_factory=list)

    def build(self) -> None:
        """One try of the build, from its begin to its end."""
        self.run.begin_build()
        publishing = self.publishing = Publishing(self.run)
        journal = Journal(self.folder, publishing)
        tally = Tally(journal)
        ti = SimpleNamespace(dag_id=DAG_ID, run_id=RUN_ID, hostname="worker", get_task_states=self._states)
        airflow = AirflowTasks(ti, self.run.store(), cast(Publisher, publishing))
        rounds = Rounds(airflow, self.run.graph, self.run.graph.parents, tally, journal)
        while tries := rounds.next():
            self.rounds.append(set(tries))
            self._command(tries, tally)
        journal.clear()
        self.run.end_build("success")

    def _command(self, tries: Mapping[str, Try], tally: Tally) -> None:
        failed: set[str] = set()
        for task_id in self.run.graph.ordered():
            if task_id not in tries or task_id in self.unknown:
                continue
            bad = failed & self.run.graph.ancestors([task_id])
            if bad:
                tally.hold_back(task_id, "dbt has skipped it.")
                continue
            tally.add(news(task_id, "running"))
            self.during(task_id)
            self.built.append(task_id)
            if task_id in self.fails:
                failed.add(task_id)
            tally.add(news(task_id, "failed" if task_id in self.fails else "success"))
            self.after(task_id)

    def _states(self, **_: Any) -> dict[str, dict[str, str | None]]:
        return {RUN_ID: self.run.states()}


def at(task_id: str, act: Callable[[], object]) -> Callable[[str], None]:
    """Does something once, when a task's turn has come."""
    left = [act]
    return lambda tid: left.pop()() and None if tid == task_id and left else None


def make(
    session: Session, tmp_path: Path, parents: Mapping[str, Collection[str]] = CHAIN, **more: Any
) -> Dbt:
    return Dbt(AirflowRun(session, parents, **more), tmp_path)


def test_all_run_once(session: Session, tmp_path: Path) -> None:
    dbt = make(session, tmp_path)
    dbt.build()
    assert dbt.rounds == [set(CHAIN)]
    assert set(dbt.run.states().values()) == {"success"}
    assert dbt.run.schedule() == "success"


def test_cleared_with_downstream_while_a_child_runs(session: Session, tmp_path: Path) -> None:
    dbt = make(session, tmp_path)
    dbt.during = at("c2", lambda: dbt.run.clear("c1", down=True))
    dbt.build()
    assert dbt.built == ["c1", "c2", "c3", "c4", "c1", "c2", "c3", "c4"]
    assert set(dbt.run.states().values()) == {"success"}


def test_one_cleared_while_others_wait_for_it(session: Session, tmp_path: Path) -> None:
    dbt = make(session, tmp_path)
    dbt.during = at("c3", lambda: dbt.run.clear("c1"))
    dbt.build()
    # c2 had ended, and is not cleared.
    assert dbt.rounds == [set(CHAIN), {"c1", "c3", "c4"}]
    assert set(dbt.run.states().values()) == {"success"}


def test_a_failed_one_marked_as_success_has_its_descendants_built(session: Session, tmp_path: Path) -> None:
    dbt = make(session, tmp_path, retries=1)
    dbt.fails = {"c2"}

    def mark() -> None:
        dbt.run.work()
        dbt.run.mark("c2", "success")

    dbt.after = at("c2", mark)
    dbt.build()
    assert dbt.rounds == [set(CHAIN), {"c3", "c4"}]
    assert set(dbt.run.states().values()) == {"success"}


@pytest.mark.parametrize("marked", ["c2", "c3"])
def test_marked_as_failed(session: Session, tmp_path: Path, marked: str) -> None:
    dbt = make(session, tmp_path)
    dbt.during = at("c2", lambda: dbt.run.mark(marked, "failed"))
    dbt.build()
    below = {"c3", "c4"} - {marked}
    assert {tid for tid, state in dbt.run.states().items() if state == "upstream_failed"} == below
    assert dbt.run.schedule() == "failed"


def test_what_waits_for_a_retry_waits(session: Session, tmp_path: Path) -> None:
    dbt = make(session, tmp_path, retries=1)
    dbt.fails = {"c2"}
    dbt.build()
    assert dbt.run.states() == {"c1": "success", "c2": "scheduled", "c3": None, "c4": None}
    dbt.run.work()
    dbt.run.schedule()
    dbt.run.work()
    assert dbt.run.ti(BUILD).state is None
    dbt.fails = set()
    dbt.build()
    assert dbt.rounds == [set(CHAIN), {"c2", "c3", "c4"}]
    assert set(dbt.run.states().values()) == {"success"}


def test_the_last_failure_ends_what_descends_from_it(session: Session, tmp_path: Path) -> None:
    dbt = make(session, tmp_path)
    dbt.fails = {"c2"}
    dbt.build()
    assert dbt.run.states() == {
        "c1": "success",
        "c2": "scheduled",
        "c3": "upstream_failed",
        "c4": "upstream_failed",
    }
    assert dbt.run.note("c4") == "c2 has failed."


def test_what_descends_from_a_failed_one_is_not_built_though_airflow_sees_no_edge(
    session: Session, tmp_path: Path
) -> None:
    dbt = make(session, tmp_path, {"x": [], "y": ["x"]}, hidden=[("x", "y")])
    dbt.fails = {"x"}
    dbt.build()
    dbt.run.work()
    dbt.run.clear("y")
    dbt.build()
    assert dbt.built == ["x"]
    assert dbt.run.states() == {"x": "failed", "y": "upstream_failed"}


def test_what_dbt_never_runs_ends_with_a_reason(session: Session, tmp_path: Path) -> None:
    dbt = make(session, tmp_path)
    dbt.unknown = {"c3"}
    dbt.build()
    assert dbt.rounds == [set(CHAIN), {"c3"}]
    assert dbt.run.states()["c3"] == "upstream_failed"
    assert dbt.run.note("c3").startswith("dbt did not run it")


def killed_with_c2(session: Session, tmp_path: Path) -> Dbt:
    """A build that was killed when c2 had ended, of which Airflow has not heard."""
    dbt = make(session, tmp_path)

    def die() -> None:
        dbt.publishing.dead = True

    def killed() -> None:
        raise Killed

    dbt.during, dbt.after = at("c2", die), at("c2", killed)
    with pytest.raises(Killed):
        dbt.build()
    return dbt


def test_what_has_ended_before_a_kill_does_not_run_again(session: Session, tmp_path: Path) -> None:
    dbt = killed_with_c2(session, tmp_path)
    assert dbt.run.states()["c2"] == "running"
    with next(tmp_path.glob("journal*")).open("a") as file:
        file.write('{"number": 1, "update": {"task_id": "c3", "sta')
    dbt.build()
    assert dbt.built == ["c1", "c2", "c3", "c4"]
    assert set(dbt.run.states().values()) == {"success"}
    assert [dbt.run.tries(tid) for tid in CHAIN] == [[1]] * 4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("cleared", ["c1", "c2"])
def test_what_was_cleared_after_a_kill_runs_again(session: Session, tmp_path: Path, cleared: str) -> None:
    dbt = killed_with_c2(session, tmp_path)
    dbt.run.clear(cleared)
    dbt.build()
    assert dbt.built == ["c1", "c2", *(["c1"] if cleared == "c1" else []), "c2", "c3", "c4"]
    assert set(dbt.run.states().values()) == {"success"}


class Hands:
    """Clears and marks tasks at random while they run, and knows which of their successes count.

    Whatever has not ended when something that it descends from is cleared, fails or is marked as failed, may
    succeed only with data from after the next success of that.
    """

    def __init__(self, dbt: Dbt, chance: random.Random) -> None:
        self._dbt, self._chance = dbt, chance
        self._left = chance.randint(1, 5)
        self._clock = 0
        self._began: dict[str, int] = {}
        # Of each task: when it succeeded, and when what counts as its success began.
        self._succeeded: dict[str, list[int]] = {task_id: [] for task_id in dbt.run.graph.parents}
        self._rests_on: dict[str, int] = {}
        self._owed: list[tuple[str, str, int]] = []
        self.told: list[str] = []
        dbt.during, dbt.after = self._during, self._after

    def _during(self, task_id: str) -> None:
        self._began[task_id] = self._tick()
        self._dbt.fails.discard(task_id)
        if self._chance.random() < 0.1:
            self._dbt.fails.add(task_id)
        self.act()

    def _after(self, task_id: str) -> None:
        run, now = self._dbt.run, self._tick()
        if task_id in self._dbt.fails:
            self.told.append(f"{now}: {task_id} fails, {run.states()[task_id]}")
            self._disturb({task_id})
        elif run.states()[task_id] == "success" and self._rests_on.get(task_id, 0) < self._began[task_id]:
            self._succeeded[task_id].append(now)
            self._rests_on[task_id] = self._began[task_id]
            self.told.append(f"{now}: {task_id} succeeds")
        self.act()

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def act(self) -> None:
        """Perhaps do something to a task."""
        if not self._left or self._chance.random() > 0.2:
            return
        self._left -= 1
        run = self._dbt.run
        task_id = self._chance.choice(sorted(run.graph.parents))
        act = self._chance.choice(["clear", "clear down", "failed", "success"])
        before = run.states()
        self.told.append(f"{self._tick()}: {act} {task_id} in {before}")
        if act.startswith("clear"):
            cleared = {task_id} | (run.dag_descendants([task_id]) if act == "clear down" else set())
            self._disturb(cleared)
            run.clear(*cleared)
        elif before[task_id] != act:
            if act == "failed":
                self._disturb({task_id})
            run.mark(task_id, act)
            if act == "success":
                self._succeeded[task_id].append(self._tick())
                self._rests_on[task_id] = self._clock

    def _disturb(self, task_ids: set[str]) -> None:
        run, now = self._dbt.run, self._tick()
        states = run.states()
        for task_id in task_ids:
            for other in run.graph.descendants([task_id]):
                if other in task_ids or states[other] not in (
                    "success",
                    "skipped",
                    "failed",
                    "upstream_failed",
                ):
                    self._owed.append((other, task_id, now))

    def wrong(self) -> list[str]:
        """The successes that rest on data from before."""
        states = self._dbt.run.states()
        return [
            f"{task_id}: {cause} was disturbed at {when}"
            for task_id, cause, when in self._owed
            if states[task_id] == "success"
            and self._rests_on[task_id] <= min((t for t in self._succeeded[cause] if t > when), default=10**9)
        ]


@pytest.mark.parametrize("seed", range(12))
def test_no_success_rests_on_data_from_before(session: Session, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    names = [f"t{number}" for number in range(chance.randint(3, 7))]
    parents = {
        name: chance.sample(names[:at], min(at, chance.randint(0, 2))) for at, name in enumerate(names)
    }
    hidden = [(other, name) for name, above in parents.items() for other in above if chance.random() < 0.2]
    dbt = make(session, tmp_path, parents, hidden=hidden, retries=chance.randint(0, 1))
    hands = Hands(dbt, chance)
    for _ in range(60):
        if dbt.run.ti(BUILD).state in (None, "scheduled"):
            dbt.build()
        hands.act()
        if dbt.run.schedule() != "running":
            break
        dbt.run.work()
    story = "\n".join([f"{parents} {hidden}", *hands.told, str(dbt.rounds), str(dbt.run.states())])
    assert dbt.run.schedule() in ("success", "failed"), story
    assert not hands.wrong(), story
    for name in names:
        # One that was cleared and then marked has, as in Airflow, the number of the try before.
        *over, last = dbt.run.tries(name)
        assert len(over) == len(set(over)), story
        assert 0 <= max(over, default=0) <= last, story
