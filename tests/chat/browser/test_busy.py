"""The page in a room where much is said, and in one where much has been said."""

from tests.chat.browser.conftest import OpenPage
from tests.chat.browser.pages import wait_shown
from tests.chat.browser.served import Service


def test_a_message_takes_no_focus_and_no_click_away(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#click")
    harbour = page.locator("#rooms .open", has_text="harbour")
    harbour.focus()
    service.post("click", "one")
    wait_shown(page, 1)
    focused = page.evaluate("document.activeElement.textContent")
    box = harbour.bounding_box() or {}
    page.mouse.move(box["x"] + 20, box["y"] + 10)
    page.mouse.down()
    service.post("click", "two")
    wait_shown(page, 2)
    page.mouse.up()

    assert focused == "harbour"
    assert page.inner_text("#title") == "harbour"


def test_the_list_of_rooms_follows_what_is_opened_read_and_left(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#listed")
    page.fill("#room-name", "last")
    page.press("#room-name", "Enter")
    service.post("listed", "unread")
    page.wait_for_selector("#rooms li:has-text('listed') b:text-is('1')")
    page.get_by_label("Leave harbour").click()
    unread = page.locator("#rooms li").all_inner_texts()
    page.locator("#rooms .open", has_text="listed").click()
    read = page.locator("#rooms li").all_inner_texts()
    for room in ("lobby", "galley", "listed"):
        page.get_by_label(f"Leave {room}").click()

    assert [" ".join(text.split()) for text in unread] == ["lobby ×", "galley ×", "listed 1 ×", "last ×"]
    assert [" ".join(text.split()) for text in read] == ["lobby ×", "galley ×", "listed ×", "last ×"]
    assert page.locator("#rooms li").all_inner_texts() == ["last"]
    assert page.locator("#rooms [aria-current]").count() == 1
