"""What a user sees of a pipeline in Airflow's web interface, in a real browser."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from support.live import Done, Live
from support.waiting import wait_for

pytestmark = pytest.mark.browser

DAG = "booking_analytics"
STAGES = ("seed", "source_freshness", "source_tests", "staging", "snapshot", "core", "tests")
MODEL = "core.fct_bookings"


@pytest.fixture
def run_url(live: Live, booking_run: Done) -> str:
    """The page of the finished run; it opens with the graph."""
    return f"{live.info.url}/dags/{DAG}/runs/{quote(booking_run.run_id, safe='')}"


def test_graph_shows_stages_and_their_tasks(page: Page, live: Live, run_url: str) -> None:
    page.goto(run_url)
    for stage in STAGES:
        group = page.get_by_test_id(f"rf__node-{stage}")
        expect(group).to_contain_text(stage)
        expect(group).to_contain_text("success")
    model = page.get_by_test_id(f"rf__node-{MODEL}")
    expect(model).to_have_count(0)
    page.get_by_test_id("rf__node-core").get_by_role("button", name="Tasks").click()
    for path in (live.dbt / "models" / DAG / "core").glob("*.sql"):
        node = page.get_by_test_id(f"rf__node-core.{path.stem}")
        expect(node).to_contain_text(path.stem)
        expect(node).to_contain_text("success")
    expect(model).to_contain_text("dbt model")
    show_whole_graph(page)


def test_every_task_is_green(page: Page, live: Live, run_url: str) -> None:
    page.goto(run_url)
    page.get_by_test_id("expand-all-button").click()
    for task in live.airflow.get(f"/dags/{DAG}/tasks")["tasks"]:
        # There are no dbt packages.
        state = "skipped" if task["task_id"] == "publish.elementary" else "success"
        expect(page.get_by_test_id(f"rf__node-{task['task_id']}")).to_contain_text(state)
    show_whole_graph(page)


def show_whole_graph(page: Page) -> None:
    """Give the graph all the room that there is, for the picture of it."""
    page.get_by_label("Collapse Details Panel").click()
    graph = page.get_by_test_id("rf__wrapper")
    wait_for("the panel is closed", lambda: (graph.bounding_box() or {"width": 0})["width"] > 1400)
    page.get_by_label("Fit View").click()


def test_model_is_documented(page: Page, live: Live, run_url: str) -> None:
    page.goto(f"{live.info.url}/dags/{DAG}/tasks/{MODEL}")
    page.get_by_test_id("markdown-button").click()
    documentation = page.get_by_role("dialog")
    expect(documentation).to_contain_text("Built incrementally: a run reads the bookings that changed")
    expect(documentation).to_contain_text("ref('int_bookings__converted_to_eur')")
    expect(documentation.get_by_role("cell", name="The key of the booking.")).to_be_visible()


def test_compiled_sql_is_shown(page: Page, run_url: str) -> None:
    page.goto(f"{run_url}/tasks/{MODEL}/rendered_templates")
    expect(page.get_by_text("compiled_sql")).to_be_visible()
    shown = page.get_by_text('"warehouse"."dev_core"."int_bookings__converted_to_eur"')
    expect(shown.first).to_be_visible()


def test_log_holds_what_dbt_says(page: Page, run_url: str) -> None:
    page.goto(f"{run_url}/tasks/{MODEL}")
    log = page.get_by_text(re.compile(r"\d+ of \d+ OK created sql incremental model dev_core.fct_bookings"))
    expect(log.first).to_be_attached()
    # One dbt process has run all nodes, but this is the log of one of them.
    lines = page.get_by_text(re.compile(r"\d+ of \d+ (START|OK)"))
    expect(lines).to_have_count(2)


def test_log_of_a_failed_model_explains_it(page: Page, live: Live, booking_run: Done) -> None:
    model = live.dbt / "models" / DAG / "core" / "fct_payments.sql"
    text = model.read_text(encoding="utf-8")
    assert "    net_amount_eur,\n" in text
    try:
        model.write_text(text.replace("    net_amount_eur,\n", "    no_such_column as net_amount_eur,\n"))
        failed = live.orrery("run", DAG, "--select", "fct_payments fct_bookings")
    finally:
        model.write_text(text, encoding="utf-8")
    assert failed.code == 1
    run = f"{live.info.url}/dags/{DAG}/runs/{quote(failed.run_id, safe='')}"
    page.goto(f"{run}/tasks/core.fct_payments")
    expect(page.get_by_text('column "no_such_column" does not exist').first).to_be_attached()
    expect(page.get_by_text("no_such_column as net_amount_eur").first).to_be_attached()
    page.goto(f"{run}/tasks/core.fct_payments/rendered_templates")
    expect(page.get_by_text("no_such_column").first).to_be_visible()
    page.goto(f"{run}/tasks/core.fct_bookings")
    expect(
        page.get_by_text(re.compile("OK created sql incremental model dev_core.fct_bookings")).first
    ).to_be_attached()
    expect(page.get_by_text("no_such_column")).to_have_count(0)
    assert live.orrery("build").code == 0


def test_trigger_form_offers_the_choices_of_a_run(page: Page, live: Live, booking_run: Done) -> None:
    page.goto(f"{live.info.url}/dags/{DAG}")
    page.get_by_test_id("trigger-dag-button").click()
    form = page.get_by_role("dialog")
    expect(form.get_by_role("checkbox", name="Full refresh")).to_be_attached()
    for title in ("Select", "Exclude", "Vars", "Stages to leave out", "Threads"):
        # A required one has a mark behind its title.
        expect(form.get_by_text(re.compile(rf"^\s*{title}\s*\*?\s*$")).first).to_be_attached()
    form.get_by_role("combobox").click()
    for stage in STAGES:
        expect(form.get_by_role("option", name=stage, exact=True)).to_be_attached()
