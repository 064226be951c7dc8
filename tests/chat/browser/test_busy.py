"""The page in a room where much is said, and in one where much has been said."""

from playwright.sync_api import Page, Route

from tests.chat.browser.conftest import OpenPage
from tests.chat.browser.pages import FROM_END, shown, wait_shown
from tests.chat.browser.served import NETWORK, Service


def test_a_message_takes_no_focus_and_no_click_away(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#click")
    harbour = page.locator("#rooms .open", has_text="harbour")
    harbour.focus()
    service.post("click", "one")
    wait_shown(page, 1)
    focused = page.evaluate("document.activeElement.textContent")
    harbour.hover()
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


def seqs(page: Page) -> list[int]:
    return [seq for seq, _ in shown(page)]


def wait_seq(page: Page, seq: int) -> None:
    page.wait_for_function("seq => document.querySelector('#fact-seq').textContent === `#${seq}`", arg=seq)


def test_who_comes_back_to_thousands_of_messages_is_shown_the_last_of_them(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(f"{service.url}/#back")
    service.post("back", "one", "two")
    wait_shown(page, 2)
    measures = page.context.new_cdp_session(page)
    measures.send("Performance.enable")
    page.click("#cut")
    service.fill("back", 3_000)
    page.click("#cut")
    wait_seq(page, 3_002)
    page.wait_for_selector("[data-seq='3002']")
    layouts = {one["name"]: one["value"] for one in measures.send("Performance.getMetrics")["metrics"]}["LayoutCount"]

    assert layouts < 1_500  # and not one, or several, for each message
    assert seqs(page) == list(range(seqs(page)[0], 3_003))
    assert 400 <= len(seqs(page)) <= 500
    assert page.locator("#log > :first-child.day + .message .who").inner_text().startswith("Cid")
    assert page.is_visible("[data-seq='3002']")
    assert page.is_hidden("#newer")


def read_back(page: Page, service: Service, room: str) -> None:
    """Have somebody read the first of 61 messages while 1,503 come in."""
    service.post(room, "first")
    service.fill(room, 60)
    wait_shown(page, 61)
    page.evaluate("document.querySelector('#scroller').scrollTop = 0")
    for _ in range(3):
        service.fill(room, 500)
        service.post(room, "and one by hand")
    page.wait_for_selector("#newer:text-is('1503 new ↓')")


def test_who_reads_back_is_told_how_many_came_and_finds_them_all(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#read")
    read_back(page, service, "read")
    kept = len(seqs(page))
    by_scrolling = set(seqs(page))
    while not page.is_hidden("#newer"):
        page.evaluate("document.querySelector('#scroller').scrollTop = 1e9")
        by_scrolling |= set(seqs(page))
    by_scrolling |= set(seqs(page))

    assert kept == 461  # what was there, and the most that is drawn below it
    assert by_scrolling == set(range(1, 1_565))


def test_what_a_slow_tab_draws_at_once_has_the_same_limit(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#slow")
    slower = "() => { const soon = setTimeout; window.setTimeout = (what, wait) => soon(what, wait + 3000); }"
    page.evaluate(slower)  # as the timers of a tab in the background are
    service.post("slow", "first")
    service.fill("slow", 60)
    wait_shown(page, 61)
    page.evaluate("document.querySelector('#scroller').scrollTop = 0")
    service.fill("slow", 1_503)
    page.wait_for_selector("#newer:text-is('1503 new ↓')")

    assert len(seqs(page)) == 461


def test_who_reads_back_through_a_cut_sees_the_same_messages_in_the_same_place(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(f"{service.url}/#through")
    read_back(page, service, "through")
    place = "[document.querySelector('#scroller').scrollTop, document.querySelector('#scroller').scrollHeight]"
    before = page.evaluate(place)
    page.click("#cut")
    service.post("through", "meanwhile")
    page.click("#cut")
    page.wait_for_selector("#newer:text-is('1504 new ↓')")

    assert seqs(page) == list(range(1, 462))
    assert page.evaluate(place) == before


def test_the_button_covers_nothing_of_what_is_being_written(service: Service, open_page: OpenPage) -> None:
    service.post("covers", "first")
    service.fill("covers", 60)
    page = open_page(f"{service.url}/#covers", viewport={"width": 360, "height": 640})
    wait_shown(page, 50)
    page.wait_for_selector("#subtitle:text-is('1 here now')")  # what stood there before took two lines
    page.fill("#text", "a line\n" * 12)
    page.wait_for_function(f"() => document.querySelector('#text').clientHeight > 100 && {FROM_END} < 2")
    page.evaluate("document.querySelector('#scroller').scrollTop = 0")
    page.wait_for_function("() => document.querySelector('#scroller').scrollTop === 0")
    before = page.locator("#scroller").bounding_box()
    service.post("covers", "new")
    page.wait_for_selector("#newer:text-is('1 new ↓')")
    button, composer = page.locator("#newer").bounding_box(), page.locator("#composer").bounding_box()

    assert button
    assert composer
    assert button["y"] + button["height"] < composer["y"]
    assert page.locator("#scroller").bounding_box() == before  # nor does it take room from the messages


def test_the_button_leads_to_the_last_of_what_came_meanwhile(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#button")
    read_back(page, service, "button")
    page.click("#newer")
    service.post("button", "the last")
    page.wait_for_selector("[data-seq='1565']")

    assert seqs(page) == list(range(seqs(page)[0], 1_566))
    assert len(seqs(page)) <= 500
    assert page.is_visible("[data-seq='1565']")
    assert page.is_hidden("#newer")


def test_who_reads_back_is_shown_what_there_is_when_all_that_was_there_is_gone(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(f"{service.url}/#gone", forgiven=NETWORK)
    read_back(page, service, "gone")
    page.click("#cut")
    service.fill("gone", 500)
    service.execute("DELETE FROM chat_message WHERE room = 'gone' AND seq < 2000")
    service.restart()  # its memory would still have them
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/api/rooms/gone/messages*", hold)
    page.click("#cut")
    page.wait_for_selector("#log .note")
    while not held:
        page.wait_for_timeout(20)
    service.post("gone", "new")
    wait_seq(page, 2_065)
    page.wait_for_selector("[data-seq='2065']")

    assert page.is_hidden("#newer")
    held.pop().continue_()
    page.wait_for_selector("[data-seq='2064']")
    assert seqs(page) == list(range(2_015, 2_066))


def test_earlier_messages_come_above_those_that_are_there(service: Service, open_page: OpenPage) -> None:
    service.post("early", "first")
    service.fill("early", 119)
    page = open_page(f"{service.url}/#early")
    wait_shown(page, 50)
    page.evaluate("document.querySelector('[data-seq=\"100\"]').marked = true")
    before = page.locator("[data-seq='100']").bounding_box()
    for least in (100, 120):
        page.click("#earlier")
        wait_shown(page, least)
        page.locator("[data-seq='100']").scroll_into_view_if_needed()

    assert before
    assert page.evaluate("document.querySelector('[data-seq=\"100\"]').marked")
    assert seqs(page) == list(range(1, 121))
    assert page.locator("#log .who bdi").all_inner_texts() == ["Ben", "Cid"]
    assert page.locator("#log .day").count() == 1


BUSY_AFTER = """
    async (room) => {
        const frame = () => new Promise(requestAnimationFrame);
        const live = document.querySelector("#live");
        await frame();
        while (live.ariaBusy === "true") await frame();
        [...document.querySelectorAll("#rooms .open")].find((one) => one.textContent.startsWith(room)).click();
        await frame(); // what is set anew before this one is drawn was never set for a reader
        const busy = live.ariaBusy;
        while (live.ariaBusy === "true") await frame();
        return [busy, live.querySelectorAll(".message").length];
    }
"""


def test_what_was_there_before_is_not_read_aloud(service: Service, open_page: OpenPage) -> None:
    service.post("aloud", "first")
    service.fill("aloud", 60)
    page = open_page(f"{service.url}/#aloud")
    wait_shown(page, 50)
    page.click("#earlier")
    wait_shown(page, 61)
    page.evaluate("location.hash = '#silent'")
    page.wait_for_selector("#title:text-is('silent')")

    assert page.evaluate(BUSY_AFTER, "aloud") == ["true", 61]
    assert page.evaluate(BUSY_AFTER, "aloud") == ["true", 61]


def test_who_scrolls_up_while_the_box_grows_stays_there(service: Service, open_page: OpenPage) -> None:
    service.post("grows", "first")
    service.fill("grows", 60)
    page = open_page(f"{service.url}/#grows")
    wait_shown(page, 50)
    page.fill("#text", "one\ntwo\nthree\nfour\nfive")
    frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done))))"
    page.evaluate(frames)
    top = page.evaluate(
        """() => {
            document.querySelector("#scroller").scrollTop -= 600;
            document.querySelector("#text").value = "";
            document.querySelector("#text").dispatchEvent(new Event("input"));
            return document.querySelector("#scroller").scrollTop;
        }"""
    )
    page.evaluate(frames)

    assert page.evaluate("document.querySelector('#scroller').scrollTop") == top
