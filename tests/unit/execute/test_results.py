"""dbt's artifacts as the results of a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orrery.execute.results import NodeResult, failing, read_results, summary

RESPONSE = {"_message": "SELECT 3", "code": "SELECT", "rows_affected": 3}


def run_result(unique_id: str, status: str = "success", **more: Any) -> dict[str, Any]:
    """An entry of run_results.json as dbt-postgres writes it."""
    return {
        "unique_id": unique_id,
        "status": status,
        "execution_time": 1.25,
        "adapter_response": RESPONSE,
        "failures": None,
        "message": "SELECT 3",
        **more,
    }


def write(target: Path, name: str, *results: dict[str, Any]) -> None:
    (target / name).write_text(json.dumps({"metadata": {}, "results": results}))


def test_a_model(tmp_path: Path) -> None:
    write(tmp_path, "run_results.json", run_result("model.shop.a"))
    results = read_results(tmp_path)
    assert results == [NodeResult("model.shop.a", "success", 1.25, 3, None, "SELECT 3", RESPONSE)]
    assert summary(results) == {
        "status": "success",
        "seconds": 1.25,
        "rows_affected": 3,
        # A success has nothing to say.
        "message": None,
        "nodes": [
            {
                "unique_id": "model.shop.a",
                "status": "success",
                "seconds": 1.25,
                "rows_affected": 3,
                "failures": None,
                "message": "SELECT 3",
                "adapter_response": RESPONSE,
            }
        ],
    }


@pytest.mark.parametrize("response", [{"rows_affected": -1}, {"rows_affected": "many"}, {}, None])
def test_rows_that_the_adapter_does_not_know(tmp_path: Path, response: dict[str, Any] | None) -> None:
    write(tmp_path, "run_results.json", run_result("model.shop.a", adapter_response=response))
    results = read_results(tmp_path)
    assert (results[0].rows_affected, results[0].adapter_response) == (None, response or {})
    assert summary(results)["rows_affected"] is None


def test_zero_rows_are_rows(tmp_path: Path) -> None:
    write(tmp_path, "run_results.json", run_result("model.shop.a", adapter_response={"rows_affected": 0}))
    assert summary(read_results(tmp_path))["rows_affected"] == 0


def test_rows_and_seconds_add_up(tmp_path: Path) -> None:
    view = run_result("model.shop.v", adapter_response={"rows_affected": -1})
    write(tmp_path, "run_results.json", run_result("seed.shop.a"), view, run_result("snapshot.shop.b"))
    total = summary(read_results(tmp_path))
    assert (total["rows_affected"], total["seconds"]) == (6, 3.75)


def test_the_rows_of_a_test_are_none(tmp_path: Path) -> None:
    # The adapter reports one row: the count of failures.
    failed = run_result(
        "test.shop.t", "fail", failures=4, message="Got 4 results, configured to fail if != 0"
    )
    write(tmp_path, "run_results.json", failed)
    (result,) = read_results(tmp_path)
    assert (result.rows_affected, result.failures) == (None, 4)


def test_the_worst_status_counts_and_only_bad_news_are_shown(tmp_path: Path) -> None:
    write(
        tmp_path,
        "run_results.json",
        run_result("test.shop.passed", "pass", message="fine"),
        run_result("test.shop.warned", "warn", message="Got 2 results, configured to warn if != 0"),
        run_result("test.shop.other", "pass", message=None),
    )
    total = summary(read_results(tmp_path))
    assert (total["status"], total["message"]) == (
        "warn",
        "warned: Got 2 results, configured to warn if != 0",
    )


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [
        (["success", "skipped"], "skipped"),
        (["warn", "skipped"], "warn"),
        (["fail", "warn"], "fail"),
        (["partial success", "fail"], "partial success"),
        (["success", "reused"], "reused"),
        (["fail", "error", "pass"], "error"),
        # A freshness check that could not be made.
        (["pass", "runtime error", "warn"], "runtime error"),
        (["error", "a status of tomorrow"], "a status of tomorrow"),
        ([], "success"),
    ],
)
def test_order_of_statuses(statuses: list[str], worst: str) -> None:
    results = [NodeResult(f"x{i}", status, 0, None, None, "m") for i, status in enumerate(statuses)]
    assert summary(results)["status"] == worst


@pytest.mark.parametrize(
    ("status", "fails"),
    [
        *(("success", False), ("pass", False), ("no-op", False), ("reused", False), ("skipped", False)),
        *(
            ("warn", False),
            ("fail", True),
            ("partial success", True),
            ("runtime error", True),
            ("error", True),
        ),
        ("a status of tomorrow", True),
    ],
)
def test_which_statuses_are_failures(status: str, fails: bool) -> None:
    assert failing(status) is fails


def test_unit_tests_of_a_model_are_told_apart() -> None:
    names = ("first", "second")
    results = [NodeResult(f"unit_test.shop.a.{name}", "fail", 0, None, None, "differs") for name in names]
    assert summary(results)["message"] == "first: differs\nsecond: differs"


def test_messages_of_several_failures() -> None:
    results = [
        NodeResult("a", "error", 0, None, None, "first"),
        NodeResult("b", "error", 0, None, None, None),
        NodeResult("c", "fail", 0, None, 1, "second"),
    ]
    assert summary(results)["message"] == "first\nsecond"


def test_freshness(tmp_path: Path) -> None:
    write(
        tmp_path,
        "sources.json",
        {
            "unique_id": "source.s.a.fresh",
            "status": "pass",
            "max_loaded_at": "2026-01-31T06:00:00Z",
            "max_loaded_at_time_ago_in_s": 61.4,
            "execution_time": 0.5,
            "adapter_response": {"bytes_processed": 4096},
        },
        {
            "unique_id": "source.s.a.old",
            "status": "warn",
            "max_loaded_at_time_ago_in_s": 7201.0,
            "execution_time": 0.5,
        },
        # What could not be checked has neither an age nor a time.
        {"unique_id": "source.s.a.lost", "status": "runtime error", "error": "relation does not exist"},
    )
    results = read_results(tmp_path)
    assert results == [
        NodeResult(
            *("source.s.a.fresh", "pass", 0.5, None, None, "loaded 61 s ago"),
            {"bytes_processed": 4096, "max_loaded_at": "2026-01-31T06:00:00Z"},
        ),
        NodeResult("source.s.a.old", "warn", 0.5, None, None, "loaded 7201 s ago"),
        NodeResult("source.s.a.lost", "runtime error", 0.0, None, None, "relation does not exist"),
    ]
    total = summary(results)
    assert (total["status"], total["message"]) == (
        "runtime error",
        "loaded 7201 s ago\nrelation does not exist",
    )


def test_a_freshness_check_leaves_no_run_results(tmp_path: Path) -> None:
    write(tmp_path, "run_results.json", run_result("model.shop.older"))
    write(tmp_path, "sources.json", {"unique_id": "source.s.a.b", "status": "pass"})
    assert [result.unique_id for result in read_results(tmp_path)] == ["source.s.a.b"]


def test_dbt_that_wrote_nothing(tmp_path: Path) -> None:
    assert read_results(tmp_path) == []
    assert summary([]) == {
        "status": "success",
        "seconds": 0,
        "rows_affected": None,
        "message": None,
        "nodes": [],
    }
