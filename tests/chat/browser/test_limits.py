"""What the page says of what it cannot do, and what it does without what a browser may lack."""

import json
from pathlib import Path

import pytest
import trio
from playwright.sync_api import Page, Playwright

from service.platform.testing.processes import started
from tests.chat.browser.conftest import QUIET, OpenPage
from tests.chat.browser.pages import shown, wait_shown, write
from tests.chat.browser.served import NETWORK, QUICK, Service

NO_ROOM = "A room is called by 1 to 64 letters from a to z, digits and -."


def told(page: Page) -> str:
    page.wait_for_selector("#status-text:text('was not opened')")
    return page.inner_text("#status-text")


def test_an_address_that_names_no_room_is_said_to_name_none(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#Caf%C3%A9", state="")
    at_first = told(page), page.url
    page.evaluate("location.hash = '#harbour'")
    page.wait_for_selector("#title:text-is('harbour')")
    page.evaluate(f"location.hash = '#{'x' * 65}'")
    page.wait_for_selector(f"#status-text:text('{'x' * 64}')")
    later = told(page), page.url

    assert at_first == (f"#Caf%C3%A9 was not opened. {NO_ROOM}", f"{service.url}/#lobby")
    assert later == (f"#{'x' * 64} was not opened. {NO_ROOM}", f"{service.url}/#harbour")


def test_the_link_to_the_message_leads_there_and_to_no_room(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#skip")
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("here")
    page.keyboard.press("Enter")
    wait_shown(page, 1)

    assert shown(page) == [(1, "here")]
    assert page.inner_text("#title") == "skip"


def test_tabs_that_opened_more_rooms_than_one_can_be_in_leave_each_its_own(
    service: Service, open_page: OpenPage
) -> None:
    one = open_page(f"{service.url}/#lobby")
    other = one.context.new_page()
    other.goto(f"{service.url}/#lobby")
    for tab, name in ((one, "one"), (other, "other")):
        for number in range(29):
            tab.fill("#room-name", f"{name}-{number}")
            tab.press("#room-name", "Enter")
    other.reload()
    write(other, "to the last")
    wait_shown(other, 1)

    assert other.inner_text("#title") == "other-28"
    assert other.locator("#rooms li").count() == 32


def test_a_message_that_is_too_long_is_said_to_be(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#long")
    said = "element => element.validationMessage"
    write(page, "x" * 10_000)
    too_long = page.eval_on_selector("#text", said)
    write(page, "x" * 4_000)
    wait_shown(page, 1)

    assert too_long == "A message has at most 4000 characters; this one has 10000."
    assert page.eval_on_selector("#text", said) == ""


def test_an_origin_that_is_not_allowed_is_said_to_be_refused(
    service: Service, open_page: OpenPage, tmp_path: Path
) -> None:
    """As behind a proxy that does not hand on the Host which the browser asked for."""
    elsewhere = {"database_url": service.database_url, "allowed_origins": "https://chat.example.org", **QUICK}
    with started(tmp_path, "serve", **elsewhere) as process:
        trio.run(process.wait_ready)
        page = open_page(f"{process.public}/#origin", state="offline", forgiven=NETWORK)
        page.wait_for_selector("#status-text:text('the origin')")

        said = page.inner_text("#status-text")

    reason = f"pages of the origin '{process.public}' are not allowed to do this"
    assert said.startswith(f"Offline. The server answers, and refuses this page: {reason}.")


def test_what_was_given_up_with_its_room_is_not_sent_later(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#given-up")
    page.wait_for_selector("#empty")
    page.clock.install(time=0)
    page.clock.pause_at(60)  # no repeat is sent before its room is left, however long that takes
    page.on("dialog", lambda dialog: dialog.accept())
    service.execute("ALTER TABLE chat_message RENAME TO chat_message_away")
    try:
        write(page, "given up")
        page.wait_for_selector("#status[data-state=waiting]")
    finally:
        service.execute("ALTER TABLE chat_message_away RENAME TO chat_message")
    page.get_by_label("Leave given-up").click()
    page.evaluate("location.hash = '#given-up'")
    page.wait_for_selector("#empty")
    page.clock.run_for(15_000)
    page.clock.resume()
    write(page, "after")
    wait_shown(page, 1)

    assert shown(page) == [(1, "after")]
    assert page.text_content("#fact-reconnects") == "0"


def test_the_page_works_where_the_browser_keeps_nothing(
    service: Service, driver: Playwright, chromium: str, tmp_path: Path
) -> None:
    preferences = tmp_path / "Default" / "Preferences"
    preferences.parent.mkdir()
    preferences.write_text(json.dumps({"profile": {"default_content_setting_values": {"cookies": 2}}}))
    with driver.chromium.launch_persistent_context(tmp_path, executable_path=chromium, args=QUIET) as context:
        page = context.new_page()
        page.goto(f"{service.url}/#nothing")
        with pytest.raises(Exception, match="Access is denied"):
            page.evaluate("localStorage")
        write(page, "said")
        wait_shown(page, 1)

        assert shown(page) == [(1, "said")]


@pytest.mark.parametrize(
    "kept",
    [
        {"rooms": {"lobby": 1}, "name": 7, "own": "abc", "wired": "no", "pending.kept": 1},
        {"rooms": [["lobby"], None, "odd"], "own": {"a": 1}, "pending.kept": [None, 1, {"id": "a", "text": 2}]},
        {"rooms": 5, "name": ["Ada"], "own": 1, "pending.kept": [{"id": "a", "text": "b", "at": "never"}]},
    ],
)
def test_what_the_browser_keeps_and_the_page_did_not_write_is_passed_over(
    service: Service, open_page: OpenPage, kept: dict[str, object]
) -> None:
    page = open_page(f"{service.url}/#before")
    page.evaluate(
        """kept => {
            for (const [key, value] of Object.entries(kept))
                for (const store of [localStorage, sessionStorage]) store.setItem(`chat.${key}`, JSON.stringify(value));
        }""",
        kept,
    )
    page.goto(f"{service.url}/?again#kept")
    page.wait_for_selector("#status[data-state=open]")
    write(page, "said")
    wait_shown(page, 1)

    assert "said" in [text for _, text in shown(page)]
    assert page.evaluate("JSON.parse(localStorage.getItem('chat.rooms')).includes('kept')")
