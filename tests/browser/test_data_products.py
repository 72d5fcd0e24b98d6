"""The page "Data products" as a user finds it in Airflow, in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, StorageState, expect

from browser.conftest import HEIGHT, OUTPUT, WIDTH, log_in, new_context
from support.live import Done, Live
from support.pages import LATE
from support.past import add_past

pytestmark = pytest.mark.browser

NAME = "trial_pages"
FRAME = 'iframe[title="Data products"]'
PAST = 12


@pytest.fixture(scope="module")
def failed_run(live: Live) -> Done:
    """A run with a failed test, and some before it."""
    done = live.orrery("run", NAME, "--vars", "{limit: 600}")
    assert done.code == 1, done.output
    add_past(live, NAME, done.run_id, PAST, test="unique_page_orders_id")
    return done


@pytest.fixture(scope="module")
def user(browser: Browser, live: Live, failed_run: Done) -> StorageState:
    """Somebody who has logged in."""
    return log_in(browser, live)


@pytest.fixture
def window(browser: Browser, user: StorageState) -> Iterator[Page]:
    """An empty window. A page that breaks its own policy fails the test."""
    with new_context(browser, user) as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        yield page
        assert [text for text in said if "Content Security Policy" in text] == []


def products(page: Page, live: Live) -> FrameLocator:
    """Open the list by the menu."""
    page.goto(live.info.url)
    page.get_by_role("link", name="Data products").click()
    frame = page.frame_locator(FRAME)
    shows(page, frame, "Data products")
    return frame


def shows(page: Page, frame: FrameLocator, heading: str) -> None:
    """Wait for a page with what the ledger holds: a busy warehouse may be too slow for it once."""
    expect(frame.get_by_role("heading", name=heading)).to_be_visible()
    if frame.get_by_text(LATE).count():
        page.reload()
        expect(frame.get_by_role("heading", name=heading)).to_be_visible()


def shot(page: Page, name: str) -> None:
    """Keep a picture."""
    page.screenshot(path=OUTPUT / f"{name}.png")


def test_from_the_menu_to_a_pipeline_and_its_run(window: Page, live: Live, failed_run: Done) -> None:
    frame = products(window, live)
    row = frame.get_by_role("row").filter(has_text=NAME)
    expect(row).to_contain_text("failed")
    expect(row).to_contain_text("assert_page_customers_are_few")
    expect(row).to_contain_text("<script>document.title")
    shot(window, "data_products")
    row.get_by_role("link", name=NAME, exact=True).click()
    shows(window, frame, NAME)
    expect(frame.locator("svg.full .bar").nth(PAST)).to_be_attached()
    expect(frame.locator(".grid-table").get_by_text("unique_page_orders_id")).to_be_visible()
    expect(frame.locator(".trend-line")).to_have_count(3)
    assert "taken over" not in window.title()
    shot(window, "data_product")
    # The address leads back to the same page.
    window.reload()
    expect(frame.get_by_role("heading", name=NAME)).to_be_visible()
    # A link to Airflow leads Airflow's own window.
    frame.locator(".tile").get_by_role("link", name="failed", exact=True).click()
    expect(window).to_have_url(
        re.compile(
            f"{re.escape(live.info.url)}/dags/{NAME}/runs/{re.escape(quote(failed_run.run_id, safe=''))}"
        )
    )
    expect(window.locator(FRAME)).to_have_count(0)


def test_the_docs_open_inside_airflow(window: Page, live: Live) -> None:
    frame = products(window, live)
    frame.get_by_role("row").filter(has_text=NAME).get_by_role("link", name="Docs").click()
    docs = frame.frame_locator(f'iframe[title="Documentation of {NAME}"]')
    expect(docs.get_by_text("page_orders").first).to_be_attached()
    expect(docs.get_by_text("Overview").first).to_be_visible()
    shot(window, "docs_in_airflow")
    frame.get_by_role("link", name=NAME, exact=True).click()
    expect(frame.get_by_role("heading", name=NAME)).to_be_visible()


def test_the_tab_of_a_dag(window: Page, live: Live) -> None:
    window.goto(f"{live.info.url}/dags/{NAME}")
    window.get_by_role("link", name="Data product", exact=True).click()
    frame = window.frame_locator('iframe[title="Data product"]')
    expect(frame.get_by_role("heading", name=NAME)).to_be_visible()


@pytest.mark.parametrize("width", [WIDTH, 1280])
def test_dark_and_narrow(browser: Browser, user: StorageState, live: Live, width: int) -> None:
    with new_context(browser, user) as context:
        context.add_init_script("localStorage.setItem('theme', 'dark')")
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": HEIGHT})
        frame = products(page, live)
        expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
        ground = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        assert max(int(part) for part in re.findall(r"\d+", ground)[:3]) < 40
        # Nothing is cut off.
        assert frame.locator("html").evaluate("html => html.scrollWidth <= html.clientWidth")
        shot(page, f"data_products_dark_{width}")
        frame.get_by_role("link", name=NAME, exact=True).click()
        expect(frame.get_by_role("heading", name=NAME)).to_be_visible()
        assert frame.locator("html").evaluate("html => html.scrollWidth <= html.clientWidth")
        shot(page, f"data_product_dark_{width}")
