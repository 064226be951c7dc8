"""The page as people have it: in a browser, against real processes, over kills and restarts."""

import itertools
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio

from service.platform.testing.fixtures import fresh_database
from service.platform.testing.own_server import free_ports
from service.platform.testing.processes import Process, started
from tests.chat.browser.conftest import OpenPage
from tests.chat.browser.pages import FROM_END, shown, wait_shown, write
from tests.chat.system.balancer import Balancer, balanced

QUICK: dict[str, Any] = {"drain_delay": 0, "drain_spread": 0.5, "rate_per_address": 0}


class Replicas:
    """Two processes of the service on ports of their own, behind one address."""

    def __init__(self, directory: Path, database_url: str, stack: ExitStack) -> None:
        self._directory, self._database_url, self._stack = directory, database_url, stack
        self.ports = free_ports(2)
        self.running = [self._start(number) for number in range(2)]
        for replica in self.running:
            trio.run(replica.wait_ready)
        self.balancer: Balancer = stack.enter_context(balanced(*self.ports))

    def _start(self, number: int) -> Process:
        bind = {"bind": f"127.0.0.1:{self.ports[number]}", "database_url": self._database_url}
        service = started(self._directory, "serve", name=f"replica{number}", **bind, **QUICK)
        return self._stack.enter_context(service)

    def bring_back(self, number: int) -> None:
        self.running[number] = self._start(number)
        trio.run(self.running[number].wait_ready)

    def kill(self, number: int) -> None:
        self.running[number].send(signal.SIGKILL)
        self.running[number].process.wait(5)

    def roll(self, number: int) -> None:
        """Restart one as a rollout does: out of rotation, drained, and back."""
        self.balancer.ports.remove(self.ports[number])
        self.running[number].send(signal.SIGTERM)
        assert trio.run(self.running[number].wait_end) == 0
        self.bring_back(number)
        self.balancer.ports.append(self.ports[number])


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory, server_url: str, template: str) -> Iterator[Replicas]:
    with fresh_database(server_url, template) as database_url, ExitStack() as stack:
        yield Replicas(tmp_path_factory.mktemp("replicas"), database_url, stack)


@pytest.fixture
def room(replicas: Replicas, request: pytest.FixtureRequest) -> str:
    """Return where a room is that this test has for itself."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:64]
    return f"{replicas.balancer.url}/#{name}"


def test_it_works_under_a_path_that_a_proxy_strips(replicas: Replicas, open_page: OpenPage) -> None:
    with balanced(*replicas.ports, prefix="/harbour/chat") as proxy:
        with httpx2.Client(base_url=proxy.url) as client:
            texts = [{"text": str(number)} for number in range(60)]
            for text in texts:
                client.post("/harbour/chat/api/rooms/under-a-path/messages", json=text).raise_for_status()
            outside = client.get("/").status_code
        page = open_page(f"{proxy.url}/harbour/chat/#under-a-path")
        write(page, "here")
        page.wait_for_selector("[data-seq='61']")
        page.click("#earlier")
        page.wait_for_selector("[data-seq='1']")
        assert page.evaluate("getComputedStyle(document.body).display") == "grid"
        page.reload()
        page.wait_for_selector("[data-seq='61']")

    assert outside == 404


def test_two_people_chat_and_text_stays_text(room: str, open_page: OpenPage) -> None:
    ada, ben = open_page(room, "Ada"), open_page(room, "Ben")
    write(ada, "<img src=x onerror=alert(1)> & <b>bold</b>")
    ben.wait_for_selector("[data-seq='1']")
    write(ben, "seen")
    ada.wait_for_selector("[data-seq='2']")
    ada.wait_for_selector("#pending", state="attached")

    assert shown(ada) == shown(ben) == [(1, "<img src=x onerror=alert(1)> & <b>bold</b>"), (2, "seen")]
    assert ben.locator("[data-seq='1'] .who bdi").inner_text() == "Ada"
    assert ada.locator("[data-seq='1']").get_attribute("data-tick") == "acked"
    assert ada.locator("#log img, #log b").count() == 0
    assert "every name in here is a claim" in ada.inner_text("#claim")


def test_what_is_written_with_the_line_cut_is_kept_over_a_reload_and_sent_once(room: str, open_page: OpenPage) -> None:
    ada, ben = open_page(room, "Ada"), open_page(room, "Ben", viewport={"width": 1400, "height": 800})
    ben.click("#cut")
    write(ben, "one")
    write(ben, "two")
    write(ada, "meanwhile")
    ada.wait_for_selector("[data-seq='1']")

    assert ben.locator("#pending [data-tick=kept]").count() == 2
    assert ben.inner_text("#status-text") == "You cut the line. 2 waiting here."

    ben.on("dialog", lambda dialog: dialog.accept())  # it asks before it goes with something unsent
    ben.reload()

    assert wait_shown(ben, 3) == wait_shown(ada, 3) == [(1, "meanwhile"), (2, "one"), (3, "two")]


def test_older_messages_come_by_http(room: str, open_page: OpenPage) -> None:
    messages = room.replace("/#", "/api/rooms/") + "/messages"
    with httpx2.Client() as client:
        for number in range(1, 121):
            client.post(messages, json={"text": f"message {number}", "from": "Ada"}).raise_for_status()
    page = open_page(room, "Ben")
    first = wait_shown(page, 50)
    page.click("#earlier")
    page.wait_for_selector("[data-seq='21']")
    page.click("#earlier")
    page.wait_for_selector("#start:not([hidden])")

    assert [seq for seq, _ in first] == list(range(71, 121))
    assert shown(page) == [(number, f"message {number}") for number in range(1, 121)]


def test_a_killed_replica_that_comes_back_costs_no_message(replicas: Replicas, room: str, open_page: OpenPage) -> None:
    numbers = itertools.count(1)
    pages = []
    for port, name in zip(replicas.ports, ("Ada", "Ben"), strict=True):  # how many connections a page opens is chance
        replicas.balancer.ports = [port]
        pages.append(open_page(room, name))
    replicas.balancer.ports = [*replicas.ports]
    replica_of = [page.inner_text("#fact-replica") for page in pages]

    def both_write() -> None:
        for page in pages:
            write(page, f"message {next(numbers)}")

    both_write()
    replicas.kill(0)
    both_write()
    for page in pages:
        page.wait_for_selector("#status[data-state=open]")
    both_write()
    replicas.bring_back(0)
    both_write()
    left, right = (wait_shown(page, 8) for page in pages)
    reconnects = [page.inner_text("#fact-reconnects") for page in pages]

    assert len(set(replica_of)) == 2
    assert sorted(reconnects) == ["0", "1"]  # the kill met one of the two
    assert left == right
    assert [seq for seq, _ in left] == list(range(1, 9))
    assert {text for _, text in left} == {f"message {number}" for number in range(1, 9)}


def test_a_rolling_restart_is_told_and_costs_no_message(replicas: Replicas, room: str, open_page: OpenPage) -> None:
    pages = [open_page(room, "Ada"), open_page(room, "Ben")]
    for page in pages:
        page.evaluate(NOTE_STATES)
    write(pages[0], "before")
    for number in (0, 1):
        replicas.roll(number)
        write(pages[number], f"after {number}")
    left, right = (wait_shown(page, 3) for page in pages)
    states = {state for page in pages for state in page.evaluate("states")}

    assert left == right
    assert [seq for seq, _ in left] == [1, 2, 3]
    assert "draining" in states
    assert "offline" not in states


NOTE_STATES = """() => {
    window.states = [];
    const status = document.getElementById("status");
    const note = () => states.push(status.dataset.state);
    new MutationObserver(note).observe(status, { attributeFilter: ["data-state"] });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1360, 820), (390, 780)], ids=["desktop", "phone"])
def test_it_fits_and_can_be_read(room: str, open_page: OpenPage, size: tuple[int, int], scheme: str) -> None:
    page = open_page(room, "Ada", viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    write(page, "x" * 300)
    wait_shown(page, 1)
    overflow = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    page.evaluate("document.querySelector('#cut').click()")
    write(page, "kept")
    page.wait_for_selector("#pending .bubble")
    contrasts: dict[str, float] = page.evaluate(CONTRASTS)

    assert overflow <= 0
    assert page.locator("#send").is_visible()
    assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}  # WCAG 2.2, 1.4.3


# The colours as the browser makes them, text against what is behind it: of the palette, and of what mixes its own.
CONTRASTS = """() => {
    const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    const probe = document.body.appendChild(document.createElement("i"));
    const luminance = (colour) => {
        probe.style.color = colour;
        context.fillStyle = getComputedStyle(probe).color;
        context.fillRect(0, 0, 1, 1);
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].slice(0, 3).map(
            (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const pairs = ["ink paper", "ink panel", "ink card", "soft paper", "soft panel", "soft card", "on-sea sea",
        "clay paper", "clay panel", "paper clay", "good paper", "good panel", "warn panel", "bad paper"];
    const named = pairs.map((pair) => [pair, ratio(...pair.split(" ").map((name) => luminance(`var(--${name})`)))]);
    const mixed = ["#pending .bubble", "#log .meta code"].map((path) => {
        const { color, backgroundColor, opacity } = getComputedStyle(document.querySelector(path));
        const behind = backgroundColor === "rgba(0, 0, 0, 0)" ? "var(--paper)" : backgroundColor;
        const shown = `color-mix(in srgb, ${color} ${100 * opacity}%, ${behind})`;
        return [path, ratio(luminance(shown), luminance(behind))];
    });
    return Object.fromEntries([...named, ...mixed]);
}"""


def test_the_keyboard_is_enough(room: str, open_page: OpenPage) -> None:
    page = open_page(room, "Ada")
    page.locator("#scroller").focus()
    page.keyboard.type("to this room")  # typing anywhere goes into the message
    page.keyboard.press("Enter")
    wait_shown(page, 1)
    page.keyboard.press("Alt+ArrowDown")
    page.keyboard.type("to the next room")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("in two lines")
    page.keyboard.press("Enter")

    assert page.inner_text("#title") == "lobby"  # round from the last to the first
    assert wait_shown(page, 1)[-1][1] == "to the next room\nin two lines"


def test_the_box_shows_its_focus_where_the_system_forces_its_colours(room: str, open_page: OpenPage) -> None:
    """There the colour of a border says nothing, and an outline is drawn whatever colour it has."""
    page = open_page(room, "Ada", forced_colors="active")
    outlines = []
    for focused in ("#name", "#text"):
        page.focus(focused)
        outlines.append(page.evaluate("getComputedStyle(document.querySelector('#composer')).outlineStyle"))

    assert outlines == ["none", "solid"]


def test_an_enter_that_ends_a_composition_sends_nothing(room: str, open_page: OpenPage) -> None:
    """Safari ends a composition before it tells of the key that did: nothing but the key code says so."""
    page = open_page(room, "Ada")
    page.fill("#text", "\u306b\u307b\u3093")
    for told in ({"isComposing": True}, {"keyCode": 229}):
        page.dispatch_event("#text", "keydown", {"key": "Enter", "cancelable": True, **told})
    kept = page.input_value("#text")
    page.press("#text", "Enter")

    assert kept == "\u306b\u307b\u3093"
    assert wait_shown(page, 1) == [(1, kept)]


TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"


def test_whoever_reads_the_last_messages_does_so_in_less_room(room: str, open_page: OpenPage) -> None:
    """As behind a phone's keyboard, on its side, in a smaller window, or beside a text of many lines."""
    page = open_page(room, "Ada", viewport={"width": 800, "height": 800})
    with httpx2.Client() as client:
        for number in range(40):
            text = {"text": f"message {number} {'word ' * number}", "from": "Ben"}
            client.post(room.replace("/#", "/api/rooms/") + "/messages", json=text).raise_for_status()
    wait_shown(page, 40)
    for width, height in ((800, 500), (360, 500), (360, 300), (800, 800)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_function(f"() => innerWidth === {width} && innerHeight === {height} && {FROM_END} < 2")
    page.fill("#text", "one\ntwo\nthree\nfour\nfive")
    page.wait_for_function(f"() => document.querySelector('#text').clientHeight > 100 && {FROM_END} < 2")
    page.evaluate("document.querySelector('#scroller').scrollTop = 0")
    page.evaluate(TWO_FRAMES)
    page.set_viewport_size({"width": 800, "height": 500})
    page.evaluate(TWO_FRAMES)

    assert page.evaluate("document.querySelector('#scroller').scrollTop") < 100


def test_the_messages_are_a_list_and_the_frames_scroll_by_the_keyboard(room: str, open_page: OpenPage) -> None:
    page = open_page(room, "Ada")
    write(page, "one")
    wait_shown(page, 1)

    assert page.get_by_role("log").get_by_role("list").get_by_text("one").count() == 1
    assert page.get_attribute("#frames", "tabindex") == "0"  # Safari gives a list no focus by itself


def test_who_wrote_what_is_read_aloud(room: str, open_page: OpenPage) -> None:
    ada, ben = open_page(room, "Ada"), open_page(room, "Ben")
    for page, count, text in ((ben, 1, "one"), (ada, 2, "two"), (ada, 3, "three"), (ben, 4, "four")):
        write(page, text)
        wait_shown(ada, count)
    items = [item.aria_snapshot() for item in ada.locator("#log .message").all()]
    heard = [re.findall(r"\b(?:Ben|you|one|two|three|four)\b", item) for item in items]

    assert heard == [["Ben", "one"], ["you", "two"], ["three"], ["Ben", "four"]]
    assert ada.get_by_role("region", name="The conversation").count() == 1


def test_the_drawers_of_a_phone(room: str, open_page: OpenPage) -> None:
    page = open_page(room, "Ada", viewport={"width": 390, "height": 780}, has_touch=True)
    page.tap(".menu")
    page.fill("#room-name", "The Galley!")
    page.press("#room-name", "Enter")
    page.wait_for_selector("#sidebar", state="hidden")
    page.tap("#wire-toggle")
    page.wait_for_selector("#wire")
    page.keyboard.press("Escape")

    assert page.inner_text("#title") == "the-galley"
    assert page.url.endswith("#the-galley")
    assert page.locator("#wire").is_hidden()


def test_on_paper_is_all_that_is_in_the_page(room: str, open_page: OpenPage) -> None:
    page = open_page(room, "Ada")
    write(page, "line\n" * 200)
    wait_shown(page, 1)
    page.emulate_media(media="print")
    hidden: int = page.evaluate("(box => box.scrollHeight - box.clientHeight)(document.querySelector('#scroller'))")

    assert hidden <= 0
    assert page.evaluate("document.documentElement.scrollHeight") > 4_000
    assert not page.is_visible("#composer")


def test_the_drawers_at_four_times_the_size(room: str, open_page: OpenPage) -> None:
    page = open_page(room, "Ada", viewport={"width": 320, "height": 256})  # 1280 by 1024 (WCAG 2.2, 1.4.10)
    page.click(".menu")
    page.click("#rooms .open:has-text('harbour')", timeout=10_000)
    page.wait_for_selector("#title:text-is('harbour')")
    page.click("#wire-toggle")
    page.click("#cut", timeout=10_000)
    page.wait_for_selector("#status[data-state=offline]")
    page.locator("#frames li").last.scroll_into_view_if_needed()

    assert page.locator("#frames li").last.evaluate("item => item.getBoundingClientRect().bottom <= innerHeight")


def test_two_tabs_of_one_person_know_what_is_theirs(room: str, open_page: OpenPage) -> None:
    one = open_page(room, "Ada")
    other = one.context.new_page()
    other.goto(room)
    other.wait_for_selector("#status[data-state=open]")
    write(one, "from the one")
    other.wait_for_selector("[data-seq='1']")
    write(other, "from the other")
    for tab in (one, other):
        tab.wait_for_selector("[data-seq='2'].mine")
        assert tab.locator("#log .mine").count() == 2
    for tab, opened in ((one, "of-the-one"), (other, "of-the-other")):
        tab.fill("#room-name", opened)
        tab.press("#room-name", "Enter")
    for tab in (one, other):
        tab.goto(room)
        tab.reload()
        wait_shown(tab, 2)

    for tab in (one, other):
        assert tab.locator("#log .mine").count() == 2
        assert {"of-the-one", "of-the-other"} <= set(tab.locator("#rooms .open span").all_text_contents())


def test_a_room_that_cannot_be_opened_is_said_to_be_one(room: str, open_page: OpenPage) -> None:
    page = open_page(room, "Ada")
    told = "element => element.validationMessage"
    page.fill("#room-name", "日本")
    page.press("#room-name", "Enter")
    nameless = page.eval_on_selector("#room-name", told)
    for number in range(28):  # with three at first, and the test's own
        page.fill("#room-name", f"room-{number}")
        page.press("#room-name", "Enter")
    before = page.eval_on_selector("#room-name", told)
    page.fill("#room-name", "one-more")
    page.press("#room-name", "Enter")

    assert nameless == "A room is called by 1 to 64 letters from a to z, digits and -."
    assert before == ""
    assert page.eval_on_selector("#room-name", told) == "You are in 32 rooms, as many as can be: leave one first."


def test_marks_that_pile_up_stay_in_their_message(room: str, open_page: OpenPage) -> None:
    ada = open_page(room, "Ada", reduced_motion="reduce")
    write(ada, "first")
    wait_shown(ada, 1)
    before = ada.locator("[data-seq='1']").screenshot()
    write(ada, "Z\u0337\u0327\u0327" + "\u0300\u0301\u0302\u0303" * 120)
    wait_shown(ada, 2)

    assert ada.locator("[data-seq='1']").screenshot() == before
