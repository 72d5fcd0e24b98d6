"""Which tasks a run is about, as dbt itself selects them in a small project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import BASE, write_files
from orrery.config.project import Project
from orrery.execute.narrow import left_out
from orrery.execute.options import OptionsError, RunOptions
from orrery.manifest.dbt import Dbt, DbtError

FILES = {
    "dbt/models/stg_orders.sql": "{{ config(tags='bronze') }} select 1 as id",
    "dbt/models/fct_orders.sql": "select * from {{ ref('stg_orders') }}",
    "dbt/models/fct_refunds.sql": "select * from {{ ref('stg_orders') }}",
    # In the project, but not in the pipeline.
    "dbt/models/elsewhere.sql": "select 1 as id",
    "dbt/tests/assert_orders.sql": "select * from {{ ref('fct_orders') }} where false",
    "dbt/models/models.yml": ("sources: [{name: app, tables: [{name: raw}]}]\n"),
}
NOT_SELECTED = "This run leaves it out (select, exclude)."


@dataclass(frozen=True)
class Task:
    task_id: str
    stage: str
    nodes: tuple[str, ...]


TASKS = [
    Task("staging.stg_orders", "staging", ("model.tiny.stg_orders",)),
    Task("core.fct_orders", "core", ("model.tiny.fct_orders",)),
    Task("core.fct_refunds", "core", ("model.tiny.fct_refunds",)),
    Task("tests.fct_orders", "tests", ("test.tiny.assert_orders",)),
    Task("source_freshness.app__raw", "source_freshness", ("source.tiny.app.raw",)),
]
ALL = {task.task_id for task in TASKS}


class NoDbt(Dbt):
    """A dbt that nobody should ask."""

    def __init__(self) -> None:
        pass

    def select(self, *_: object, **__: object) -> set[str]:
        raise AssertionError("dbt was asked")


@pytest.fixture(scope="module")
def dbt(tmp_path_factory: pytest.TempPathFactory) -> Dbt:
    """dbt in the small project; it is parsed when it is first asked."""
    root = tmp_path_factory.mktemp("narrow")
    write_files(root, {**BASE, **FILES})
    return Dbt(Project(root), target_dir=root / "target")


def left(dbt: Dbt, **options: object) -> set[str]:
    """The tasks that are left to run."""
    reasons = left_out(TASKS, RunOptions.from_params(options), dbt)
    assert set(reasons.values()) <= {NOT_SELECTED}
    return ALL - reasons.keys()


def refused(dbt: Dbt, **options: object) -> str:
    with pytest.raises(OptionsError) as caught:
        left_out(TASKS, RunOptions.from_params(options), dbt)
    return str(caught.value)


def test_the_tasks_are_those_of_the_project(dbt: Dbt) -> None:
    nodes = {uid for task in TASKS for uid in task.nodes}
    assert dbt.select(("*", "source:*")) == nodes | {"model.tiny.elsewhere"}


def test_a_run_without_choices_leaves_out_nothing_and_asks_nobody() -> None:
    assert left_out(TASKS, RunOptions(), NoDbt()) == {}


def test_stages_are_left_out_with_a_reason_and_without_dbt() -> None:
    options = RunOptions(skip_stages=frozenset({"core", "seed"}))
    assert left_out(iter(TASKS), options, NoDbt()) == {
        "core.fct_orders": "This run leaves out the stage 'core' (skip_stages).",
        "core.fct_refunds": "This run leaves out the stage 'core' (skip_stages).",
    }


def test_select(dbt: Dbt) -> None:
    # dbt selects the tests of a node along.
    assert left(dbt, select="fct_orders") == {"core.fct_orders", "tests.fct_orders"}
    assert left(dbt, select="fct_refunds tag:bronze") == {"core.fct_refunds", "staging.stg_orders"}
    assert left(dbt, select="+fct_refunds") == {"core.fct_refunds", "staging.stg_orders"}
    assert left(dbt, select="fct_orders,resource_type:test") == {"tests.fct_orders"}
    assert left(dbt, select="source:app") == {"source_freshness.app__raw"}


def test_exclude_alone(dbt: Dbt) -> None:
    assert left(dbt, exclude="fct_refunds") == ALL - {"core.fct_refunds"}
    assert left(dbt, exclude="resource_type:test tag:bronze") == ALL - {
        "tests.fct_orders",
        "staging.stg_orders",
    }
    # What it names may lie outside of the pipeline.
    assert left(dbt, exclude="elsewhere") == ALL


def test_select_and_exclude(dbt: Dbt) -> None:
    assert left(dbt, select="stg_orders+", exclude="fct_orders") == {
        "staging.stg_orders",
        "core.fct_refunds",
    }


def test_both_reasons(dbt: Dbt) -> None:
    options = RunOptions(select=("fct_orders", "stg_orders"), skip_stages=frozenset({"staging"}))
    assert left_out(TASKS, options, dbt) == {
        "staging.stg_orders": "This run leaves out the stage 'staging' (skip_stages).",
        "core.fct_refunds": NOT_SELECTED,
        "source_freshness.app__raw": NOT_SELECTED,
    }


@pytest.mark.parametrize("name", ["select", "exclude"])
@pytest.mark.parametrize("text", ["fct_ordres", "+fct_ordres+", "@fct_ordres", "stg_orders fct_ordres"])
def test_an_unknown_model_gets_the_nearest_name(dbt: Dbt, name: str, text: str) -> None:
    unknown = text.rsplit(maxsplit=1)[-1]
    assert refused(dbt, **{name: text}) == (
        f"{name}: {unknown!r} matches no node of the dbt project.\n  Did you mean 'fct_orders'?"
    )


@pytest.mark.parametrize("token", [";", "$(id)", "`id`", "../../etc/passwd", "a;b"])
def test_what_no_selector_is_matches_nothing(dbt: Dbt, token: str) -> None:
    assert f"select: {token!r} matches no node of the dbt project." in refused(dbt, select=token)


def test_a_selection_outside_of_the_pipeline_leaves_nothing(dbt: Dbt) -> None:
    assert refused(dbt, select="elsewhere") == (
        "select 'elsewhere' leave nothing of this pipeline to run.\n"
        "  ./orrery dbt ls --select shows what a selection matches."
    )


def test_excluding_everything_leaves_nothing(dbt: Dbt) -> None:
    message = refused(dbt, select="stg_orders", exclude="tag:bronze")
    assert message.startswith("select 'stg_orders' and exclude 'tag:bronze' leave nothing")
    assert refused(dbt, exclude="* source:*").startswith("exclude '* source:*' leave nothing")


@pytest.mark.parametrize("name", ["select", "exclude"])
def test_what_dbt_refuses_is_shown(dbt: Dbt, name: str) -> None:
    assert refused(dbt, **{name: "stg_orders tagg:x"}) == (
        f"{name}: dbt does not accept 'tagg:x': 'tagg' is not a valid method name\n"
        "  See https://docs.getdbt.com/reference/node-selection/syntax"
    )


def test_a_mistake_in_the_project_is_shown(tmp_path: Path) -> None:
    write_files(tmp_path, {**BASE, "dbt/models/a.sql": "select * from {{ ref('nowhere') }}"})
    broken = Dbt(Project(tmp_path), target_dir=tmp_path / "target")
    with pytest.raises(DbtError):
        broken.select(("a",))
    # The choice is fine, so the message is dbt's alone.
    with pytest.raises(DbtError, match="depends on a node named 'nowhere' which was not found"):
        left_out(TASKS, RunOptions.from_params({"select": "a"}), broken)
