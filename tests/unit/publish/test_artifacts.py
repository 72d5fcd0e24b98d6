"""One artifact of a whole run, from those of dbt's commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from orrery.execute.run_folder import keep_results
from orrery.publish.artifacts import read_artifacts


def results(invocation: str, seconds: float, **status: str) -> dict[str, Any]:
    """A run_results.json or sources.json."""
    return {
        "metadata": {"invocation_id": invocation},
        "results": [{"unique_id": uid, "status": told} for uid, told in status.items()],
        "elapsed_time": seconds,
    }


def test_the_last_result_of_each_node_counts(tmp_path: Path) -> None:
    commands = [
        results("1", 2.0, a="success", b="error", c="skipped"),
        results("2", 1.5, b="success", c="error"),
    ]
    for command in commands:
        (tmp_path / "run_results.json").write_text(json.dumps(command))
        # A check of freshness between two builds leaves the results of the first.
        for _ in range(2):
            keep_results(tmp_path, tmp_path)
    found = json.loads(read_artifacts(tmp_path)["run_results.json"])
    assert {each["unique_id"]: each["status"] for each in found["results"]} == {
        "a": "success",
        "b": "success",
        "c": "error",
    }
    assert found["elapsed_time"] == 3.5
    assert found["metadata"]["invocation_id"] == "2"


def test_what_is_there(tmp_path: Path) -> None:
    assert read_artifacts(tmp_path / "none") == {}
    (tmp_path / "sources.json").write_text(json.dumps(results("1", 1.0, s="pass")))
    keep_results(tmp_path, tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("manifest.json", "catalog.json"):
        (tmp_path / "docs" / name).write_text(f"docs {name}")
    found = read_artifacts(tmp_path)
    assert sorted(found) == ["catalog.json", "manifest.json", "sources.json"]
    assert found["manifest.json"] == b"docs manifest.json"
    # That of the build knows the SQL that was run.
    (tmp_path / "manifest.json").write_text("of the build")
    assert read_artifacts(tmp_path)["manifest.json"] == b"of the build"
