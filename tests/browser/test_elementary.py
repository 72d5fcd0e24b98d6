"""Elementary with its real packages: what runs tell it, and what its report shows in a real browser.

They come from a folder, which ORRERY_TEST_DBT_PACKAGES names and a hub on this machine serves, or from a hub
that can be reached. Without either these tests are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml
from playwright.sync_api import Browser, Page, expect

from browser.conftest import OUTPUT, log_in, new_context
from orrery.manifest.install import HUB, why_unreachable
from services.dbt_hub import DbtHub
from support import trial
from support.live import Live, own_stack

pytestmark = pytest.mark.browser

FOLDER = "ORRERY_TEST_DBT_PACKAGES"
BOOKINGS = "booking_analytics"
# The second has four models that wait for nothing; each is a process of its own.
PIPELINES = {
    "told": "select: trial_divided trial_slow\npublish: {elementary: true, docs: false}\ntests: off\n",
    "told_per_model": (
        "select: trial_numbers stg_trial__numbers trial_divided trial_slow report_rows\n"
        "exclude: assert_numbers_are_even assert_report_rows_are_few\n"
        "publish: {elementary: true, docs: false, artifacts: false}\nexecute: per_model\n"
    ),
}
# Elementary's tables, each with the column that tells its rows apart.
KEYS = {
    "dbt_models": "unique_id",
    "dbt_tests": "unique_id",
    "dbt_sources": "unique_id",
    "dbt_columns": "unique_id",
    "dbt_invocations": "invocation_id",
    "dbt_run_results": "model_execution_id",
    "elementary_test_results": "id",
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Live]:
    """A stack of its own, which installs the packages when it is first built."""
    listed = yaml.safe_load((trial.ROOT / "dbt" / "packages" / "packages.yml").read_bytes())["packages"]
    with ExitStack() as started:
        hub = os.environ.get("DBT_PACKAGE_HUB_URL") or HUB
        if folder := os.environ.get(FOLDER):
            versions = {entry["package"]: entry["version"] for entry in listed}
            hub = started.enter_context(DbtHub(Path(folder), versions)).url
        elif reason := why_unreachable(listed[0]["package"]):
            pytest.skip(f"{reason}, and {FOLDER} names no folder with the dbt packages: docs/elementary.md")
        live = started.enter_context(own_stack(environment={"DBT_PACKAGE_HUB_URL": hub}))
        for name, text in PIPELINES.items():
            (live.dbt / "pipelines" / f"{name}.yml").write_text(text, encoding="utf-8")
        yield live


@pytest.fixture(scope="module")
def run_id(stack: Live) -> str:
    """The first run of the whole demonstration."""
    done = stack.orrery("run", BOOKINGS, seconds=900)
    assert done.code == 0, done.output
    assert "dbt packages are not installed" not in done.output
    return done.run_id


@pytest.fixture
def latest(stack: Live, run_id: str) -> Path:
    """What that run has published."""
    return stack.dbt / "target" / "published" / BOOKINGS / "latest"


@pytest.fixture
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    """An empty page, outside of Airflow."""
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    yield page
    page.screenshot(path=OUTPUT / f"{request.node.name}.png")
    page.close()


def results_of(folder: Path, kind: str) -> dict[str, str]:
    """dbt's word for each node of a kind in the run, by unique id."""
    results = json.loads((folder / "run_results.json").read_bytes())["results"]
    return {each["unique_id"]: each["status"] for each in results if each["unique_id"].startswith(f"{kind}.")}


def figures(text: str, heading: str, count: int) -> list[str]:
    """The lines that follow a heading."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    begin = lines.index(heading) + 1
    return lines[begin : begin + count]


def duplicates(stack: Live) -> dict[str, list[Any]]:
    """The rows of Elementary's tables that are there more than once."""
    found = {
        table: stack.query(f"select {key} from dev_elementary.{table} group by {key} having count(*) > 1")
        for table, key in KEYS.items()
    }
    return {table: rows for table, rows in found.items() if rows}


def told(stack: Live, run_id: str) -> Counter[str]:
    """How often Elementary has the result of each node of a run."""
    rows = stack.query(
        "select unique_id from dev_elementary.dbt_run_results"
        " join dev_elementary.dbt_invocations using (invocation_id)"
        f" where job_run_id = '{run_id}' and resource_type <> 'operation'"
    )
    return Counter(uid for (uid,) in rows)


def test_the_report_shows_the_results_of_the_run(latest: Path, stack: Live, page: Page) -> None:
    tests, models = Counter(results_of(latest, "test").values()), results_of(latest, "model")
    assert tests.keys() == {"pass", "warn"}
    report = latest / "elementary.html"
    html = report.read_text(encoding="utf-8")
    encoded = re.search(r"atob\('([^']+)'\)", html)
    assert encoded
    data = json.loads(base64.b64decode(encoded[1]))
    assert data["tracking"] is None
    totals = Counter[str]()
    for total in data["test_results_totals"].values():
        totals.update(total)
    expected = {"passed": tests["pass"], "warnings": tests["warn"], "failures": 0, "errors": 0}
    assert dict(totals) == expected
    assert {each["unique_id"]: each["status"] for each in data["model_runs"]} == models
    assert {each["job_url"] for each in data["invocations"]} == {f"{stack.info.url}/dags/{BOOKINGS}"}

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(report.as_uri())
    expect(page.get_by_text("Test results breakdown")).to_be_visible()
    text = page.inner_text("body")
    shown = [str(tests.total()), "Tests", str(tests["pass"]), str(tests["warn"])]
    assert figures(text, "Test results breakdown", 4) == shown
    assert figures(text, "Model runs", 4) == [str(len(models)), "Models", str(len(models)), "Success"]
    # Its test of the number of rows, and that of the columns.
    assert figures(text, "Volume", 2) == figures(text, "Schema changes", 2) == ["1", "1"]
    assert {url.partition(":")[0] for url in asked} <= {"file", "data"}
    # No password, which is in the environment of all that has made it.
    password = stack.stack.dbt_env()["DBT_ENV_SECRET_WAREHOUSE_PASSWORD"]
    assert password
    assert password not in html


def test_the_report_opens_inside_airflow(latest: Path, stack: Live, browser: Browser) -> None:
    tests = Counter(results_of(latest, "test").values())
    with new_context(browser, log_in(browser, stack)) as context:
        window = context.new_page()
        window.goto(stack.info.url)
        window.get_by_role("link", name="Data products").click()
        frame = window.frame_locator('iframe[title="Data products"]')
        row = frame.get_by_role("row").filter(has_text=BOOKINGS)
        row.get_by_role("link", name="Report", exact=True).click()
        report = frame.frame_locator(f'iframe[title="Elementary report of {BOOKINGS}"]')
        expect(report.get_by_text("Test results breakdown")).to_be_visible()
        shown = [str(tests.total()), "Tests", str(tests["pass"]), str(tests["warn"])]
        assert figures(report.locator("body").inner_text(), "Test results breakdown", 4) == shown
        window.screenshot(path=OUTPUT / "elementary_in_airflow.png")


def test_elementary_knows_each_result_of_a_run_once(latest: Path, stack: Live, run_id: str) -> None:
    nodes = {
        uid for kind in ("seed", "snapshot", "model", "test", "unit_test") for uid in results_of(latest, kind)
    }
    assert told(stack, run_id) == dict.fromkeys(nodes, 1)
    assert duplicates(stack) == {}
    # Its models are no tasks.
    tasks = stack.airflow.states(BOOKINGS, run_id)
    assert [task_id for task_id in tasks if "elementary" in task_id] == ["publish.elementary"]

    # A node that runs again, in a build of its own, has one more result.
    again = stack.orrery("retry", BOOKINGS, "--model", "fct_payments", seconds=600)
    assert again.code == 0, again.output
    assert told(stack, run_id) == dict.fromkeys(nodes, 1) | {"model.orrery_demo.fct_payments": 2}
    assert duplicates(stack) == {}


def test_tasks_with_a_dbt_of_their_own_leave_no_duplicates(stack: Live, run_id: str) -> None:
    done = stack.orrery("run", "told_per_model", seconds=900)
    assert done.code == 0, done.output
    counts = told(stack, done.run_id)
    assert {uid.split(".")[2] for uid in counts if uid.startswith("model.")} == {
        *("stg_trial__numbers", "trial_divided", "trial_slow", "report_rows")
    }
    assert set(counts.values()) == {1}
    assert duplicates(stack) == {}


def test_a_hook_that_fails_is_a_warning(stack: Live, run_id: str) -> None:
    table = "dev_elementary.dbt_run_results"
    stack.query(f"alter table {table} add constraint nothing check (false) not valid")
    try:
        done = stack.orrery("run", "told", "--skip-stages", "publish", seconds=600)
    finally:
        stack.query(f"alter table {table} drop constraint nothing")
    assert done.code == 0, done.output
    log = stack.state / "logs" / "airflow" / "dag_id=told" / f"run_id={done.run_id}" / "task_id=build"
    said = (log / "attempt=1.log").read_text(encoding="utf-8")
    assert "Elementary lacks results of this run: its hook failed." in said, said
