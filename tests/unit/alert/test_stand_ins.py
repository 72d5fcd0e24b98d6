"""`./orrery run --stand-ins` of a pipeline with alerts: a Slack, and what it was told."""

from __future__ import annotations

import httpx
import pytest

from conftest import write_files
from orrery.config.project import Project
from services.slack import TOKEN
from services.stand_ins import serve


def test_slack_stands_in_and_shows_what_was_told(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    write_files(
        project.root,
        {"dbt/pipelines/shop.yml": "select: a\nalerts: {slack: {channel: '#a', connection: ours}}\n"},
    )
    with serve("shop", project.root, {}) as connections:
        # Those of the pipeline, and of a group that says where.
        assert connections
        assert set(connections) == {"ours", "slack_default"}
        assert connections["ours"]["connection_id"] == "ours"
        url = connections["ours"]["extra"].split('"')[3]
        body = {"channel": "#a", "text": "shop: model a failed"}
        httpx.post(f"{url}chat.postMessage", json=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert capsys.readouterr().out == "chat.postMessage #a: shop: model a failed\n"


def test_a_pipeline_that_tells_nobody(project: Project) -> None:
    write_files(project.root, {"dbt/pipelines/shop.yml": "select: a\n"})
    with serve("shop", project.root, {}) as connections:
        assert connections is None
