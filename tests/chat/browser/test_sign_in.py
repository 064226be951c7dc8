"""Signing in and out on the page, with a real identity provider beside it."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import oidc_provider_mock  # type: ignore[import-untyped]  # it has types, and no marker that says so
import pytest
import sqlalchemy as sa
import trio
from playwright.sync_api import APIResponse, Browser, Page, Route

from service.platform.testing.own_server import free_port
from service.platform.testing.processes import Process, started
from tests.chat.browser.pages import shown, wait_shown, write

CLIENT = "orders-web"
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 760}, "device_scale_factor": 2, "has_touch": True}


@pytest.fixture
def service(tmp_path: Path, database_url: str) -> Iterator[Process]:
    ada = oidc_provider_mock.User(sub="ada", claims={"name": "Ada Lovelace"})
    bob = oidc_provider_mock.User(sub="bob", claims={"name": "Bob"})
    with oidc_provider_mock.run_server_in_thread(user_claims=(ada, bob)) as provider:
        issuer = f"http://localhost:{provider.server_port}"
        settings: dict[str, Any] = {"auth_issuer": issuer, "auth_audience": CLIENT, "auth_client_id": CLIENT}
        settings["bind"] = f"localhost:{free_port()}"  # where browsers take a Secure cookie without TLS
        with started(tmp_path, "serve", database_url=database_url, **settings) as running:
            trio.run(running.wait_ready)
            yield running


def sign_in(page: Page, subject: str) -> None:
    page.wait_for_selector("#status[data-state=stranger]")
    page.click("#status-action")
    page.get_by_label(f"Authorize as {subject}").click()
    page.wait_for_selector("#status[data-state=open]")


def open_as(browser: Browser, url: str, **options: Any) -> Page:
    context = browser.new_context(**options)
    context.set_default_timeout(30_000)
    page = context.new_page()
    page.goto(url)
    return page


def test_a_person_signs_in_chats_and_signs_out(browser: Browser, service: Process, tmp_path: Path) -> None:
    """Each state is pictured, on a desktop and on a phone, in TEST_PICTURES or the test's own directory."""
    pictures = Path(os.environ.get("TEST_PICTURES", tmp_path))
    url = service.public.replace("127.0.0.1", "localhost")
    ada, bob = open_as(browser, f"{url}/#harbour"), open_as(browser, f"{url}/#harbour", **PHONE)
    ada.wait_for_selector("#status[data-state=stranger]")
    assert not ada.is_visible("#composer")
    ada.screenshot(path=pictures / "desktop-1-stranger.png")
    bob.screenshot(path=pictures / "phone-1-stranger.png")
    ada.click("#status-action")
    ada.wait_for_load_state()
    ada.screenshot(path=pictures / "desktop-2-provider.png")
    ada.go_back()
    bob.click("#status-action")
    bob.wait_for_load_state()
    bob.screenshot(path=pictures / "phone-2-provider.png")
    bob.go_back()
    sign_in(ada, "ada")
    sign_in(bob, "bob")
    write(ada, "who am I?")
    wait_shown(bob, 1)
    write(bob, "the one that the provider says")
    wait_shown(ada, 2)
    assert ada.url.endswith("#harbour")
    assert (ada.input_value("#name"), ada.is_disabled("#name")) == ("Ada Lovelace", True)
    assert bob.locator("#log .who bdi.verified").first.text_content() == "Ada Lovelace"
    ada.screenshot(path=pictures / "desktop-3-signed-in.png")
    bob.screenshot(path=pictures / "phone-3-signed-in.png")
    other_window = ada.context.new_page()
    other_window.goto(f"{url}/#harbour")
    other_window.wait_for_selector("#status[data-state=open]")
    ada.click("#sign-out")
    other_window.wait_for_selector("#status[data-state=stranger]")
    assert other_window.text_content("#status-text") == "You are signed out."
    other_window.screenshot(path=pictures / "desktop-4-signed-out.png")
    assert bob.get_attribute("#status", "data-state") == "open"
    bob.click("[data-open=sidebar]")
    with bob.expect_navigation():
        bob.click("#sign-out")
    bob.goto(f"{url}/#harbour")
    bob.wait_for_selector("#status[data-state=stranger]")
    bob.screenshot(path=pictures / "phone-4-signed-out.png")
    for page in (ada, bob):
        page.context.close()
    print(pictures)


def test_what_one_account_has_written_is_not_sent_by_another(browser: Browser, service: Process) -> None:
    url = service.public.replace("127.0.0.1", "localhost") + "/#accounts"
    tab = open_as(browser, url)
    sign_in(tab, "ada")
    write(tab, "by Ada")
    wait_shown(tab, 1)
    tab.evaluate("document.querySelector('#cut').click()")
    write(tab, "by Ada, and not sent")
    other = tab.context.new_page()
    other.goto(url)
    other.wait_for_selector("#status[data-state=open]")
    other.click("#sign-out")
    other.wait_for_url("**/end_session?**")
    other.goto(url)
    sign_in(other, "bob")
    tab.evaluate("document.querySelector('#cut').click()")
    tab.wait_for_selector("#status[data-state=open]")
    write(tab, "by Bob")
    tab.wait_for_selector("[data-seq='2']")
    mine = tab.locator("#log .mine .bubble").all_inner_texts()
    waiting = tab.inner_text("#pending")
    tab.on("dialog", lambda dialog: dialog.accept())
    tab.evaluate("document.querySelector('#sign-out').click()")
    tab.wait_for_url("**/end_session?**")
    tab.goto(url)
    sign_in(tab, "ada")
    wait_shown(tab, 3)

    assert mine == ["by Bob"]
    assert "kept for Ada Lovelace, who wrote it" in waiting
    assert shown(tab) == [(1, "by Ada"), (2, "by Bob"), (3, "by Ada, and not sent")]
    assert tab.locator("#log .mine .bubble").all_inner_texts() == ["by Ada", "by Ada, and not sent"]
    assert tab.locator("#log .who bdi").all_inner_texts() == ["Bob"]
    tab.context.close()


def test_what_was_being_written_as_the_session_ended_is_there_for_who_wrote_it(
    browser: Browser, service: Process
) -> None:
    url = service.public.replace("127.0.0.1", "localhost") + "/#drafts"
    tab = open_as(browser, url)
    sign_in(tab, "ada")
    tab.fill("#text", "half a page of Ada's")
    other = tab.context.new_page()
    other.goto(url)
    other.wait_for_selector("#status[data-state=open]")
    other.click("#sign-out")
    other.wait_for_url("**/end_session?**")
    tab.wait_for_selector("#status[data-state=stranger]")
    other.goto(url)
    sign_in(other, "bob")
    tab.evaluate("dispatchEvent(new Event('online'))")
    tab.wait_for_selector("#status[data-state=open]")
    shown_to_bob = tab.input_value("#text")
    tab.fill("#text", "and of Bob's")
    other.click("#sign-out")
    other.wait_for_url("**/end_session?**")
    sign_in(tab, "ada")

    assert shown_to_bob == ""
    assert tab.input_value("#text") == "half a page of Ada's"
    tab.context.close()


def test_what_was_written_before_it_was_known_who_asks_is_there_once(browser: Browser, service: Process) -> None:
    tab = open_as(browser, service.public.replace("127.0.0.1", "localhost") + "/#early")
    sign_in(tab, "ada")
    held: list[Route] = []
    tab.route("**/auth/me", lambda route: held.append(route), times=1)  # noqa: PLW0108  it takes no method
    tab.reload()
    tab.fill("#text", "early")
    while not held:
        tab.wait_for_timeout(20)
    held.pop().continue_()
    tab.wait_for_selector("#status[data-state=open]")
    kept = tab.input_value("#text")
    tab.reload()
    tab.wait_for_selector("#status[data-state=open]")

    assert (kept, tab.input_value("#text")) == ("early", "early")
    tab.context.close()


@pytest.mark.parametrize("overtaken", [True, False])
def test_an_answer_that_is_late_does_not_say_who_writes(browser: Browser, service: Process, overtaken: bool) -> None:
    url = service.public.replace("127.0.0.1", "localhost") + "/#late"
    tab = open_as(browser, url)
    sign_in(tab, "ada")
    other = tab.context.new_page()
    other.goto(url)
    other.wait_for_selector("#status[data-state=open]")
    cut = "document.querySelector('#cut').click()"
    tab.evaluate(cut)
    write(tab, "by Ada, and not sent")
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        held.append((route, route.fetch()))

    tab.route("**/auth/me", hold, times=1)
    tab.evaluate(cut)
    while not held:
        tab.wait_for_timeout(20)
    other.click("#sign-out")
    other.wait_for_url("**/end_session?**")
    other.goto(url)
    sign_in(other, "bob")
    if overtaken:
        tab.evaluate(cut + ";" + cut)
        tab.wait_for_selector("#status[data-state=open]")
    route, answer = held.pop()
    route.fulfill(response=answer)
    tab.evaluate("fetch('readyz')")
    tab.wait_for_selector("#status[data-state=open]")
    write(tab, "by Bob")
    tab.wait_for_selector("#log .message:has-text('by Bob')")

    assert shown(tab) == [(1, "by Bob")]
    assert tab.input_value("#name") == "Bob"
    tab.context.close()


def test_who_could_not_be_signed_out_is_told_so(browser: Browser, service: Process, writable_database_url: str) -> None:
    url = service.public.replace("127.0.0.1", "localhost") + "/#still"
    page = open_as(browser, url)
    sign_in(page, "ada")
    engine = sa.create_engine(writable_database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE identity_session RENAME TO identity_session_away"))
    page.click("#sign-out")
    page.wait_for_selector("#status-text:text('You are not signed out: ')")
    here = page.url
    while page.get_attribute("#status", "data-state") != "offline":  # a session is known by heart for some seconds
        page.reload()
        page.wait_for_selector("#status:is([data-state=open], [data-state=offline])")
    page.wait_for_selector("#status-text:text('Offline. The server answers, and cannot say who you are: ')")
    with engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE identity_session_away RENAME TO identity_session"))
    engine.dispose()
    page.wait_for_selector("#status[data-state=open]")

    assert here == url
    page.context.close()
