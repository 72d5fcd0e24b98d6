"""The choices of one run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG
from airflow.sdk.definitions.param import process_params

from orrery.config.pipeline import Pipeline
from orrery.execute.options import OptionsError, RunOptions
from orrery.plan.model import PipelinePlan
from orrery.render.form import form_of

EMPTY = {
    "select": None,
    "exclude": None,
    "full_refresh": False,
    "vars": None,
    "skip_stages": [],
    "threads": None,
}


def context(conf: dict[str, Any] | None, **params: Any) -> dict[str, Any]:
    """The context of a task, as far as it tells of the choices."""
    return {"dag_run": SimpleNamespace(conf=conf), "params": {**EMPTY, **params}}


def refused(params: dict[str, Any]) -> str:
    with pytest.raises(OptionsError) as caught:
        RunOptions.from_params(params)
    return str(caught.value)


def test_from_the_params_of_a_run() -> None:
    assert RunOptions.from_params(
        {
            "select": "fct_bookings+  tag:core\n",
            "exclude": "config.materialized:view",
            "full_refresh": True,
            "vars": {"day": "2026-01-31", "nested": {"a": [1]}},
            "skip_stages": ["seed", "tests"],
            "threads": 8,
            "other": 1,
        }
    ) == RunOptions(
        select=("fct_bookings+", "tag:core"),
        exclude=("config.materialized:view",),
        full_refresh=True,
        variables={"day": "2026-01-31", "nested": {"a": [1]}},
        skip_stages=frozenset({"seed", "tests"}),
        threads=8,
    )


@pytest.mark.parametrize("params", [{}, EMPTY, {"select": "", "exclude": " \n", "vars": {}}])
def test_what_is_not_chosen_is_no_choice(params: dict[str, Any]) -> None:
    options = RunOptions.from_params(params)
    assert options == RunOptions()
    assert not options.narrowed


@pytest.mark.parametrize(
    ("params", "narrowed"),
    [
        ({"select": "a"}, True),
        ({"exclude": "a"}, True),
        ({"skip_stages": ["core"], "full_refresh": True, "threads": 1, "vars": {"a": 1}}, False),
    ],
)
def test_narrowed(params: dict[str, Any], narrowed: bool) -> None:
    assert RunOptions.from_params(params).narrowed is narrowed


@pytest.mark.parametrize("name", ["select", "exclude"])
@pytest.mark.parametrize(
    ("text", "option"),
    [
        ("--profiles-dir /etc", "--profiles-dir"),
        ("a --vars {x:1}", "--vars"),
        ("a\t-t\nprod", "-t"),
        ("--target=prod", "--target=prod"),
        ("; rm -rf", "-rf"),
    ],
)
def test_a_selection_cannot_contain_options(name: str, text: str, option: str) -> None:
    assert refused({name: text}) == (
        f"{name} cannot contain the option {option!r}.\n"
        "  Write only node selectors here, for example: tag:my_product"
    )


@pytest.mark.parametrize("text", ["; rm", "$(id)", "a|b", "models/a-b.sql", "tag:a-b,c"])
def test_other_odd_text_is_a_selector_for_dbt_to_judge(text: str) -> None:
    assert RunOptions.from_params({"select": text}).select == tuple(text.split())


@pytest.mark.parametrize("variables", ["day: 2026-01-31", ["day"], 1, "", 0, False])
def test_vars_must_be_an_object(variables: Any) -> None:
    assert refused({"vars": variables}).startswith("vars is no JSON object.\n  Write for example: {")


@pytest.mark.parametrize("conf", [None, {}, {"select": "a"}, dict(EMPTY)])
def test_from_the_context_of_a_task(conf: dict[str, Any] | None) -> None:
    # The params hold what the conf says, and the defaults of the rest.
    options = RunOptions.from_context(context(conf, select="a", threads=2))
    assert options == RunOptions(select=("a",), threads=2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, {"day": "2026-01-31", "load": True}),
        ({}, {"day": "2026-01-31", "load": True}),
        ({"day": "2026-02-01", "more": 1}, {"day": "2026-02-01", "load": True, "more": 1}),
        ({"load": None}, {"day": "2026-01-31", "load": None}),
    ],
)
def test_the_vars_of_a_run_go_over_those_of_the_pipeline(given: Any, expected: dict[str, Any]) -> None:
    with DAG("shop", schedule=None) as dag:
        task = EmptyOperator(task_id="task")
    config = Pipeline.model_validate({"select": "a", "vars": {"day": "2026-01-31", "load": True}})
    dag.params.update(form_of(PipelinePlan("shop", config, (), {}, {}, "shop.yml")))
    conf = {} if given is None else {"vars": given}
    # As a worker does.
    params = process_params(dag, task, conf, suppress_exception=False)
    run = SimpleNamespace(conf=conf)
    assert RunOptions.from_context({"dag": dag, "dag_run": run, "params": params}).variables == expected


@pytest.mark.parametrize(
    ("key", "fix"),
    [
        ("selects", "Did you mean 'select'?"),
        ("full-refresh", "Did you mean 'full_refresh'?"),
        ("zzz", "Known choices: exclude, full_refresh, select, skip_stages, threads, uri, vars."),
    ],
)
def test_an_unknown_choice_gets_the_nearest_one(key: str, fix: str) -> None:
    with pytest.raises(OptionsError) as caught:
        RunOptions.from_context(context({"select": "a", key: 1}))
    assert str(caught.value) == f"Unknown choice {key!r} in the configuration of this run.\n  {fix}"


def test_the_choices_of_a_context_are_checked() -> None:
    with pytest.raises(OptionsError, match="cannot contain the option '--vars'"):
        RunOptions.from_context(context({}, exclude="--vars"))


@pytest.mark.parametrize(
    ("params", "choices"),
    [
        (EMPTY, ""),
        ({"select": " a  b+\n"}, "select: a b+"),
        ({"exclude": "a", "full_refresh": True, "threads": 8}, "exclude: a, full_refresh: yes, threads: 8"),
        ({"skip_stages": ["tests", "seed"]}, "skip_stages: seed tests"),
        # Which object it is makes no difference, though the models have it as a variable.
        ({"uri": "s3://bucket/a.csv"}, "uri: yes"),
    ],
)
def test_the_choices_as_text(params: dict[str, Any], choices: str) -> None:
    assert RunOptions.from_params({**EMPTY, **params}).choices == choices


def test_the_values_of_vars_are_kept_from_the_choices() -> None:
    first, same, other = (
        RunOptions.from_params({"vars": {"b": {"x": value, "y": 1}, "a": 2}}).choices
        for value in ("secret", "secret", "public")
    )
    assert first == same != other
    assert first.startswith("vars: a b (")
    assert "secret" not in first
