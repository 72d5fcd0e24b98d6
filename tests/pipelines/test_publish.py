"""What a real run publishes, and what becomes of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.live import Live

pytestmark = pytest.mark.integration

MODELS = ("trial_divided", "trial_quotients", "trial_slow", "trial_both", "trial_sourced")
PUBLISH = {"publish.docs", "publish.artifacts"}


def published(live: Live, pipeline: str, folder: str = "latest") -> dict[str, Any]:
    """What is published, by name; JSON is parsed."""
    paths = (live.dbt / "target" / "published" / pipeline / folder).iterdir()
    return {
        path.name: json.loads(path.read_bytes()) if path.suffix == ".json" else path.read_text()
        for path in paths
    }


def statuses(run_results: Any) -> dict[str, str]:
    """dbt's word for each node, by name; hooks are left out."""
    return {
        each["unique_id"].split(".")[2]: each["status"]
        for each in run_results["results"]
        if not each["unique_id"].startswith("operation.")
    }


def runs(live: Live, pipeline: str) -> list[Path]:
    """The folders of the runs, the oldest first."""
    return sorted((live.dbt / "target" / "published" / pipeline / "runs").iterdir())


def check_docs(html: str, catalog: Any) -> None:
    for model in MODELS:
        assert f'"model.orrery_demo.{model}"' in html
    # With types of columns, which only the warehouse knows.
    assert catalog["nodes"]["model.orrery_demo.trial_slow"]["columns"]["id"]["type"] == "integer"
    assert [uid.split(".")[2] for uid in catalog["sources"]] == ["trial_phases"]


def test_a_run_is_published_whatever_becomes_of_it(live: Live) -> None:
    done = live.orrery("run", "trial_published")
    assert done.code == 0, done.output
    files = published(live, "trial_published")
    assert sorted(files) == [
        "catalog.json",
        "index.html",
        "manifest.json",
        "run_results.json",
        "sources.json",
    ]
    check_docs(files["index.html"], files["catalog.json"])
    # A seed makes the source, so dbt is called before and after its check.
    assert statuses(files["run_results.json"]) == dict.fromkeys((*MODELS, "trial_phase_seed"), "success")
    assert statuses(files["sources.json"]) == {"trial_phases": "pass"}
    assert "pg_sleep(0)" in files["manifest.json"]["nodes"]["model.orrery_demo.trial_slow"]["compiled_code"]
    assert f"file://{live.dbt}/target/published/trial_published/latest" in done.output.replace("\n", "")
    edges = live.airflow.edges("trial_published")
    assert ("core.trial_both", "finished") in edges
    assert not {after for before, after in edges if before in PUBLISH} - PUBLISH
    assert live.airflow.states("trial_published", done.run_id)["finished"] == "success"

    # A failed run: its tasks that are held back have ended long before the slow one.
    failed = live.orrery("run", "trial_published", "--vars", "{divisor: 0, pause: 3}")
    assert failed.code == 1
    assert "trial_published: failed" in failed.output
    states = live.airflow.states("trial_published", failed.run_id)
    assert {task_id for task_id, state in states.items() if state == "failed"} == {"core.trial_divided"}
    assert states["finished"] == "upstream_failed"
    assert {states[task_id] for task_id in PUBLISH} == {"success"}
    files = published(live, "trial_published")
    assert statuses(files["run_results.json"]) == {
        **dict.fromkeys(("trial_phase_seed", "trial_sourced", "trial_slow"), "success"),
        **dict.fromkeys(("trial_quotients", "trial_both"), "skipped"),
        "trial_divided": "error",
    }
    check_docs(files["index.html"], files["catalog.json"])
    assert "1 / 0 as id" in files["index.html"]
    # It has started nothing that comes after; the one before it has.
    (told,) = live.airflow.runs("trial_told")
    assert live.airflow.wait_ended("trial_told", told["dag_run_id"]) == "success"
    # Only one is kept.
    (kept,) = runs(live, "trial_published")
    assert published(live, "trial_published", f"runs/{kept.name}")["run.json"]["run_id"] == failed.run_id

    # What a retry changes is published again, as the same run.
    assert live.orrery("retry", "trial_published", "--failed").code == 1
    assert runs(live, "trial_published") == [kept]
    tasks = live.airflow.tasks("trial_published", failed.run_id)
    assert {tasks[task_id]["try_number"] for task_id in PUBLISH} == {2}
    assert statuses(published(live, "trial_published")["run_results.json"])["trial_slow"] == "success"


def test_each_task_with_a_dbt_of_its_own(live: Live) -> None:
    done = live.orrery("run", "trial_published_per_model")
    assert done.code == 0, done.output
    files = published(live, "trial_published_per_model")
    assert '"model.orrery_demo.trial_slow"' in files["index.html"]
    assert statuses(files["run_results.json"]) == dict.fromkeys(("trial_divided", "trial_slow"), "success")
    assert "sources.json" not in files
    assert files["manifest.json"]["nodes"]
