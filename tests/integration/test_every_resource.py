"""Every kind of node is run as `dbt build` runs it: real dbt, a real PostgreSQL, no Airflow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException
from cosmos.exceptions import CosmosDbtRunError

from conftest import own_environment, write_files
from orrery.config.loader import load_pipelines
from orrery.config.project import Project
from orrery.config.resources import type_of
from orrery.config.stages import BUILD
from orrery.execute.assignment import Assignment
from orrery.execute.channel import NodeState, Try, Update
from orrery.execute.collector import Line
from orrery.execute.dbt_run import DbtRun
from orrery.execute.invocation import now
from orrery.execute.node import PerModelOperator
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY
from orrery.execute.tally import Tally
from orrery.manifest.build import build_manifests
from orrery.manifest.dbt import Dbt
from orrery.manifest.store import ManifestStore
from orrery.plan.model import PipelinePlan, TaskKind
from orrery.plan.planner import plan_pipeline
from support import kinds
from support.tasks import store_of

pytestmark = pytest.mark.integration

_ALL = 'select: ["*", "source:*"]\nstale: warn\n'
PIPELINES = {"gate": _ALL, "end": f"{_ALL}tests: end\n"}
# The source that is older than its error_after, its check and what reads it.
CHECK, READER = "source_freshness.app__old", "core.reads_old"
# dbt has results of these, and did nothing for them.
NOTHING = ("exposure", "saved_query", "operation")


@dataclass
class Heard:
    """What a build tells of its tasks."""

    updates: dict[str, Update] = field(default_factory=dict)

    def add(self, update: Update) -> None:
        self.updates[update.task_id] = update

    def write(self, task_id: str, try_number: int, lines: Iterable[Line]) -> None:
        pass

    @property
    def states(self) -> dict[str, NodeState]:
        return {task_id: update.state for task_id, update in self.updates.items()}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, postgres_uri: str) -> Iterator[Project]:
    """The project, with the tables of its sources in the warehouse."""
    root = tmp_path_factory.mktemp("kinds") / "project"
    pipelines = {f"dbt/pipelines/{name}.yml": text for name, text in PIPELINES.items()}
    write_files(root, {**kinds.files(postgres_uri, "kinds"), **pipelines})
    with pytest.MonkeyPatch.context() as patch:
        own_environment(patch)
        patch.setenv("ORRERY_PROJECT_DIR", str(root))
        project = Project(root)
        assert build_manifests(project, lambda _: None).errors == {}
        dbt = Dbt(project)
        build(dbt, select=("raw",), indirect_selection="empty")
        build(dbt, select=("+alias", "+snap"), indirect_selection="empty")
        yield project


def build(dbt: Dbt, **arguments: Any) -> None:
    """Run `dbt build`, which has to succeed."""
    told: list[str] = []

    def listen(event: Any) -> None:
        if event.info.level == "error":
            told.append(str(event.info.msg))

    assert dbt.run(["build"], listen, **arguments).success, "\n".join(told)


@pytest.fixture(scope="module")
def dbt_build(project: Project) -> dict[str, str]:
    """What `dbt build` says of each node, by unique id."""
    build(Dbt(project))
    document = json.loads((project.target_dir / "run_results.json").read_bytes())
    return {
        result["unique_id"]: result["status"]
        for result in document["results"]
        if type_of(result["unique_id"]) not in NOTHING
    }


def plan_of(project: Project, name: str) -> PipelinePlan:
    return plan_pipeline(load_pipelines(project).valid[name], ManifestStore(project).read(name))


def run(plan: PipelinePlan, *tasks: str, variables: Any = None) -> tuple[Heard, DbtRun]:
    """Have a build run tasks, by default all that dbt has a part in."""
    options = RunOptions(variables=variables)
    ti = SimpleNamespace(run_id=f"run_{len(tasks)}", log_url="https://airflow.example.com")
    assignment = Assignment.of(plan, options, ti, began=now().isoformat(), batches={})
    heard = Heard()
    build = DbtRun(assignment, Tally(heard), heard)
    build.begin()
    build.run(dict.fromkeys(tasks or assignment.built, Try(1)))
    build.end()
    build.close()
    return heard, build


@pytest.mark.parametrize("name", PIPELINES)
def test_a_build_runs_what_dbt_build_runs(project: Project, dbt_build: dict[str, str], name: str) -> None:
    plan = plan_of(project, name)
    heard, build = run(plan)
    results = {
        node["unique_id"]: node["status"]
        for task_id, update in heard.updates.items()
        if plan.tasks[task_id].kind not in (TaskKind.FRESHNESS, TaskKind.HOOK)
        for node in (update.result or (update.failure or {}).get("result") or {"nodes": []})["nodes"]
    }
    assert results == dbt_build
    assert set(heard.states.values()) == {NodeState.SUCCESS}
    assert set(build.warnings) == {CHECK}
    shown = heard.updates["function.above"].rendered or {}
    assert "select count(*) from" in shown["compiled_sql"]


@pytest.mark.usefixtures("dbt_build")
def test_unit_tests_run_without_their_models(project: Project) -> None:
    units = ("tests.dim__unit", "tests.eph__unit", "tests.ver_v2__unit")
    # Alone, and beside other nodes.
    for tasks in (units, (*units, "core.unread", "core.after_eph")):
        heard, _ = run(plan_of(project, "gate"), *tasks)
        assert heard.states == dict.fromkeys(tasks, NodeState.SUCCESS)


def test_a_run_says_which_nodes_its_vars_enable_in_vain(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    heard, build = run(plan_of(project, "gate"), "core.unread", variables={"more": True})
    assert heard.states == {"core.unread": NodeState.SUCCESS}
    told = build.warnings[BUILD]
    assert told == (
        "The vars of this run enable nodes for which the DAG has no tasks, so they do not run: model"
        " with_vars, test of_with_vars. Write the vars into the pipeline's file for them to have tasks."
    )
    assert told in caplog.text
    # Vars that enable nothing are no news.
    assert run(plan_of(project, "gate"), "core.unread", variables={"other": 1})[1].warnings == {}


class Ti(SimpleNamespace):
    """A task instance, as far as a task that runs dbt for itself uses it."""

    def __init__(self, xcoms: dict[str, Any], task_id: str) -> None:
        super().__init__(
            dag_id="gate",
            run_id="single",
            task_id=task_id,
            try_number=1,
            log_url="",
            map_index=-1,
            xcoms=xcoms,
        )

    def xcom_push(self, key: str, value: Any) -> None:
        if key == RESULT_KEY:
            self.xcoms[self.task_id] = value

    def xcom_pull(self, *, task_ids: str, **_: Any) -> Any:
        return self.xcoms.get(task_ids)


class Single:
    """Tasks of a pipeline that run dbt for themselves, each in its turn."""

    def __init__(self, plan: PipelinePlan, stale: str = "fail", variables: Any = None) -> None:
        self.plan, self.stale, self.variables = plan, stale, variables
        self.xcoms: dict[str, Any] = {}
        self.stores: dict[str, dict[str, Any]] = {}

    def run(self, task_id: str, *checks: str) -> dict[str, Any]:
        """Run a task; returns what it reports."""
        task = self.plan.tasks[task_id]
        operator = PerModelOperator(
            task_id=task.name,
            kind=task.kind,
            stage=task.stage,
            nodes=task.nodes,
            stale=self.stale,
            checks=checks,
        )
        store = self.stores.setdefault(task_id, {})
        context: Any = {
            "ti": Ti(self.xcoms, task_id),
            "run_id": "single",
            "task": operator,
            "dag": SimpleNamespace(task_ids=[*self.plan.tasks], params={}),
            "dag_run": SimpleNamespace(conf={}),
            "params": {"vars": self.variables},
            "task_state_store": store_of(store),
        }
        self.xcoms.pop(task_id, None)
        operator.execute(context)
        return dict(self.xcoms[task_id])


def ran(result: dict[str, Any]) -> dict[str, str]:
    """The status of each node, without hooks."""
    nodes = {node["unique_id"]: node["status"] for node in result["nodes"]}
    return {uid: status for uid, status in nodes.items() if type_of(uid) != "operation"}


@pytest.mark.parametrize(
    ("task_id", "expected"),
    [
        ("core.folder", {"model.kinds.folder": "success"}),
        ("core.ver_v2", {"model.kinds.ver.v2": "success"}),
        ("core.dotted_name", {"model.kinds.dotted.name": "success"}),
        ("function.is_even", {"function.kinds.is_even": "success"}),
        ("tests.eph__unit", {"unit_test.kinds.eph.of_eph": "pass"}),
        ("source_freshness.app__fresh", {"source.kinds.app.fresh": "pass"}),
    ],
)
@pytest.mark.usefixtures("dbt_build")
def test_a_task_for_itself_runs_its_node_and_no_other(
    project: Project, task_id: str, expected: dict[str, str]
) -> None:
    assert ran(Single(plan_of(project, "gate")).run(task_id)) == expected


def test_a_node_that_dbt_does_not_know_in_a_run_is_skipped(project: Project) -> None:
    plan = plan_of(project, "gate")
    gone = replace(plan.tasks["core.unread"], task_id="core.gone", nodes=("model.kinds.gone",))
    single = Single(replace(plan, tasks={"core.gone": gone}))
    with pytest.raises(AirflowSkipException, match="dbt has no such node in this run"):
        single.run("core.gone")
    assert single.xcoms["core.gone"]["status"] == "skipped"


@pytest.mark.usefixtures("dbt_build")
def test_a_task_for_itself_treats_a_stale_source_as_the_pipeline_says(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(project, "gate")
    with pytest.raises(CosmosDbtRunError):
        Single(plan, "fail").run(CHECK)

    assert ran(Single(plan, "warn").run(CHECK)) == {"source.kinds.app.old": "error"}
    assert "The source is stale: loaded" in capsys.readouterr().out

    single = Single(plan, "skip")
    with pytest.raises(AirflowSkipException, match="The source is stale: loaded"):
        single.run(CHECK)
    with pytest.raises(AirflowSkipException, match="The source app__old is stale: loaded"):
        single.run(READER, CHECK)
    assert single.xcoms[READER]["status"] == "skipped"
    # Who clears the node alone wants it built.
    assert ran(single.run(READER, CHECK)) == {"model.kinds.reads_old": "success"}
    # But a new check counts anew.
    with pytest.raises(AirflowSkipException):
        single.run(CHECK)
    with pytest.raises(AirflowSkipException, match="The source app__old is stale"):
        single.run(READER, CHECK)
