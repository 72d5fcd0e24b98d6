"""The pipeline file's models: what they accept, and how their values are read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from conftest import WriteProject
from orrery.config.dbt_pods import DbtPods
from orrery.config.errors import ConfigError
from orrery.config.loader import load_pipelines
from orrery.config.pipeline import Pipeline
from orrery.config.project import Project
from orrery.config.schema import stale_schemas, write_schemas
from orrery.config.workload import EnvFrom

ROOT = Path(__file__).resolve().parents[3]
SHIPPED = sorted((ROOT / "dbt" / "pipelines").glob("*.yml"))
SCHEMA: dict[str, Any] = json.loads((ROOT / "include" / "schema" / "pipeline.json").read_bytes())


def load(write_project: WriteProject, text: str) -> Pipeline:
    """The pipeline that `text` describes; raises what is wrong with it."""
    return load_pipelines(write_project({"dbt/pipelines/trial.yml": text})).get("trial").config


def test_every_key_set(write_project: WriteProject) -> None:
    config = load(
        write_project,
        "description: D\nowner: o\nschedule: '0 6 * * *'\nselect: [a, b+]\nexclude: c\n"
        "stages: {bronze: path:x, core: [y, z]}\nskip_stages: bronze\ntests: end\n"
        "publish: {docs: false, to: 's3://my_aws@reports/shop', keep: 3}\n"
        "alerts: {slack: '#a', webhook: w, on: late, samples: 2}\nsla: 17:30\n"
        "execute: per_model\nstale: skip\nfreshness: off\nfull_refresh: true\n"
        "vars: {day: 2026-01-31, nested: {days: [2026-01-31, 1]}}\n"
        "retries: 2\npool: p\nmax_active_runs: 3\nstart_date: 2026-01-31\ncatchup: true\ntags: [t, u]\n",
    )
    assert config.model_dump() == {
        "description": "D",
        "owner": "o",
        "schedule": "0 6 * * *",
        "select": ("a", "b+"),
        "exclude": ("c",),
        "selector": None,
        # dbt has no dates in vars.
        "vars": {"day": "2026-01-31", "nested": {"days": ["2026-01-31", 1]}},
        "stages": {"bronze": ("path:x",), "core": ("y", "z")},
        "full_refresh": True,
        "skip_stages": ("bronze",),
        "tests": "end",
        "execute": "per_model",
        "kubernetes": None,
        "freshness": "off",
        "stale": "skip",
        "publish": {
            "docs": False,
            "artifacts": True,
            "elementary": False,
            "to": "s3://my_aws@reports/shop",
            "keep": 3,
        },
        "alerts": {
            "slack": {"channel": "#a", "connection": "slack_default", "mention": None},
            "webhook": "w",
            "on": ("late",),
            "samples": 2,
        },
        "sla": {"by": time(17, 30), "within": None, "timezone": "UTC"},
        "retries": 2,
        "pool": "p",
        "max_active_runs": 3,
        "start_date": date(2026, 1, 31),
        "catchup": True,
        "tags": ("t", "u"),
    }
    # A new key must be added above.
    assert config.model_fields_set == set(Pipeline.model_fields) - {"selector", "kubernetes"}


def test_what_a_pipeline_is_that_says_nothing(write_project: WriteProject) -> None:
    config = load(write_project, "select: a")
    assert (config.execute, config.stale, config.tests, config.retries) == ("build", "fail", "gate", 0)


@pytest.mark.parametrize(
    ("text", "pods", "one_build"),
    [
        ("execute: build", None, True),
        ("execute: per_model", None, False),
        ("execute: kubernetes", DbtPods(), True),
        ("execute: kubernetes\nkubernetes: {pods: per_model}", DbtPods(pods="per_model"), False),
    ],
)
def test_where_nodes_run(
    write_project: WriteProject, text: str, pods: DbtPods | None, one_build: bool
) -> None:
    config = load(write_project, f"select: a\n{text}")
    assert (config.pods, config.one_build) == (pods, one_build)


def test_pods_as_people_write_them(write_project: WriteProject) -> None:
    block = "{image: i, env_from: {secrets: pg}, labels: {team: data}, timeout: 30m, env: {A: b}}"
    pods = load(write_project, f"select: a\nexecute: kubernetes\nkubernetes: {block}").pods
    assert pods is not None
    assert (pods.image, pods.env_from.secrets, pods.env_from.config_maps) == ("i", ("pg",), ())
    assert (pods.labels, pods.timeout, pods.env) == ({"team": "data"}, timedelta(minutes=30), {"A": "b"})
    assert DbtPods().env_from == EnvFrom(config_maps=("pipeline-env",), secrets=("warehouse",))


@pytest.mark.parametrize("name", ["build", "finished", "tests"])
def test_a_stage_cannot_have_the_name_of_what_orrery_makes(write_project: WriteProject, name: str) -> None:
    with pytest.raises(ConfigError, match=f"'{name}' cannot be the name of a stage of nodes"):
        load(write_project, f"select: a\nstages: {{{name}: b}}")


@pytest.mark.parametrize("text", ["execute: builds", "stale: ignore"])
def test_refused_words(write_project: WriteProject, text: str) -> None:
    with pytest.raises(ConfigError, match=text.split(": ")[1]):
        load(write_project, f"select: a\n{text}")


def test_stages_of_ones_own_are_shown_before_the_usual_ones(write_project: WriteProject) -> None:
    config = load(write_project, "select: a\nstages: {silver: b, bronze: c, core: d}")
    assert config.stage_names == (
        *("ingest", "seed", "function", "source_freshness", "source_tests"),
        *("silver", "bronze"),
        *("staging", "snapshot", "core", "tests", "hooks", "exposures", "publish"),
    )


@pytest.mark.parametrize("mode", ["gate", "end", "off", "'off'"])
def test_tests_as_people_write_it(write_project: WriteProject, mode: str) -> None:
    # A bare off is false in YAML 1.1.
    assert load(write_project, f"select: a\ntests: {mode}").tests == mode.strip("'")


@pytest.mark.parametrize(
    ("text", "schedule"), [("none", None), ("None", None), ("~", None), ("'@daily'", "@daily")]
)
def test_schedule(write_project: WriteProject, text: str, schedule: str | None) -> None:
    assert load(write_project, f"select: a\nschedule: {text}").schedule == schedule


@pytest.mark.parametrize("cron", ["0 6 * *", "0 0 6 * * *", "61 * * * *", "* * 32 * *", "daily", ""])
def test_refused_cron(write_project: WriteProject, cron: str) -> None:
    with pytest.raises(ConfigError, match="is no cron expression"):
        load(write_project, f"select: a\nschedule: '{cron}'")


@pytest.mark.parametrize("text", ["!!bool maybe", "!!timestamp maybe", "!!int maybe", "!maybe maybe"])
def test_a_tag_that_does_not_fit_is_read_as_text(write_project: WriteProject, text: str) -> None:
    assert load(write_project, f"select: {text}").select == ("maybe",)


def test_a_byte_order_mark_does_no_harm(write_project: WriteProject) -> None:
    assert load(write_project, "\ufeffselect: a").select == ("a",)


def test_the_name_of_a_file_must_suit_airflow(write_project: WriteProject) -> None:
    project = write_project({"dbt/pipelines/my bookings.yml": "select: a"})
    with pytest.raises(ConfigError, match="letters, digits, _ and - only"):
        load_pipelines(project).get("my bookings")


def test_an_unknown_pipeline_gets_the_nearest_name(write_project: WriteProject) -> None:
    project = write_project({"dbt/pipelines/bookings.yml": "select: a"})
    with pytest.raises(ConfigError, match="Did you mean 'bookings'"):
        load_pipelines(project).get("boking")


def test_a_project_without_pipelines(write_project: WriteProject) -> None:
    pipelines = load_pipelines(write_project({}))
    assert pipelines.names == []
    with pytest.raises(ConfigError, match="There is no pipeline yet"):
        pipelines.get("bookings")


def described(schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key in a JSON Schema with its own schema."""
    if isinstance(schema, dict):
        yield from schema.get("properties", {}).items()
        for value in schema.values():
            yield from described(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from described(value)


def test_every_key_of_the_schema_has_a_description() -> None:
    keys = dict(described(SCHEMA))
    assert {"select", "schedule", "after"} <= set(keys)
    assert [
        key for key, value in keys.items() if not re.search(r"\w.*\.$", value.get("description", ""))
    ] == []


def test_the_committed_schema_is_current() -> None:
    assert stale_schemas(Project(ROOT)) == []


def test_a_stale_schema_is_noticed(write_project: WriteProject) -> None:
    project = write_project({})
    path, *others = (project.schema_dir / f"{name}.json" for name in ("pipeline", "ingest", "run"))
    assert stale_schemas(project) == [path, *others]
    write_schemas(project)
    assert stale_schemas(project) == []
    path.write_text(path.read_text().replace("per_model", "per_node"))
    assert stale_schemas(project) == [path]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_pipeline_file_fits_the_schema(path: Path) -> None:
    jsonschema.validate(yaml.safe_load(path.read_text()), SCHEMA)


@pytest.mark.parametrize(
    "data",
    [
        {"select": "a", "retrys": 2},
        {"select": "a", "schedule": {"aftr": ["b"]}},
        {"select": "a", "tests": "gates"},
        {"select": "a", "execute": "builds"},
        {"select": "a", "stale": "ignore"},
        {"select": "a", "retries": "2"},
    ],
)
def test_the_schema_refuses(data: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


@pytest.mark.parametrize(
    "data",
    [
        {"select": "a", "schedule": "@daily"},
        {"select": ["a", "b"], "schedule": {"after": "c"}, "tests": "off"},
        {"select": "a", "execute": "build", "stale": "warn"},
        {"selector": "a", "schedule": None, "stages": {"bronze": "b"}, "skip_stages": ["seed"]},
    ],
)
def test_the_schema_accepts(data: dict[str, Any]) -> None:
    jsonschema.validate(data, SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_pipeline_file_leads_editors_to_the_schema(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    comment = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert comment
    assert os.path.normpath(path.parent / comment[1]) == str(ROOT / "include" / "schema" / "pipeline.json")


def test_there_are_shipped_pipeline_files() -> None:
    assert SHIPPED
