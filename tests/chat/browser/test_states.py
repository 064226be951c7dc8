"""What the page says when something is not as it should be: an honest line, and nothing lost."""

import json
import socket
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
import trio
from playwright.sync_api import APIResponse, Dialog, Page, Route

from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.processes import run_to_end, started
from tests.chat.browser.conftest import OpenPage
from tests.chat.browser.pages import shown, wait_shown, write
from tests.chat.browser.served import NETWORK, QUICK, Service
from tests.chat.system.balancer import balanced

REFUSED_NAME = "Ada \U0001fae9"  # a character of Unicode 16, which Chromium knows and Python 3.13 does not


# A page that waits for whatever is held: on a busy machine a click may take as long as it has patience.
PATIENT = "AbortSignal.timeout = () => new AbortController().signal;"


def status(page: Page) -> str:
    return page.inner_text("#status-text")


def test_how_many_are_here_is_shown(service: Service, open_page: OpenPage) -> None:
    ada = open_page(f"{service.url}/#count")
    ada.wait_for_selector("#subtitle:text-is('1 here now')")
    open_page(f"{service.url}/#count", "Ben")

    ada.wait_for_selector("#subtitle:text-is('2 here now')")


def test_a_refused_name_is_said_and_another_one_is_taken(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#name", REFUSED_NAME, state="offline", forgiven=NETWORK)
    page.wait_for_selector("#status-text:text('Offline. The server answers, and refuses this name')")
    page.fill("#name", "Ada")
    page.press("#name", "Enter")
    page.wait_for_selector("#status[data-state=open]")


def test_what_is_gone_when_a_page_comes_back_is_said_between_the_messages(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(f"{service.url}/#gap", forgiven=NETWORK)
    service.post("gap", "one")
    wait_shown(page, 1)
    page.click("#cut")
    service.post("gap", "two", "three", "four")
    engine = sa.create_engine(service.database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM chat_message WHERE room = 'gap' AND seq < 4"))
    engine.dispose()
    service.restart()  # its memory would still have them
    page.click("#cut")
    page.wait_for_selector("#log .note")
    service.post("gap", "five")
    wait_shown(page, 2)

    assert page.inner_text("#log .note").startswith("You were away for longer than messages are kept")
    assert shown(page) == [(4, "four"), (5, "five")]
    assert page.locator(".message[data-seq='4'] + .note").count() == 1
    assert page.inner_text("#start") == "Older messages are no longer kept."


def test_a_new_epoch_is_said_and_the_page_goes_on(service: Service, open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(f"{service.url}/#epoch")
    write(page, "one")
    wait_shown(page, 1)
    assert run_to_end(tmp_path, "epoch", database_url=service.database_url).returncode == 0
    page.wait_for_selector("#log .note")
    write(page, "two")

    assert wait_shown(page, 2) == [(1, "one"), (2, "two")]
    assert page.inner_text("#log .note").startswith("The server's messages were restored from a copy")


def test_earlier_messages_that_come_from_before_a_new_epoch_are_asked_for_again(
    service: Service, open_page: OpenPage, tmp_path: Path
) -> None:
    service.post("overtaken", "one", "two")
    page = open_page(service.url)
    held: list[tuple[Route, APIResponse]] = []
    page.route("**/api/rooms/overtaken/messages*", lambda route: held.append((route, route.fetch())), times=1)
    page.evaluate("location.hash = 'overtaken'")
    page.wait_for_function("() => document.querySelector('#frames').textContent.includes('overtaken')")
    while not held:
        page.wait_for_timeout(20)
    assert run_to_end(tmp_path, "epoch", database_url=service.database_url).returncode == 0
    page.wait_for_selector("#log .note")
    route, answer = held.pop()
    route.fulfill(response=answer)

    assert wait_shown(page, 2) == [(1, "one"), (2, "two")]


HASTE = """
    window.haste = 1;
    const [later, limit] = [setTimeout, AbortSignal.timeout];
    window.setTimeout = (what, wait) => later(what, wait / haste);
    AbortSignal.timeout = (wait) => limit.call(AbortSignal, wait / haste);
"""


def test_a_replica_that_stood_still_keeps_no_page_from_the_next(service: Service, open_page: OpenPage) -> None:
    """What a page asks of it and never gives up holds a connection each, and a browser has six to one address."""
    port = urlsplit(service.url).port or 0
    with socket.create_server(("127.0.0.1", 0)) as still, balanced(port) as balancer:
        page = open_page(f"{balancer.url}/#still", forgiven=NETWORK, script=HASTE)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.evaluate("haste = 40")
        balancer.ports[:] = [still.getsockname()[1]]
        service.restart()
        while sum(url.endswith("/auth/me") for url in asked) < 10:
            page.wait_for_timeout(50)
        balancer.ports[:] = [port]
        page.evaluate("haste = 4")
        page.wait_for_selector("#status[data-state=open]", timeout=30_000)


def test_the_cause_of_an_earlier_failure_is_not_said_of_a_line_that_was_cut(
    service: Service, open_page: OpenPage
) -> None:
    page = open_page(f"{service.url}/#cause", REFUSED_NAME, state="offline", forgiven=NETWORK, script=PATIENT)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/readyz", hold, times=1)
    while not held:
        page.wait_for_timeout(20)
    page.click("#cut")
    with page.expect_response(lambda answer: answer.request.method == "POST"):
        held.pop().continue_()
    page.evaluate("fetch('readyz')")  # and what the page makes of that answer is over

    assert status(page) == "You cut the line. What you write is kept here."


def test_whose_message_waits_is_said_beside_it_on_a_phone(service: Service, open_page: OpenPage) -> None:
    kept = {"id": "a" * 32, "text": "word " * 20, "at": "2026-01-01T10:00:00Z", "subject": "ada", "author": "W" * 64}
    script = f"sessionStorage.setItem('chat.pending.phone', {json.dumps(json.dumps([kept]))})"
    page = open_page(f"{service.url}/#phone", script=script, viewport={"width": 360, "height": 700})
    bubble = page.locator("#pending .bubble").bounding_box()
    width = page.evaluate("document.querySelector('#scroller').scrollWidth")

    assert bubble
    assert bubble["width"] > 120
    assert width == 360


KEEP_SOCKETS = """
    window.sockets = [];
    const Plain = WebSocket;
    window.WebSocket = class extends Plain {
        constructor(...given) { super(...given); sockets.push(this); }
    };
"""


def test_the_seconds_until_the_next_try_are_seen_and_not_read_aloud(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#clock", REFUSED_NAME, state="offline", forgiven=NETWORK)
    page.wait_for_selector("#status:has-text('Next try in')")

    assert "Next try" not in page.locator("#status").aria_snapshot()


NOTE_STATUS = """
    window.said = [];
    const note = (changes) => {
        const words = changes.map(({ target }) => target).filter((target) => target.id !== "status-clock");
        said.push(...words.map((target) => `${target.id}: ${target.textContent}`));
    };
    addEventListener("DOMContentLoaded", () => {
        new MutationObserver(note).observe(document.querySelector("#status"), { childList: true, subtree: true });
    });
"""


def test_what_is_read_aloud_changes_with_its_words_alone(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#aloud", script=NOTE_STATUS)
    page.click("#cut")
    page.evaluate("said.length = 0")
    page.fill("#room-name", "Elsewhere")
    page.press("#room-name", "Enter")  # which shows the status as well, as each half-second does
    page.wait_for_selector("#title:text-is('elsewhere')")

    assert page.evaluate("said") == []


# What a browser that translates pages does: it puts its own words in place of what it finds, once.
TRANSLATE = """
    const words = Object.assign(document.createElement("font"), { textContent: "Verbunden" });
    document.querySelector("#status-text").replaceChildren(words);
"""


def test_a_status_that_the_browser_has_translated_stays_so(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#translated")
    page.evaluate(TRANSLATE)
    page.fill("#room-name", "foreign")
    page.press("#room-name", "Enter")
    page.wait_for_selector("#title:text-is('foreign')")

    assert status(page) == "Verbunden"
    page.click("#cut")
    page.wait_for_selector("#status-text:has-text('You cut the line.')")


@pytest.mark.drill  # ten seconds are what it waits
def test_a_page_that_is_closed_for_its_rate_says_so_and_comes_back_late(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#rate", script=KEEP_SOCKETS)
    page.evaluate('setInterval(() => sockets[0].readyState === 1 && sockets[0].send(\'{"type":"ping","t":1}\'), 10)')
    page.wait_for_selector("#status[data-state=offline]", timeout=30_000)

    assert status(page).startswith("Offline. The server let you go: too many messages.")
    assert 8 <= int(page.inner_text("#status-clock").removeprefix("Next try in ").split()[0]) <= 30
    page.click("#status-action")
    page.wait_for_selector("#status[data-state=open]")


def test_a_text_that_makes_too_large_a_frame_holds_up_none(
    service: Service, open_page: OpenPage, tmp_path: Path
) -> None:
    small = {"database_url": service.database_url, "websocket_max_bytes": 512, **QUICK}
    with started(tmp_path, "serve", **small) as process:
        trio.run(process.wait_ready)
        page = open_page(f"{process.public}/#large")
        write(page, "x" * 400 + "é" * 100)
        write(page, "after")
        page.wait_for_selector("#log .message")

        assert shown(page) == [(1, "after")]
        assert "the server takes 512" in page.inner_text("#pending")
        assert status(page).startswith("Connected")


def test_a_message_that_was_not_sent_is_edited_beside_what_is_being_written_and_by_the_keyboard(
    service: Service, open_page: OpenPage, tmp_path: Path
) -> None:
    small = {"database_url": service.database_url, "websocket_max_bytes": 512, **QUICK}
    with started(tmp_path, "serve", **small) as process:
        trio.run(process.wait_ready)
        page = open_page(f"{process.public}/#edit", viewport={"width": 360, "height": 700})
        write(page, "é" * 300)
        page.wait_for_selector("#pending [data-tick=failed]")
        page.focus("#pending button")
        page.evaluate("document.querySelector('#text').value = 'stored'; document.querySelector('#send').click()")
        page.wait_for_selector("#log .message:has-text('stored')")
        page.evaluate("document.querySelector('#text').value = 'being written'")
        page.keyboard.press("Enter")

        assert page.input_value("#text") == "é" * 300 + "\nbeing written"
        assert page.locator("#pending .message").count() == 0


def test_a_message_that_was_not_sent_is_kept_with_its_reason_over_a_reload(
    service: Service, open_page: OpenPage, tmp_path: Path
) -> None:
    small = {"database_url": service.database_url, "websocket_max_bytes": 512, **QUICK}
    with started(tmp_path, "serve", **small) as process:
        trio.run(process.wait_ready)
        page = open_page(f"{process.public}/#too-large")
        write(page, "x" * 500)
        page.wait_for_selector("#pending [data-tick=failed]")
        asked: list[str] = []

        def agree(dialog: Dialog) -> None:
            asked.append(dialog.type)
            dialog.accept()

        page.on("dialog", agree)
        page.reload()
        page.wait_for_selector("#status[data-state=open]")
        write(page, "after")
        page.wait_for_selector("#log .message")

        assert "the server takes 512" in page.inner_text("#pending [data-tick=failed]")
        assert shown(page)[-1][1] == "after"
        page.get_by_label("Leave too-large").click()
        page.wait_for_selector("#rooms:not(:has-text('too-large'))")
        assert asked == ["beforeunload", "confirm"]


def test_what_is_being_written_is_kept_over_a_reload_for_its_room(service: Service, open_page: OpenPage) -> None:
    page = open_page(f"{service.url}/#drafts")
    page.fill("#text", "half a thought")
    page.reload()
    page.wait_for_selector("#status[data-state=open]")
    kept = page.input_value("#text")
    page.goto(f"{service.url}/#harbour")
    page.wait_for_selector("#title:text-is('harbour')")
    elsewhere = page.input_value("#text")
    page.goto(f"{service.url}/#drafts")
    page.wait_for_selector("#title:text-is('drafts')")
    page.press("#text", "Enter")
    page.wait_for_selector("#log .message")
    page.reload()
    page.wait_for_selector("#log .message")

    assert (kept, elsewhere, page.input_value("#text")) == ("half a thought", "", "")


def test_earlier_messages_that_do_not_come_are_said_to_be_missing(service: Service, open_page: OpenPage) -> None:
    service.post("missing", "first")
    service.fill("missing", 60)
    page = open_page(f"{service.url}/#missing", forgiven=NETWORK)
    wait_shown(page, 50)
    page.route("**/api/rooms/missing/messages*", lambda route: route.abort(), times=1)
    page.click("#earlier")
    page.wait_for_selector("#status-text:text-is('Earlier messages did not come: the server does not answer.')")
    page.route("**/api/rooms/missing/messages*", lambda route: route.fulfill(status=503), times=1)
    page.click("#earlier")
    page.wait_for_selector("#status-text:text-is('Earlier messages did not come: the server says 503.')")
    page.click("#earlier")
    wait_shown(page, 61)


NOTE_JOINS = """
    window.joins = [];
    const send = WebSocket.prototype.send;
    WebSocket.prototype.send = function (data) {
        if (data.includes('"join"') && data.includes('"greeted"')) joins.push(performance.now());
        return send.call(this, data);
    };
"""


def test_a_service_that_lets_nobody_join_is_asked_ever_more_seldom(service: Service, open_page: OpenPage) -> None:
    engine = sa.create_engine(service.database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE chat_room RENAME TO chat_room_away"))
    try:
        page = open_page(f"{service.url}/#greeted", state="", forgiven=NETWORK, script=NOTE_JOINS)
        page.wait_for_function("() => joins.length >= 5", timeout=20_000)
    finally:
        with engine.begin() as connection:
            connection.execute(sa.text("ALTER TABLE chat_room_away RENAME TO chat_room"))
        engine.dispose()
    joins: list[float] = page.evaluate("joins.slice(0, 5)")
    write(page, "there")
    wait_shown(page, 1)

    assert joins[4] - joins[3] > 3_000  # of at least 3,200; the first of them is a second, and half of one by chance


NAMES = [
    (" A\u202eda\u00a0", "Ada"),
    ("\u3164A\u200dda\u3164", "Ada"),
    ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"),
    ("\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f468\u200d\U0001f469\u200d\U0001f467"),
]


@pytest.mark.parametrize(("typed", "taken"), NAMES, ids=ascii)
def test_a_name_keeps_its_joiners_and_loses_what_nobody_sees(
    service: Service, open_page: OpenPage, typed: str, taken: str
) -> None:
    page = open_page(f"{service.url}/#names", typed)

    assert page.input_value("#name") == taken


def test_while_the_database_is_away_what_is_written_waits(
    one_server: OwnServer, open_page: OpenPage, tmp_path: Path
) -> None:
    migrate(PlatformSettings(database_url=one_server.url), wait=10)
    with ExitStack() as stack:
        service = Service(tmp_path, one_server.url, stack)
        page = open_page(f"{service.url}/#away", forgiven=NETWORK)
        write(page, "before")
        wait_shown(page, 1)
        one_server.stop("immediate")
        write(page, "during")
        page.wait_for_selector("#status[data-state=waiting]")
        said = status(page)
        one_server.start()
        wait_shown(page, 2)
        page.wait_for_selector("#status[data-state=open]")

    assert shown(page) == [(1, "before"), (2, "during")]
    assert said == "Connected, and the server cannot store: PostgreSQL cannot be reached. 1 waiting here."
