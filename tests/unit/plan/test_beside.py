"""Tasks beside dbt's: steps that fill sources, and what exposures run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orrery.config.exposure import PipelineRun
from orrery.config.project import Project
from orrery.config.publish import Publish
from orrery.plan.model import TaskKind
from orrery.plan.objects import ForeignObjectError, check_object, taken_name
from unit.manifest.resources import Resource, resource
from unit.plan.projects import edges, plan

ORDERS = resource("source", "app.orders", schema="landing", identifier="orders")
REFUNDS = resource("source", "app.refunds", schema="landing", identifier="refunds")
LOADED = {"meta": {"orrery": {}}}
COPY = {"transfer": "s3://aws@inbox/new/*.jsonl", "to": "gs://gcp@lake/raw"}
FILES = {"files": "*.jsonl", "landing_zone": "file:///lake/raw"}


def entry(name: str, kind: str, block: Any, of: list[Resource], after: tuple[str, ...] = ()) -> Resource:
    sources = [each["unique_id"] for each in of]
    return {"name": name, "kind": kind, "block": block, "sources": sources, "after": list(after)}


def run_of(*parents: str, name: str = "report") -> Resource:
    exposure = resource("exposure", name, parents)
    return {**exposure, "owner": {"name": "Ann"}, "kind": "pipeline", "block": {"pipeline": "nightly"}}


def test_each_step_waits_for_the_one_before_and_readers_for_the_last() -> None:
    of = [{**each, "config": LOADED} for each in (ORDERS, REFUNDS)]
    made = plan(
        *of,
        resource("model", "a", [ORDERS["unique_id"]]),
        resource("model", "b", [REFUNDS["unique_id"]]),
        ingest=[
            entry("app__orders", "files", {"files": "orders.csv"}, of[:1]),
            entry("app__transfer", "transfer", COPY, of, ("app__orders", "app__refunds")),
            entry("app__refunds", "files", {"files": "refunds.csv"}, of[1:]),
        ],
    )
    assert edges(made) == {
        "ingest.app__orders": set(),
        "ingest.app__refunds": set(),
        "ingest.app__transfer": {"ingest.app__orders", "ingest.app__refunds"},
        "core.a": {"ingest.app__transfer"},
        "core.b": {"ingest.app__transfer"},
    }
    copies = made.tasks["ingest.app__transfer"]
    assert copies.work
    assert (copies.work.of, copies.work.table) == ("app", "")
    assert copies.nodes == (ORDERS["unique_id"], REFUNDS["unique_id"])


MODELS = [
    resource("seed", "s"),
    resource("model", "a", ["seed.shop.s"]),
    resource("model", "b", ["model.shop.a"]),
    resource("test", "on_s", ["seed.shop.s"]),
    resource("test", "on_a", ["model.shop.a"]),
    resource("test", "on_b", ["model.shop.b"]),
    resource("test", "on_both", ["model.shop.a", "model.shop.b"]),
]


@pytest.mark.parametrize("tests", ["gate", "end"])
def test_an_exposure_runs_after_its_models_and_their_tests(tests: str) -> None:
    made = plan(*MODELS, runs=[run_of("model.shop.a"), run_of("model.shop.b", name="other")], tests=tests)
    report = made.tasks["exposures.report"]
    assert report.upstream == {"core.a", "tests.a"}
    assert made.tasks["exposures.other"].upstream == {"core.b", "tests.b", "tests.on_both"}
    assert made.stages[-1] == "exposures"
    assert (report.kind, report.owner) == (TaskKind.EXPOSURE, "Ann")
    assert report.work
    assert report.work.block == PipelineRun(pipeline="nightly")


def test_an_exposure_without_tests_runs_after_its_models() -> None:
    made = plan(*MODELS, runs=[run_of("model.shop.a")], tests="off")
    assert made.tasks["exposures.report"].upstream == {"core.a"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def objects(project: Project, *wanted: tuple[str, Any]) -> Any:
    of = [{**ORDERS, "config": LOADED}]
    entries = []
    for number, (kind, block) in enumerate(wanted):
        after = (f"step_{number - 1}",) if number else ()
        entries.append(entry(f"step_{number}", kind, block, of, after))
    made = plan(*of, resource("model", "a", [ORDERS["unique_id"]]), ingest=entries)
    return [task.work for task in made.tasks.values() if task.work]


def test_the_object_of_a_run(project: Project) -> None:
    copy, load = objects(
        project, ("transfer", COPY), ("files", {**FILES, "landing_zone": "file:///lake/raw"})
    )
    assert taken_name(copy, "s3://inbox/new/1.jsonl", project) == "1.jsonl"
    assert taken_name(copy, "s3://aws@inbox/new/1.jsonl", project) == "1.jsonl"
    for foreign in (
        "s3://inbox/old/1.jsonl",
        "s3://inbox/new/1.csv",
        "s3://inbox/new/sub/1.jsonl",
        "gs://inbox/new/1.jsonl",
        "s3://other@inbox/new/1.jsonl",
    ):
        assert taken_name(copy, foreign, project) is None
        with pytest.raises(ForeignObjectError, match="s3://aws@inbox/new/"):
            check_object([copy, load], foreign, project)
    check_object([copy, load], "s3://inbox/new/1.jsonl", project)


def test_files_take_what_a_transfer_brings_them(project: Project) -> None:
    to = {"to": "file:///lake/raw/"}
    _, load = objects(project, ("transfer", {**COPY, **to}), ("files", FILES))
    assert taken_name(load, "s3://inbox/new/1.jsonl", project) == "1.jsonl"
    assert taken_name(load, "file:///lake/raw/2.jsonl", project) == "2.jsonl"
    assert taken_name(load, "file:///lake/raw/2.csv", project) is None


def test_what_is_published_comes_after_all_others() -> None:
    made = plan(*MODELS, runs=[run_of("model.shop.a")], publish=Publish(elementary=True))
    published = {task_id for task_id, task in made.tasks.items() if task.stage == "publish"}
    assert published == {"publish.docs", "publish.artifacts", "publish.elementary"}
    docs, artifacts = made.tasks["publish.docs"], made.tasks["publish.artifacts"]
    elementary = made.tasks["publish.elementary"]
    last = {"exposures.report", "tests.on_both", "tests.b", "tests.s"}
    assert docs.upstream <= made.tasks.keys()
    waited_for = set().union(*(task.upstream for task in made.tasks.values() if task.stage != "publish"))
    assert docs.upstream == made.tasks.keys() - waited_for - published
    assert docs.upstream <= last
    assert artifacts.upstream == {"publish.docs"}
    # Where it is not installed, this one is skipped at once, beside the others.
    assert elementary.upstream == docs.upstream
    assert docs.always
    assert artifacts.always
    assert elementary.always
    assert made.stages[-1] == "publish"


def test_an_installed_elementary_publishes_after_the_others() -> None:
    made = plan(*MODELS, publish=Publish(elementary=True), elementary=True)
    assert made.tasks["publish.elementary"].upstream == {"publish.artifacts"}


def test_only_what_is_asked_for_is_published() -> None:
    made = plan(*MODELS, publish=Publish(docs=False))
    assert "publish.docs" not in made.tasks
    assert made.tasks["publish.artifacts"].upstream
    assert "publish.elementary" not in made.tasks
    assert "publish" not in plan(*MODELS).stages
