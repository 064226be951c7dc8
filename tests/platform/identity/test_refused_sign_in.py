"""What a person sees whose sign-in was refused, and what a program gets in its place."""

import re
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, quote, urlencode, urlsplit

import httpx2
import pytest
import trio
from quart import Blueprint
from trio.testing import MockClock

from service.platform.feature import Feature, Resources
from service.platform.http import create_app
from service.platform.http.identity_routes import create_identity_routes
from service.platform.identity import NOBODY, Unauthenticated
from service.platform.name import TITLE
from service.platform.testing.booting import booted
from service.platform.testing.contract import OPENAPI
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import CLIENT, open_issuer
from tests.platform.identity.test_sign_in import Browser, sites
from tests.platform.identity.world import FREE, auth
from tests.platform.test_calls import other_service

# What browsers send when they go to an address, and what is sent by others.
SEEN_BY_PEOPLE = {
    "chromium": "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7",
    "firefox": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "firefox, long ago": "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8",
    "safari": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "lynx": "text/html, text/plain, text/sgml, text/css, application/xhtml+xml, */*;q=0.01",
    "JSON at last": "TEXT/HTML, application/problem+json;q=0.9, application/json;q=0.9",
}
READ_BY_PROGRAMS = {
    "curl, fetch": "*/*",
    "none": "",
    "JSON": "application/json",
    "a problem": "application/problem+json",
    "axios": "application/json, text/plain, */*",
    "either": "text/html, application/json",
    "rather anything": "text/html;q=0.5, */*;q=0.8",
    "no HTML": "text/html;q=0, */*;q=0",
    "nonsense": ",;q=,text/html;q=x,text",
}
PERSON = {"Accept": SEEN_BY_PEOPLE["chromium"]}


class Page(HTMLParser):
    """What a page says, where its links lead, and what it is made of."""

    def __init__(self, response: httpx2.Response) -> None:
        super().__init__()
        assert response.headers["content-type"] == "text/html; charset=utf-8", response.text
        self.tags: list[str] = []
        self.links: dict[str, str] = {}
        self.style = ""
        self._words: list[str] = []
        self._to = ""
        self.feed(response.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._to = dict(attrs).get("href") or "" if tag == "a" else self._to

    def handle_endtag(self, tag: str) -> None:
        self._to = "" if tag == "a" else self._to

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["style"] and not self.style:
            self.style = data
        elif self._to:
            self.links[data] = self._to
        self._words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self._words)


async def denied(browser: Browser, to: str = "/", *, error: str = "access_denied", accept: str) -> httpx2.Response:
    begun = await browser.ask(f"/auth/sign-in?{urlencode({'to': to})}")
    state = parse_qs(urlsplit(begun.headers["Location"]).query)["state"][0]
    answer = urlencode({"state": state, "error": error})
    return await browser.ask(f"/auth/callback?{answer}", headers={"Accept": accept})


async def test_who_presses_deny_reads_why_and_may_sign_in_again_to_where_he_was_going(
    make_settings: MakeSettings,
) -> None:
    async with sites(make_settings) as [site]:
        browser = site.browser()
        answers = {
            name: await denied(browser, "/orders?a=b&c=d#e", accept=accept) for name, accept in SEEN_BY_PEOPLE.items()
        }
        usual = await denied(browser, accept="*/*")
        page = Page(answers["chromium"])
        anew = await browser.ask(page.links["Sign in again"])
        back = await browser.ask(site.issuer.approve(anew.headers["Location"]))

    for name, answer in answers.items():
        assert answer.headers["content-type"] == "text/html; charset=utf-8", name
        same = ("www-authenticate", "cache-control", "referrer-policy", "x-content-type-options", "vary")
        assert answer.status_code == usual.status_code == 401, name
        assert {one: answer.headers[one] for one in same} == {one: usual.headers[one] for one in same}, name
        assert "set-cookie" not in answer.headers, name
    assert usual.headers["vary"] == "Accept"
    assert usual.headers["cache-control"] == "no-store"
    assert "the identity provider did not sign anybody in: access_denied" in page.text
    assert answers["chromium"].headers["x-request-id"] in page.text
    assert TITLE in page.text
    assert page.links["Go to the front page"] == "/"
    assert back.headers["Location"] == "/orders?a=b&c=d#e"


@pytest.mark.parametrize("accept", READ_BY_PROGRAMS.values(), ids=READ_BY_PROGRAMS)
async def test_a_program_is_told_by_a_problem_as_everywhere(make_settings: MakeSettings, accept: str) -> None:
    async with sites(make_settings) as [site]:
        answer = await denied(site.browser(), accept=accept)

    assert (answer.status_code, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.json()["detail"] == "the identity provider did not sign anybody in: access_denied"
    assert answer.headers["content-security-policy"] == "frame-ancestors 'none'"


async def test_who_goes_back_and_chooses_once_more_may_begin_anew(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        browser = site.browser()
        begun = await browser.ask("/auth/sign-in?to=/orders")
        used = site.issuer.approve(begun.headers["Location"])
        await browser.ask(used)
        again = await browser.ask(used, headers=PERSON)
        stranger = await site.client.get("/auth/callback", headers=PERSON)

    for answer in (again, stranger):
        page = Page(answer)
        assert answer.status_code == 401
        assert "this sign-in did not begin in this browser, or was ended before; begin anew" in page.text
        assert page.links["Sign in again"] == "/auth/sign-in?to=%2F"


async def test_while_the_provider_is_away_one_reads_when_to_come_again(make_settings: MakeSettings) -> None:
    """Nothing sends the browser on by itself: a provider that is in trouble would be asked without an end."""
    async with sites(make_settings) as [site]:
        site.issuer.away = True
        away = await site.client.get("/auth/sign-in?to=/orders", headers=PERSON)
        usual = await site.client.get("/auth/sign-in?to=/orders")
        page = Page(away)

    assert (away.status_code, away.headers["retry-after"]) == (503, "5")
    assert (usual.status_code, usual.headers["retry-after"]) == (503, "5")
    assert usual.json()["detail"] == "the identity provider does not answer"
    assert "the identity provider does not answer" in page.text
    assert "in 5 seconds" in page.text
    assert page.links["Sign in again"] == "/auth/sign-in?to=%2Forders"
    assert not {"script", "link", "img", "iframe", "form", "base"} & set(page.tags)
    assert "http-equiv" not in away.text
    assert "refresh" not in away.headers


async def test_a_code_that_the_provider_cannot_take_now_is_told_to_people(make_settings: MakeSettings) -> None:
    async def busy(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 503 \r\nContent-Length: 0\r\n\r\n")

    async with other_service(busy) as url, sites(make_settings, odd={"token_endpoint": url}) as [site]:
        browser = site.browser()
        begun = await browser.ask("/auth/sign-in?to=/orders")
        back = await browser.ask(site.issuer.approve(begun.headers["Location"]), headers=PERSON)

    assert (back.status_code, back.headers["retry-after"]) == (503, "5")
    assert Page(back).links["Sign in again"] == "/auth/sign-in?to=%2Forders"


HOSTILE = "\"><script>alert(1)</script>&'</p>"


@pytest.mark.parametrize(
    "path",
    [
        "/auth/callback?state=x&error=" + quote(HOSTILE),
        "/auth/callback?error=x&state=" + quote(HOSTILE),
        "/auth/callback?code=" + quote(HOSTILE * 200),
        "/auth/sign-in?to=" + quote(HOSTILE),
        "/auth/sign-in?to=https://evil.example/" + quote(HOSTILE),
        "/auth/sign-in?to=//evil.example",
        "/auth/sign-in?to=" + quote("/\\evil.example"),
        "/auth/sign-in?to=" + quote("javascript:alert(1)"),
        "/auth/sign-in?to=/" + "a" * 2_000,
        "/auth/sign-in?to=/" + quote(HOSTILE),
    ],
)
async def test_nothing_that_was_sent_becomes_part_of_the_page(make_settings: MakeSettings, path: str) -> None:
    async with sites(make_settings) as [site]:
        site.issuer.away = True  # so that a target that is good is refused as well
        plain = Page(await site.client.get("/auth/callback?state=x", headers=PERSON))
        answer = await site.client.get(path, headers=PERSON | {"X-Request-Id": "a<b"})
        page = Page(answer)

    assert answer.status_code in {400, 401, 503}
    assert [tag for tag in page.tags if tag != "p"] == [tag for tag in plain.tags if tag != "p"]
    assert page.links["Go to the front page"] == "/"
    again = page.links["Sign in again"]
    assert re.fullmatch(r"/auth/sign-in\?to=%2F[\w%.~-]*", again)
    assert "evil" not in again
    assert len(again) < 200


async def test_a_cookie_of_a_browser_leads_nowhere_else(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        for target in ("//evil.example", "https://evil.example", "javascript:alert(1)", '/"><b>'):
            made = b64encode(
                b'{"state": "x", "nonce": "n", "verifier": "v", "target": %s}' % _text(target), altchars=b"-_"
            )
            cookie = {"Cookie": f"__Host-sign-in={made.decode()}"}
            page = Page(await site.client.get("/auth/callback?state=x&error=x", headers=PERSON | cookie))
            wanted = quote(target, safe="") if target.startswith('/"') else "%2F"
            assert page.links["Sign in again"] == f"/auth/sign-in?to={wanted}"


def _text(target: str) -> bytes:
    return b'"' + target.replace('"', '\\"').encode() + b'"'


async def test_a_page_may_run_and_load_nothing(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        answer = await denied(site.browser(), accept=PERSON["Accept"])

    page = Page(answer)
    style = f"'sha256-{b64encode(sha256(page.style.encode()).digest()).decode()}'"
    wanted = {f"style-src {style}", "default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"}
    [policy] = answer.headers.get_list("content-security-policy")
    assert wanted <= set(policy.split("; "))
    assert "http" not in answer.text.replace("charset", "")
    assert 'lang="en"' in answer.text
    assert "width=device-width" in answer.text


@pytest.mark.parametrize("off", ["auth_client_id", "auth_issuer"])
async def test_where_nobody_can_sign_in_nobody_is_sent_to_do_it(make_settings: MakeSettings, off: str) -> None:
    unset: dict[str, Any] = {"auth_client_id": None, "auth_client_secret": None}
    unset |= {"auth_issuer": None, "auth_audience": None} if off == "auth_issuer" else {}
    async with sites(make_settings, **unset) as [site]:
        answers = [
            await site.client.get(path, headers=PERSON) for path in ("/auth/sign-in?to=/a", "/auth/callback?state=x")
        ]

    for answer in answers:
        assert answer.status_code == 409
        assert list(Page(answer).links) == ["Go to the front page"]


async def test_who_asks_too_often_reads_so(make_settings: MakeSettings, mock_clock: MockClock) -> None:
    """Time stands still while it is asked: a busy machine asks as often as the route lets through."""
    mock_clock.rate = 1
    async with sites(lambda **given: make_settings(**given | {"rate_per_address": 100})) as [site]:
        mock_clock.rate = 0
        answers = [await site.client.get("/auth/callback?state=x", headers=PERSON) for _ in range(40)]
        mock_clock.rate = 1

    page = Page(next(answer for answer in answers if answer.status_code == 429))
    assert {answer.status_code for answer in answers} == {401, 429}
    assert "too many requests from this address" in page.text
    assert "in 1 second." in page.text


class Broken:
    """What signs browsers in, and neither does nor refuses it."""

    def __init__(self, begin: Callable[[], Awaitable[Any]]) -> None:
        self._begin = begin

    def target(self, _state: str, *, pending: str, to: str) -> str:
        return pending + to

    async def begin(self, _to: str, *, pending: str, site: str) -> tuple[str, str]:
        await self._begin()
        return site, pending


async def crash() -> None:
    raise ValueError("not to be told")


@pytest.mark.parametrize(("begin", "status"), [(crash, 500), (trio.sleep_forever, 504)])
async def test_what_breaks_or_takes_too_long_is_told_to_people(
    make_settings: MakeSettings, autojump_clock: MockClock, begin: Callable[[], Awaitable[Any]], status: int
) -> None:
    nothing: Any = None
    broken: Any = {"gate": object(), "browsers": Broken(begin)}
    identity = replace(NOBODY, **broken)
    app = create_app([create_identity_routes(identity, nothing)], make_settings(**FREE), identity)
    answer = await app.test_client().get("/auth/sign-in?to=/a", headers=PERSON)
    text = await answer.get_data(as_text=True)

    assert (answer.status_code, answer.content_type) == (status, "text/html; charset=utf-8")
    assert "/auth/sign-in?to=%2Fa" in text
    assert "not to be told" not in text


@asynccontextmanager
async def open_own_words(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("own_words", __name__)

    @routes.app_errorhandler(Unauthenticated)
    async def tell(_: Unauthenticated) -> tuple[str, int, dict[str, str]]:
        return "in our own words", 401, {"WWW-Authenticate": "Bearer"}

    yield routes


@pytest.mark.parametrize("accept", [PERSON["Accept"], "*/*"])
async def test_a_service_that_tells_it_in_its_own_words_does_so_here_too(
    make_settings: MakeSettings, accept: str
) -> None:
    async with open_issuer() as issuer:
        settings = make_settings(**FREE, **auth(issuer), auth_client_id=CLIENT)
        async with (
            booted(settings, [Feature("own_words", open=open_own_words)]) as urls,
            httpx2.AsyncClient(base_url=urls.public) as client,
        ):
            answer = await client.get("/auth/callback?state=x", headers={"Accept": accept})

    assert (answer.status_code, answer.text) == (401, "in our own words")


async def test_other_routes_have_problems_alone(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        token = {"Authorization": "Bearer x"}
        answers = [
            await site.client.get("/auth/me", headers=PERSON | token),
            await site.client.get("/members", headers=PERSON),
            await site.client.get("/auth/nothing", headers=PERSON),
            await site.client.post("/auth/callback", headers=PERSON),
            await site.client.post("/auth/ticket", headers=PERSON),
        ]

    assert [answer.status_code for answer in answers] == [401, 401, 404, 405, 401]
    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert "vary" not in answer.headers


async def test_the_document_tells_of_both(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        document = (await site.client.get(OPENAPI)).json()
        head = await site.client.head("/auth/callback?state=x", headers=PERSON)

    told = {
        (path, status): list(answer["content"])
        for path in ("/auth/sign-in", "/auth/callback", "/auth/me")
        for status, answer in document["paths"][path]["get"]["responses"].items()
        if "content" in answer
    }
    both = ["application/problem+json", "text/html"]
    assert told["/auth/callback", "401"] == told["/auth/sign-in", "503"] == told["/auth/sign-in", "409"] == both
    assert {status for path, status in told if path == "/auth/me"} == {"200"}
    assert ("/auth/callback", "421") not in told, "said ahead of every route"
    assert (head.status_code, head.content) == (401, b"")
    assert head.headers["content-type"] == "text/html; charset=utf-8"
