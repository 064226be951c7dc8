"""A headless Chromium, and pages in it that may not say a word on their console."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from service.platform.testing.fixtures import fresh_database
from tests.chat.browser.served import Service

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

type OpenPage = Callable[..., Page]


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="session")
def chromium(driver: Playwright) -> str:
    """Return the path of a Chromium."""
    found = os.environ.get("TEST_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    found = found or driver.chromium.executable_path
    if not Path(found).exists():
        pytest.skip(f"no {', '.join(NAMES)} on PATH: install Chromium, or name it in TEST_CHROMIUM")
    return found


@pytest.fixture(scope="session")
def browser(driver: Playwright, chromium: str) -> Iterator[Browser]:
    """Launch the shell of that Chromium, if there is one: the same engine takes half of the processor time in it."""
    shell = None if "TEST_CHROMIUM" in os.environ else shutil.which("chromium-headless-shell")
    with driver.chromium.launch(executable_path=shell or chromium, args=QUIET) as browser:
        yield browser


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Yield an opener of pages, each of a person of its own; what one complains about fails the test.

    `forgiven` is a pattern of what Chromium itself logs about a network that a test breaks.
    """
    complaints: list[str] = []
    with ExitStack() as stack:

        def open_page(
            url: str, name: str = "Ada", *, forgiven: str = "$.", state: str = "open", script: str = "", **options: Any
        ) -> Page:
            def note(complaint: str) -> None:
                if not re.match(forgiven, complaint):
                    complaints.append(complaint)

            context = stack.enter_context(browser.new_context(**options))
            context.set_default_timeout(60_000)
            page = context.new_page()
            page.on("console", lambda said: note(said.text) if said.type in {"error", "warning"} else None)
            page.on("pageerror", lambda error: note(str(error)))
            page.add_init_script(script)
            page.add_init_script(f"localStorage.setItem('chat.name', '{json.dumps(name)}')")
            page.goto(url)
            page.wait_for_selector(f"#status[data-state={state}]" if state else "#status")
            return page

        yield open_page
    assert not complaints


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, server_url: str, template: str) -> Iterator[Service]:
    with fresh_database(server_url, template) as database_url, ExitStack() as stack:
        yield Service(tmp_path_factory.mktemp("service"), database_url, stack)
