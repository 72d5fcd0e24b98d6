"""The DAG files: which DAGs they give, with which settings, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from airflow.sdk import Asset, AssetAll, AssetAny, TriggerRule
from airflow.sdk.exceptions import ParamValidationError
from click.testing import CliRunner
from cosmos import converter

from conftest import write_files
from integrity.conftest import ROOT, import_errors, load, silent
from orrery.cli.__main__ import main
from orrery.config.errors import OrreryError
from orrery.config.pipeline import PRESETS
from orrery.config.project import Project
from orrery.execute.node import DbtNodeOperator
from orrery.execute.options import OPTIONS, RunOptions
from orrery.manifest.build import build_manifests
from orrery.render.loader import make_dags

FILES = {path.stem for path in (ROOT / "dbt" / "pipelines").glob("*.yml")}


def build(project: Project) -> None:
    """`./orrery build` without errors."""
    assert build_manifests(project, silent).errors == {}


def command_output(*arguments: str) -> str:
    """What `./orrery ...` prints."""
    result = CliRunner().invoke(main, arguments)
    # The launcher prints errors that are meant for the user.
    text = str(result.exception) if isinstance(result.exception, OrreryError) else ""
    return result.output + text


def test_the_dags_are_the_pipeline_files(shipped: Any) -> None:
    assert FILES
    assert set(shipped.dags) == FILES
    assert shipped.import_errors == {}


def test_a_deleted_and_an_added_file_change_the_dags(copy: Project) -> None:
    (copy.pipelines_dir / "booking_analytics.yml").rename(copy.pipelines_dir / "renamed.yml")
    build(copy)
    bag = load(copy.root)
    assert set(bag.dags) == {*FILES, "renamed"} - {"booking_analytics"}
    assert bag.import_errors == {}


def test_a_dag_is_made_of_one_small_yaml_file(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosmos reads a profile for each DAG, with a slow reader: it must not be the manifest."""
    read, sizes = yaml.load, []

    def measured(stream: Any, *arguments: Any) -> Any:
        sizes.append(os.fstat(stream.fileno()).st_size)
        return read(stream, *arguments)

    monkeypatch.setattr(yaml, "load", measured)
    # For its telemetry, which tells the kind of warehouse, and which tests leave off.
    monkeypatch.setattr(converter, "should_emit", lambda: True)
    assert set(make_dags(copy).dags) == FILES
    assert sizes
    assert max(sizes) < 1000


def test_the_loader_has_no_logic() -> None:
    for path in (ROOT / "dags").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 10, path


def test_the_settings_of_the_shipped_dag(shipped: Any) -> None:
    settings = yaml.safe_load((ROOT / "dbt/pipelines/booking_analytics.yml").read_text())
    dag = shipped.dags["booking_analytics"]
    assert dag.description == settings["description"]
    assert dag.doc_md == (f"{settings['description']}\n\nDefined in `dbt/pipelines/booking_analytics.yml`.")
    assert dag.tags == set(settings["tags"])
    assert dag.schedule == settings["schedule"] == "@hourly"
    assert (dag.catchup, dag.max_active_runs, dag.max_active_tasks >= 1) == (False, 1, True)
    nodes = [task for task in dag.tasks if task.task_id != "build"]
    # dbt's group of the pipeline and of all its nodes, by the name of its owner.
    assert {task.owner for task in nodes} == {"Analytics Team"}
    rules = {task.task_id: task.trigger_rule for task in dag.tasks if task.trigger_rule != "none_failed"}
    published = {f"publish.{name}" for name in ("docs", "artifacts", "elementary")}
    # Airflow's rule of a teardown, which is what a task that publishes is.
    teardown = dict.fromkeys(published, TriggerRule.ALL_DONE_SETUP_SUCCESS)
    assert rules == {"build": TriggerRule.ALL_DONE} | teardown
    assert {task.retries for task in nodes} == {0}
    assert {task.pool for task in dag.tasks} == {"default_pool"}
    # A build whose process was killed goes on, whatever the pipeline says of its nodes.
    assert dag.get_task("build").retries >= 1
    # Its nodes take no worker, so that Airflow's limit is none for them.
    assert dag.max_active_tasks >= len(dag.tasks)


def test_the_trigger_form(shipped: Any) -> None:
    params = shipped.dags["booking_analytics"].params
    assert dict(params) == {
        "select": None,
        "exclude": None,
        "full_refresh": False,
        "vars": None,
        "skip_stages": [],
        "threads": None,
        "uri": None,
    }
    # What the form offers is what a run understands.
    assert tuple(params) == OPTIONS
    assert RunOptions.from_params(params) == RunOptions()
    stages = ["seed", "source_freshness", "source_tests", "staging", "snapshot", "core", "tests", "publish"]
    schema = params.get_param("skip_stages").schema
    assert (schema["type"], schema["items"]) == ("array", {"type": "string", "enum": stages})
    assert params.get_param("full_refresh").schema["type"] == "boolean"
    for name in params:
        schema = params.get_param(name).schema
        assert schema["title"], name
        assert params.get_param(name).description.endswith("."), name


@pytest.mark.parametrize(
    ("name", "fine", "refused"),
    [
        ("select", ["fct_bookings+", None, ""], [["fct_bookings"], 1]),
        ("exclude", ["tag:x", None], [{"a": 1}]),
        ("full_refresh", [True, False], ["yes", None]),
        ("vars", [{"day": "2026-01-31"}, {}, None], ['{"day": 1}', ["a"]]),
        ("skip_stages", [[], ["core", "tests"]], [["marts"], "core", ["build"]]),
        ("threads", [1, 64, None], [0, 65, -1, 1.5, "4", True]),
    ],
)
def test_what_the_form_accepts(shipped: Any, name: str, fine: list[Any], refused: list[Any]) -> None:
    param = shipped.dags["booking_analytics"].params.get_param(name)
    for value in fine:
        assert param.resolve(value) == value
    for value in refused:
        with pytest.raises(ParamValidationError):
            param.resolve(value)


def test_what_a_task_shows_and_runs(shipped: Any) -> None:
    dag = shipped.dags["booking_analytics"]
    task = dag.get_task("core.fct_bookings")
    assert task.doc_md.startswith("**model** `models/booking_analytics/core/fct_bookings.sql`")
    assert "| column | type | description |" in task.doc_md
    assert "```sql\n" in task.doc_md
    assert (task.custom_operator_name, task.stage) == ("dbt model", "core")
    assert task.nodes == ("model.orrery_demo.fct_bookings",)
    assert all(task.doc_md for task in dag.tasks)
    warning = dag.get_task("tests.assert_completed_bookings_are_paid")
    assert "(warns only)" in warning.doc_md


@pytest.mark.parametrize("execute", ["build", "per_model"])
def test_the_settings_of_a_pipeline_reach_its_dag(copy: Project, execute: str) -> None:
    text = (
        "description: |\n  First line.\n\n  More.\nselect: tag:booking_analytics\nowner: analytics\n"
        "retries: 2\npool: warehouse\nmax_active_runs: 3\nstart_date: 2026-02-03\ncatchup: true\n"
        "schedule: '30 6 * * 1'\nskip_stages: [seed, tests]\ntests: end\ntags: [one, two]\n"
        f"stages: {{marts: path:models/booking_analytics/core}}\nexecute: {execute}\n"
    )
    groups = "groups: [{name: analytics, owner: {email: a@example.com}}]"
    write_files(
        copy.root,
        {"dbt/pipelines/other.yml": text, "dbt/models/booking_analytics/_groups.yml": groups},
    )
    build(copy)
    dag = load(copy.root).dags["other"]
    assert dag.description == "First line."
    assert (dag.max_active_runs, dag.catchup, dag.tags) == (3, True, {"one", "two"})
    assert dag.start_date.isoformat() == "2026-02-03T00:00:00+00:00"
    assert dag.schedule == "30 6 * * 1"
    nodes = [task for task in dag.tasks if task.task_id != "build"]
    assert {task.retries for task in nodes} == {2}
    assert {task.owner for task in nodes} == {"a@example.com"}
    assert ("build" in dag.task_dict) == (execute == "build")
    if execute == "build":
        assert dag.get_task("build").retries == 3, "two that build, and one that ends what they leave"
    assert dag.params["skip_stages"] == ["seed", "tests"]
    enum = dag.params.get_param("skip_stages").schema["items"]["enum"]
    assert "marts" in enum
    assert "core" not in enum
    assert "marts.fct_bookings" in dag.task_dict
    rules = {task.task_id: task.trigger_rule for task in dag.tasks if task.trigger_rule != "none_failed"}
    always = {"tests.all_nodes_ended"} | ({"build"} if execute == "build" else set())
    assert rules == dict.fromkeys(always, TriggerRule.ALL_DONE)


@pytest.mark.parametrize("execute", ["build", "per_model", "kubernetes"])
def test_only_what_runs_nodes_is_in_the_pool(copy: Project, execute: str) -> None:
    text = (
        f"select: tag:events\npool: warehouse\nexecute: {execute}\ntests: end\n"
        "publish: {docs: true}\nalerts: {slack: '#data'}\n"
    )
    if execute == "kubernetes":
        text += "kubernetes: {pods: per_model}\n"
    write_files(
        copy.root,
        {"dbt/pipelines/pooled.yml": text, "dbt/pipelines/later.yml": text + "schedule: {after: pooled}\n"},
    )
    build(copy)
    dag = load(copy.root).dags["pooled"]
    assert {"alert", "finished", "publish.docs", "tests.all_nodes_ended"} < set(dag.task_dict)
    assert {"ingest", "exposures"} < {task.stage for task in dag.tasks if hasattr(task, "stage")}
    nodes = {task.task_id for task in dag.tasks if isinstance(task, DbtNodeOperator)}
    # A build takes one slot for them all.
    expected = {"build"} if execute == "build" else nodes
    assert {task.task_id for task in dag.tasks if task.pool == "warehouse"} == expected
    assert {task.pool for task in dag.tasks if task.task_id not in expected} == {"default_pool"}


@pytest.mark.parametrize("preset", PRESETS)
def test_airflow_knows_every_preset(preset: str) -> None:
    from airflow.utils.dates import cron_presets

    # @once is a timetable of its own.
    assert preset == "@once" or preset in cron_presets


def test_one_broken_file_leaves_the_others(copy: Project) -> None:
    write_files(
        copy.root,
        {"dbt/pipelines/broken.yml": "slect: tag:x\n", "dbt/pipelines/empty.yml": "select: tag:nowhere\n"},
    )
    printed = command_output("build")
    bag = load(copy.root)
    assert set(bag.dags) == FILES
    ((name, error),) = import_errors(copy.root).items()
    assert name == "orrery_problems.py"
    # Word for word what the build printed.
    for text in (
        "dbt/pipelines/broken.yml:1:1: unknown key 'slect'",
        "dbt/pipelines/empty.yml:1:9: the selection",
    ):
        assert text in error
    assert error.strip() in printed

    # Mended, it is a DAG too and the error is gone.
    write_files(copy.root, {"dbt/pipelines/broken.yml": "select: tag:booking_analytics\n"})
    (copy.pipelines_dir / "empty.yml").unlink()
    build(copy)
    assert set(load(copy.root).dags) == {*FILES, "broken"}
    assert import_errors(copy.root) == {}


def test_a_project_that_dbt_cannot_parse(copy: Project) -> None:
    write_files(
        copy.root, {"dbt/models/booking_analytics/core/new.sql": "select * from {{ ref('nowhere') }}"}
    )
    printed = command_output("build")
    error = import_errors(copy.root)["orrery_problems.py"]
    assert "depends on a node named 'nowhere' which was not found" in error
    assert error.strip() in printed


WITHOUT = """
import json, sys
from pathlib import Path
import airflow.dag_processing.dagbag
from integrity.conftest import import_errors, load
sys.modules["airflow.providers.cncf.kubernetes"] = sys.modules["airflow.providers.airbyte"] = None
root = Path(sys.argv[1])
print(json.dumps([sorted(load(root).dags), import_errors(root)]))
"""


def test_an_installation_without_all_providers_has_the_other_pipelines(copy: Project) -> None:
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(copy.root)],
        env=os.environ | {"PYTHONPATH": f"{ROOT / 'include'}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    dags, errors = json.loads(told.splitlines()[-1])
    assert FILES - set(dags) == {"events_batch", "events_full_refresh", "sales_marketing"}
    error = errors.pop("orrery_problems.py")
    assert errors == {}
    for name, package in (("events_batch", "cncf-kubernetes"), ("sales_marketing", "airbyte")):
        needs = (
            f"the pipeline {name} needs apache-airflow-providers-{package}, which is not installed here.\n"
        )
        assert f"dbt/pipelines/{name}.yml: {needs}  Install it; for the image" in error


def test_a_stale_manifest_is_an_error_that_takes_no_dag_away(copy: Project) -> None:
    before = set(load(copy.root).dags["booking_analytics"].task_dict)
    write_files(copy.root, {"dbt/models/booking_analytics/core/new.sql": "select 1 as id"})
    assert import_errors(copy.root) == {
        "orrery_problems.py": (
            "dbt/target/orrery/index.json: the manifest is not current: "
            "models/booking_analytics/core/new.sql is new.\n  Run ./orrery build"
        )
    }
    assert set(load(copy.root).dags["booking_analytics"].task_dict) == before
    build(copy)
    assert import_errors(copy.root) == {}
    assert set(load(copy.root).dags["booking_analytics"].task_dict) == {*before, "core.new"}


def test_a_missing_manifest_is_an_error(copy: Project) -> None:
    shutil.rmtree(copy.manifest_dir)
    bag = load(copy.root)
    assert bag.dags == {}
    assert import_errors(copy.root) == {
        "orrery_problems.py": (
            "dbt/target/orrery/index.json: the manifest is not current: there is no manifest yet.\n"
            "  Run ./orrery build"
        )
    }


def test_one_pipeline_after_another(copy: Project) -> None:
    write_files(
        copy.root,
        {
            "dbt/pipelines/second.yml": (
                "select: fct_bookings\ntests: off\nschedule: {after: booking_analytics}\n"
            ),
            "dbt/pipelines/third.yml": (
                "select: fct_bookings\ntests: off\nschedule: {after: [booking_analytics, second]}\n"
            ),
            "dbt/pipelines/fourth.yml": (
                "select: fct_bookings\ntests: off\n"
                "schedule: {after: [booking_analytics, second], when: any}\n"
            ),
        },
    )
    build(copy)
    dags = load(copy.root).dags
    first, second, third = (dags[name] for name in ("booking_analytics", "second", "third"))
    finished = first.get_task("finished")
    assert finished.outlets == [Asset("orrery_booking_analytics", uri="orrery://pipeline/booking_analytics")]
    published = {task.task_id for task in first.tasks if task.task_id.startswith("publish.")}
    leaves = {task.task_id for task in first.tasks if task.downstream_task_ids - published == {"finished"}}
    assert finished.upstream_task_ids == leaves
    last = {task.task_id for task in first.tasks if not task.downstream_task_ids}
    # Nothing waits for what is published.
    assert {task_id for task_id in last if not task_id.startswith("publish.")} == {"finished"}
    # It succeeds only when nothing has failed.
    assert finished.trigger_rule == TriggerRule.NONE_FAILED
    assert assets(second) == {"orrery://pipeline/booking_analytics"}
    assert assets(third) == {"orrery://pipeline/booking_analytics", "orrery://pipeline/second"}
    assert isinstance(third.timetable.asset_condition, AssetAll)
    either = dags["fourth"].timetable.asset_condition
    assert isinstance(either, AssetAny)
    assert either.objects == third.timetable.asset_condition.objects
    # Nobody waits for the third.
    assert "finished" in second.task_dict
    assert "finished" not in third.task_dict


def assets(dag: Any) -> set[str]:
    """The assets that start a DAG."""
    return {asset.uri for asset in dag.timetable.asset_condition.objects}


def git(root: Path, *arguments: str) -> str:
    """git in a repository of the test's own, whatever the machine's settings are."""
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"]
    return subprocess.run([*command, *arguments], cwd=root, check=True, capture_output=True, text=True).stdout


def test_a_model_and_a_pipeline_need_nothing_but_dbt_files(copy: Project) -> None:
    shutil.copy(ROOT / ".gitignore", copy.root)
    git(copy.root, "init", "--quiet")
    git(copy.root, "add", "--all")
    git(copy.root, "commit", "--quiet", "--message", "before")
    model = "dbt/models/booking_analytics/core/fct_refunds"
    write_files(
        copy.root,
        {
            f"{model}.sql": "select payment_id from {{ ref('fct_payments') }}",
            f"{model}.yml": (
                "models: [{name: fct_refunds, columns: [{name: payment_id, data_tests: [unique]}]}]"
            ),
            "dbt/pipelines/refunds.yml": "select: fct_refunds\n",
        },
    )
    build(copy)
    bag = load(copy.root)
    git(copy.root, "add", "--all")
    changed = git(copy.root, "diff", "--cached", "--name-only").split()
    assert changed == sorted([f"{model}.sql", f"{model}.yml", "dbt/pipelines/refunds.yml"])
    assert bag.import_errors == {}
    assert {*bag.dags} == {*FILES, "refunds"}
    assert {"core.fct_refunds", "tests.fct_refunds"} <= set(bag.dags["booking_analytics"].task_dict)
    assert set(bag.dags["refunds"].task_dict) == {"build", "core.fct_refunds", "tests.fct_refunds"}


def test_a_build_is_tried_again_at_least_as_often_as_its_nodes(copy: Project) -> None:
    write_files(copy.root, {"dbt/pipelines/tough.yml": "select: fct_payments\nretries: 7\n"})
    build(copy)
    dag = load(copy.root).dags["tough"]
    assert {task.retries for task in dag.tasks if task.task_id != "build"} == {7}
    assert dag.get_task("build").retries == 8
