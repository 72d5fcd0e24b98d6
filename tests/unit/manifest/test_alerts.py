"""Who is told of what: the pipeline's word, its owner's, the project's."""

from __future__ import annotations

from typing import Any

import pytest

from conftest import WriteProject
from orrery.config.alerts import Alerts, GroupAlerts
from orrery.config.pipeline import Pipeline
from orrery.manifest.alerts import alert_connections, effective_alerts
from orrery.manifest.build import build_manifests
from orrery.manifest.store import ManifestError, ManifestStore

PROJECT = "name: tiny\nversion: '1.0'\nprofile: tiny\n"
GROUPS = """\
groups:
  - name: analytics
    owner: {name: Analytics}
    config:
      meta:
        orrery:
          alerts: {slack: "#analytics", mention: "@here"}
"""
FILES = {
    "dbt/models/a.sql": "select 1 as id",
    "dbt/models/b.sql": "select id from {{ ref('a') }}",
    "dbt/models/b.yml": (
        "models:\n  - name: b\n    config: {group: analytics, meta: {orrery: {samples: 2}}}\n"
        "    columns:\n      - {name: id, config: {tags: [pii]}}\n      - {name: other, meta: {pii: true}}\n"
        "      - {name: third}\n"
        "exposures:\n  - {name: board, type: dashboard, owner: {name: A}, depends_on: [ref('b')]}\n"
    ),
    "dbt/models/groups.yml": GROUPS,
}


def test_defaults_groups_and_columns_as_dbt_has_them(write_project: WriteProject) -> None:
    project = write_project(
        {
            **FILES,
            "dbt/dbt_project.yml": PROJECT + 'vars:\n  orrery:\n    alerts: {slack: "#all", "on": [late]}\n',
            "dbt/pipelines/shop.yml": "select: a b\nowner: analytics\n",
            "dbt/pipelines/quiet.yml": "select: a\nalerts: {on: []}\n",
        }
    )
    assert build_manifests(project, lambda line: None).errors == {}
    slim = ManifestStore(project).read("shop")
    assert slim["alerts"] == {"slack": "#all", "on": ["late"]}
    assert slim["groups"]["analytics"]["alerts"] == {"slack": "#analytics", "mention": "@here"}
    assert [e["name"] for e in slim["exposures"].values()] == ["board"]
    assert ManifestStore(project).read("quiet")["exposures"] == {}
    columns = slim["nodes"]["model.tiny.b"]["columns"]
    assert {name for name, column in columns.items() if column.get("pii")} == {"id", "other"}


def slim_of(alerts: Any = None, group: Any = None) -> dict[str, Any]:
    analytics = {"owner": {}, **({"alerts": group} if group else {})}
    return {"alerts": alerts, "groups": {"analytics": analytics}}


def alerts_of(slim: dict[str, Any], **settings: Any) -> Alerts | None:
    return effective_alerts(Pipeline.model_validate({"select": "a", **settings}), slim)


def channel_of(slim: dict[str, Any], **settings: Any) -> str | None:
    found = alerts_of(slim, **settings)
    assert found
    assert found.slack
    return found.slack.channel


def test_the_nearest_word_counts() -> None:
    default, group = {"slack": "#all", "samples": 1}, {"slack": "#analytics"}
    own = {"slack": "#own"}
    assert channel_of(slim_of(default)) == "#all"
    assert channel_of(slim_of(default, group)) == "#all"
    assert channel_of(slim_of(default, group), owner="analytics") == "#analytics"
    assert channel_of(slim_of(default, group), owner="analytics", alerts=own) == "#own"
    # Key by key.
    found = alerts_of(slim_of(default), alerts={"on": ["failure"]})
    assert found
    assert (found.on, found.samples) == (("failure",), 1)


def test_nobody_is_told_unless_somebody_says_so() -> None:
    assert alerts_of(slim_of()) is None
    assert alerts_of(slim_of(group={"slack": "#analytics"}), owner="analytics") is None
    assert alerts_of(slim_of({"slack": "#all"}), alerts={"on": []}) is None
    assert alerts_of(slim_of({"samples": 2})) is None
    # The group of some node has a place, even if the pipeline has none.
    assert alerts_of(slim_of({"samples": 2}, {"slack": "#analytics"})) is not None


def test_the_connections_that_are_used() -> None:
    slim = slim_of({"slack": {"connection": "ours"}, "webhook": "hook"}, {"slack": "#analytics"})
    assert alert_connections(Pipeline.model_validate({"select": "a"}), slim) == {
        "ours": "slack",
        "slack_default": "slack",
        "hook": "http",
    }
    assert alert_connections(Pipeline.model_validate({"select": "a"}), slim_of()) == {}


def test_a_group_may_only_call_somebody() -> None:
    group = GroupAlerts.model_validate({"mention": "@here"})
    route = group.route(Alerts.model_validate({"slack": "#all"}).slack)
    assert route
    assert (route.channel, route.mention) == ("#all", "@here")
    assert group.route(None) is None


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "dbt/dbt_project.yml",
            f'{PROJECT}vars:\n  orrery:\n    alerts:\n      slakc: "#all"\n',
            "dbt/dbt_project.yml:7:7: unknown key 'slakc'\n"
            "    7 |       slakc: \"#all\"\n      |       ^^^^^\n  Did you mean 'slack'?",
        ),
        (
            "dbt/models/groups.yml",
            GROUPS.replace("@here", "@ann"),
            "dbt/models/groups.yml:7:50: '@ann' is nobody whom Slack knows\n"
            '    7 |           alerts: {slack: "#analytics", mention: "@ann"}\n'
            "      |                                                  ^^^^^^\n"
            '  Write "<@U123>" for a person, "<!subteam^S123>" for a group, "@here" or "@channel".',
        ),
    ],
)
def test_mistakes_name_their_place(write_project: WriteProject, file: str, text: str, message: str) -> None:
    project = write_project({**FILES, "dbt/pipelines/shop.yml": "select: a b\n", file: text})
    with pytest.raises(ManifestError) as raised:
        build_manifests(project, lambda line: None)
    assert str(raised.value) == message
