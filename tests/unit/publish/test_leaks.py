"""What is published contains no secret."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from conftest import BASE, WriteProject
from orrery.config.publish import Publish
from orrery.execute.options import RunOptions
from orrery.execute.results import RESULT_KEY
from orrery.manifest import known_secrets
from orrery.manifest.dbt import Dbt
from orrery.publish.leaks import LeakError, check_files
from orrery.publish.operator import PublishOperator

PASSWORD = 'pr0file"/Password'
PROFILE = BASE["dbt/profiles.yml"].replace("password: p,", f"password: '{PASSWORD}',")
# dbt's Jinja knows how it reaches the warehouse: whoever writes its models has the same rights.
LEAK = "{{ config(meta={'x': adapter.config.credentials.password}) }} select 1\n"


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test begins with no known secret."""
    monkeypatch.setattr(known_secrets, "_known", {})


@pytest.fixture
def files(write_project: WriteProject) -> dict[str, bytes]:
    """What dbt makes of a project with a model that contains its password."""
    project = write_project(
        {
            **BASE,
            "dbt/profiles.yml": PROFILE,
            "dbt/models/a.sql": "select 1 as id\n",
            "dbt/models/leak.sql": LEAK,
        }
    )
    dbt = Dbt(project)
    dbt.parse()
    page = dbt.docs([])
    return {
        "manifest.json": (dbt.target_dir / "manifest.json").read_bytes(),
        "index.html": page.read_bytes(),
    }


def test_a_node_with_the_password_is_named(files: dict[str, bytes]) -> None:
    for name, place in (("manifest.json", "in 'x' of model.tiny.leak"), ("index.html", "in model.tiny.leak")):
        with pytest.raises(LeakError) as caught:
            check_files({name: files[name]})
        told = str(caught.value)
        assert told.startswith(
            f"{name} is not published: it contains a secret, that of the profile in profiles.yml, {place}.\n"
        )
        assert PASSWORD not in told
    clean = json.loads(files["manifest.json"])
    del clean["nodes"]["model.tiny.leak"]
    check_files({"manifest.json": json.dumps(clean).encode(), "index.html": b"<html></html>"})


def test_results_and_reports_are_searched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(known_secrets, "_known", {PASSWORD: "A", json.dumps(PASSWORD)[1:-1]: "A"})
    results = {"results": [{"message": PASSWORD, "unique_id": "model.tiny.a"}, {"unique_id": "model.tiny.b"}]}
    with pytest.raises(LeakError, match=r"run_results.json .* in 'message' of model.tiny.a\."):
        check_files({"run_results.json": json.dumps(results).encode()})
    encoded = base64.b64encode(json.dumps({"sql": PASSWORD}).encode()).decode()
    report = f"<script>window.elementaryData = JSON.parse(atob('{encoded}'));</script>".encode()
    with pytest.raises(LeakError, match=r"elementary.html .* in what was collected from runs\."):
        check_files({"elementary.html": report})


def test_the_task_fails_and_publishes_nothing(
    write_project: WriteProject, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write_project({"dbt/profiles.yml": PROFILE})
    # The task is a process of its own, and may have called no dbt.
    monkeypatch.setattr(known_secrets, "_known", {})

    class Publishing(PublishOperator):
        def _files(self, context: Any, options: RunOptions) -> dict[str, bytes]:
            return files

    told: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id="shop",
        run_id="r1",
        task_id="publish.docs",
        get_task_states=lambda dag_id, run_ids: {"r1": {}},
        xcom_push=lambda key, value: told.update({key: value}),
    )
    context: Any = {"ti": ti, "params": {}, "dag_run": SimpleNamespace(conf={}, dag_id="shop", run_id="r1")}
    task = Publishing(stage="publish", publish=Publish(), documented=(), task_id="docs")
    with pytest.raises(AirflowFailException, match=r"model\.tiny\.leak"):
        task.execute(context)
    assert told[RESULT_KEY]["status"] == "error"
    assert not (project.target_dir / "published").exists()
