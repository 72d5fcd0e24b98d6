"""The browser, and pages of the stack that the tests share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, StorageState, expect, sync_playwright

if TYPE_CHECKING:
    from support.live import Done, Live

OUTPUT = Path(__file__).resolve().parents[1] / ".output" / "browser"
WIDTH, HEIGHT = 1600, 1000
# Airflow's pages poll; on a busy machine their first answers take a while.
_TIMEOUT = 60_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of the system, else the one that Playwright has installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    arguments = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
    expect.set_options(timeout=_TIMEOUT)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def logged_in(browser: Browser, live: Live, booking_run: Done) -> StorageState:
    """What the browser keeps of somebody who has logged in to Airflow, after a run of the demonstration."""
    return log_in(browser, live)


def log_in(browser: Browser, live: Live) -> StorageState:
    """Log in to Airflow, and return what the browser keeps of it."""
    with new_context(browser) as context:
        page = context.new_page()
        page.goto(live.info.url)
        page.fill("input[name=username]", live.info.username)
        page.fill("input[name=password]", live.info.password)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_test_id("nav-dags-link")).to_be_visible()
        return context.storage_state()


@pytest.fixture
def page(browser: Browser, logged_in: StorageState, request: pytest.FixtureRequest) -> Iterator[Page]:
    """An empty page; what it shows at the end of the test is kept in tests/.output/browser."""
    with new_context(browser, logged_in) as context:
        page = context.new_page()
        yield page
        page.screenshot(path=OUTPUT / f"{request.node.name}.png")


def new_context(browser: Browser, state: StorageState | None = None) -> BrowserContext:
    """A browser window of its own, with nothing but `state` in its memory."""
    context = browser.new_context(viewport={"width": WIDTH, "height": HEIGHT}, storage_state=state)
    context.set_default_timeout(_TIMEOUT)
    # Pages of a run open with its graph, not with the grid.
    context.add_init_script("localStorage.setItem('default_dag_view', '\"graph\"')")
    return context
