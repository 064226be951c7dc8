"""Browsers: signing in by the code flow, out again on every replica, and what is sent in place of an honest answer."""

import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import oidc_provider_mock  # type: ignore[import-untyped]  # it has types, and no marker that says so
import psycopg
import pytest
import sqlalchemy as sa
import trio
from sqlalchemy import Connection
from trio.testing import MockClock

from service.platform.database import Database, open_database
from service.platform.database.migrate import migrate
from service.platform.errors import Invalid
from service.platform.identity import Unauthenticated
from service.platform.identity.caller import Caller
from service.platform.identity.ids import make_id
from service.platform.identity.provider import refusal_of
from service.platform.identity.session_store import MOST_SESSIONS, insert_session, select_live
from service.platform.identity.sessions import POLL
from service.platform.identity.sign_in import LOGOUT_EVENT, ROOM, add_pending, begin, check_target, read_pending
from service.platform.identity.tokens import add_claims
from service.platform.settings import PlatformSettings
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import CLIENT, Issuer, open_issuer
from service.platform.testing.own_server import OwnServer
from service.platform.testing.wire import Closed, RawWebsocket, UpgradeRefused, open_raw
from tests.platform.database.proxy import Proxy, open_proxy
from tests.platform.identity.world import DOORS, FREE, auth
from tests.platform.test_calls import other_service
from tests.platform.upgrades import settings_for

SESSION, PENDING = "__Host-session", "__Host-sign-in"
# The clock's rate where it matters which of two comes first: a poll is then 100 s away, however busy the machine is.
SLOWLY = 0.05


@dataclass
class Browser:
    """What a browser does with cookies, but for sending them over TLS alone."""

    client: Client
    issuer: Issuer
    cookies: dict[str, str] = field(default_factory=dict)

    async def ask(self, path: str, method: str = "GET", **options: Any) -> httpx2.Response:
        sent = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = ({"Cookie": sent} if sent else {}) | options.pop("headers", {})
        response = await self.client.request(method, path, headers=headers, **options)
        for set_cookie in response.headers.get_list("Set-Cookie"):
            name, _, value = set_cookie.partition(";")[0].partition("=")
            assert name.startswith("__Host-")
            assert {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"} <= {part.strip() for part in set_cookie.split(";")}
            assert "Domain" not in set_cookie
            self.cookies.pop(name, None)
            if value:
                self.cookies[name] = value
        self.client.cookies.clear()
        return response

    async def sign_in(self, to: str = "/", **claims: Any) -> httpx2.Response:
        begun = await self.ask(f"/auth/sign-in?to={to}")
        assert begun.status_code == 303
        return await self.ask(self.issuer.approve(begun.headers["Location"], **claims))

    async def me(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.ask("/auth/me")).json()
        return found


@dataclass(frozen=True)
class Site:
    issuer: Issuer
    url: str
    management: str
    client: Client

    def browser(self) -> Browser:
        return Browser(self.client, self.issuer)

    @asynccontextmanager
    async def socket(self, browser: Browser, path: str = "/feed", *, origin: str = "") -> AsyncIterator[RawWebsocket]:
        headers = f"Cookie: {SESSION}={browser.cookies.get(SESSION, '')}\r\n"
        headers += f"Origin: {origin}\r\n" if origin else ""
        async with open_raw(self.url, path, headers=headers) as socket:
            yield socket


@asynccontextmanager
async def sites(
    make_settings: MakeSettings,
    count: int = 1,
    sign_with: str = "ES256",
    odd: dict[str, Any] | None = None,
    userinfo: dict[str, Any] | None = None,
    **changes: Any,
) -> AsyncIterator[list[Site]]:
    """Yield replicas of a service that is a client of one provider, with an odd discovery document or a good one."""
    async with open_issuer() as issuer, AsyncExitStack() as stack:
        issuer.sign_with(sign_with)
        issuer.odd, issuer.userinfo = odd or {}, userinfo
        client = {"auth_client_id": CLIENT, "auth_client_secret": issuer.secret}
        settings = make_settings(**FREE, **auth(issuer) | client | changes)
        found = []
        for _ in range(count):
            urls = await stack.enter_async_context(booted(settings, [DOORS]))
            client_there = await stack.enter_async_context(Client(urls.public))
            found.append(Site(issuer, urls.public, urls.management, client_there))
        yield found


async def test_a_browser_signs_in_and_out(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        browser = site.browser()
        before = await browser.me()
        back = await browser.sign_in("/members?a=b", name="Ada", sub="u-1")
        signed_in = await browser.me()
        members = await browser.ask("/members")
        async with site.socket(browser) as socket:
            subject = await socket.receive()
        stolen = Browser(site.client, site.issuer, dict(browser.cookies))
        out = await browser.ask("/auth/sign-out", "POST")
        after = await browser.me()
        theft = await stolen.me()

    assert (before["identity"], before["sign_in"], before["signed_in"]) == (True, True, False)
    assert (back.status_code, back.headers["Location"]) == (303, "/members?a=b")
    assert (signed_in["signed_in"], signed_in["name"], signed_in["subject"]) == (True, "Ada", "u-1")
    assert (members.status_code, subject) == (200, "u-1")
    assert out.json()["to"].startswith(f"{site.issuer.url}/end?client_id={CLIENT}")
    assert (after["signed_in"], theft["signed_in"], browser.cookies) == (False, False, {})


async def test_the_log_tells_who_signed_in_and_out_and_no_name(
    make_settings: MakeSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    """The line of a request has whoever asks, and before a sign-in, as behind a sign-out, that is nobody."""
    async with sites(make_settings) as [site]:
        ada, bob = site.browser(), site.browser()
        await ada.sign_in(name="Ada Lovelace", sub="subject-of-ada")
        await ada.ask("/members")
        for _ in range(2):
            await ada.ask("/auth/sign-out", "POST")
        await bob.sign_in(sub="u-1")
        await site.client.post("/auth/backchannel-logout", data={"logout_token": logout(site)})

    output = capfd.readouterr().out
    lines = [line.split("]", 1)[1].strip() for line in output.splitlines() if "] " in line]
    events = [re.split(" {2,}", line)[0] for line in lines]
    told = [event for event in events if event.startswith("signed")]
    whose = [re.search("subject=([0-9a-f]{16})", line) for line in lines if "signed" in line or "/members" in line]
    by_ada, asked, out, by_bob, ended = [found and found[1] for found in whose]
    assert told == ["signed in", "signed out", "signed in", "signed out by the provider"]
    assert (by_ada, by_bob) == (out, ended)
    assert asked == by_ada != by_bob
    assert "Ada" not in output
    assert "subject-of-ada" not in output


@asynccontextmanager
async def behind_proxy(server: OwnServer) -> AsyncIterator[tuple[Proxy, Database, Site]]:
    """Yield a proxy, a replica that reaches the server through it, and the server's database past it."""
    migrate(settings_for(server.tcp_url))
    async with (
        open_proxy(server.port) as proxy,
        open_database(PlatformSettings(database_url=server.tcp_url)) as direct,
        sites(partial(PlatformSettings, database_url=proxy.url())) as [site],
    ):
        yield proxy, direct, site


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not committed"])
async def test_a_sign_in_whose_commit_has_no_answer_is_done_all_the_same(
    one_server: OwnServer, *, committed: bool
) -> None:
    """The browser cannot repeat it, as the code is good once; and nobody would have the session that was begun."""
    with trio.fail_after(60):
        async with behind_proxy(one_server) as (proxy, direct, site):
            browser = site.browser()
            await browser.sign_in()
            proxy.break_at(b"COMMIT\0", forward=committed)
            back = await browser.sign_in("/members")
            signed_in = await browser.me()
            sessions = await direct.read(count_sessions)

    assert proxy.broken == 1
    assert (back.status_code, signed_in["signed_in"], sessions) == (303, True, 1)


@pytest.mark.parametrize("committed", [True, False], ids=["committed", "not committed"])
async def test_an_end_whose_commit_has_no_answer_is_done_all_the_same(
    one_server: OwnServer, *, committed: bool
) -> None:
    """Providers do not tell of a sign-out again, and who has signed out at a machine of others goes away."""
    with trio.fail_after(60):
        async with behind_proxy(one_server) as (proxy, direct, site):
            browser, other = site.browser(), site.browser()
            await browser.sign_in()
            await other.sign_in(sub="u-1")
            proxy.break_at(b"COMMIT\0", forward=committed)
            out = await browser.ask("/auth/sign-out", "POST")
            left = await direct.read(count_sessions)
            proxy.break_at(b"COMMIT\0", forward=committed)
            told = await site.client.post("/auth/backchannel-logout", data={"logout_token": logout(site)})
            none = await direct.read(count_sessions)

    assert proxy.broken == 2
    assert (out.status_code, left, browser.cookies) == (200, 1, {})
    assert (told.status_code, none) == (200, 0)


HOSTS = {
    "orders_web:8000": "http://orders_web:8000",
    "Example.org:80": "http://example.org",
    "[::1]:8000": "http://[::1]:8000",
    "a..example": None,
    "example.org:99999": None,
    "[::::]": None,
    "": None,
}


@pytest.mark.parametrize("host", HOSTS)
async def test_a_browser_comes_back_to_the_host_that_it_asked_or_is_told_that_it_is_none(
    make_settings: MakeSettings, host: str
) -> None:
    async with sites(make_settings) as [site]:
        begun = await site.client.get("/auth/sign-in", headers={"Host": host})
        out = await site.client.post("/auth/sign-out", headers={"Host": host})

    if (back := HOSTS[host]) is None:
        assert (begun.status_code, out.status_code) == (400, 400)
        assert begun.json()["detail"].startswith("the Host ")
    else:
        asked = parse_qs(urlsplit(begun.headers["Location"]).query)
        left = parse_qs(urlsplit(out.json()["to"]).query)
        assert (asked["redirect_uri"], left["post_logout_redirect_uri"]) == ([f"{back}/auth/callback"], [f"{back}/"])


async def test_a_trusted_proxy_tells_the_scheme_and_not_the_host(make_settings: MakeSettings) -> None:
    told = {"Host": "example.org", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "else.example"}
    async with sites(make_settings, trusted_proxies="127.0.0.1") as [site]:
        begun = await site.client.get("/auth/sign-in", headers=told)

    asked = parse_qs(urlsplit(begun.headers["Location"]).query)
    assert asked["redirect_uri"] == ["https://example.org/auth/callback"]


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"])
async def test_a_provider_signs_by_any_allowed_algorithm(make_settings: MakeSettings, algorithm: str) -> None:
    """Its tokens, its ID tokens and its logout tokens; by one that is not allowed none of them."""
    for allowed in (algorithm, "ES384"):
        async with sites(make_settings, auth_algorithms=allowed, sign_with=algorithm) as [site]:
            browser, headers = site.browser(), {"Authorization": f"Bearer {site.issuer.token()}"}
            by_token = (await site.client.get("/members", headers=headers)).status_code
            by_browser = (await browser.sign_in(sub="u-1")).status_code
            form = {"logout_token": logout(site)}
            by_provider = (await site.client.post("/auth/backchannel-logout", data=form)).status_code
            signed_in = (await browser.me())["signed_in"]
        held = allowed == algorithm
        assert (by_token, by_browser, by_provider) == ((200, 303, 200) if held else (401, 401, 400))
        assert not signed_in


async def test_a_real_provider_signs_somebody_in(make_settings: MakeSettings) -> None:
    ada = oidc_provider_mock.User(sub="ada", claims={"name": "Ada Lovelace"})
    with oidc_provider_mock.run_server_in_thread(require_nonce=True, user_claims=[ada]) as provider:
        issuer = f"http://localhost:{provider.server_port}"
        client_id = {"auth_client_id": CLIENT, "auth_client_secret": "a secret", "auth_scopes": "openid,profile,email"}
        settings = make_settings(**FREE, auth_issuer=issuer, auth_audience="orders", **client_id)
        async with (
            booted(settings, [DOORS]) as urls,
            Client(urls.public) as client,
            httpx2.AsyncClient() as at_the_provider,
        ):
            browser = Browser(client, Issuer(issuer))
            begun = await browser.ask("/auth/sign-in?to=/members")
            approved = await at_the_provider.post(begun.headers["Location"], data={"sub": "ada"})
            back = await browser.ask(approved.headers["Location"])
            again = await browser.ask(approved.headers["Location"])
            me = await browser.me()
            out = (await browser.ask("/auth/sign-out", "POST")).json()["to"]
            end = await at_the_provider.get(out)

    assert (back.headers["Location"], again.status_code) == ("/members", 401)
    assert (me["subject"], me["name"]) == ("ada", "Ada Lovelace")
    assert end.status_code == 200


@pytest.mark.parametrize(
    ("userinfo", "claims", "name"),
    [
        ({"sub": "u-1", "name": "Ada"}, {}, "Ada"),
        ({"sub": "u-1", "preferred_username": "ada"}, {"name": " "}, "ada"),
        ({"sub": "u-1", "name": "another"}, {"name": "Ada"}, "Ada"),  # then nobody asks
        ({"sub": "u-2", "name": "another"}, {}, "u-1"),
        ({"name": "of nobody"}, {}, "u-1"),
        ({"sub": "u-1", "name": "A\0"}, {}, "u-1"),
        ({"sub": "u-1", "name": "\ud800"}, {}, "u-1"),
        ({"sub": "u-1", "name": "Ada", "x": float("inf")}, {}, "u-1"),
        ({"sub": "u-1", "name": "Ada", "x": json.loads("[" * 60 + "]" * 60)}, {}, "u-1"),
        ({"sub": "u-1", "name": "Ada", "x": "x" * 13_000}, {}, "u-1"),
        (None, {}, "u-1"),
    ],
)
async def test_a_name_that_the_id_token_lacks_is_asked_for(
    make_settings: MakeSettings, userinfo: dict[str, Any] | None, claims: dict[str, Any], name: str
) -> None:
    """A provider that keeps to the standard tells names, and what else a scope stands for, at its userinfo endpoint."""
    async with sites(make_settings, userinfo=userinfo) as [site]:
        browser = site.browser()
        back = await browser.sign_in(**{"sub": "u-1", "name": None} | claims)
        me = await browser.me()

    assert (back.status_code, me["subject"], me["name"]) == (303, "u-1", name)


@pytest.mark.parametrize("where", ["http://127.0.0.1:1", "http://example.org", 7])
async def test_without_what_the_provider_could_tell_one_is_signed_in_all_the_same(
    make_settings: MakeSettings, capfd: pytest.CaptureFixture[str], where: Any
) -> None:
    async with sites(make_settings, odd={"userinfo_endpoint": where}) as [site]:
        browser = site.browser()
        back = await browser.sign_in(sub="u-1", name=None)
        me = await browser.me()

    assert (back.status_code, me["name"]) == (303, "u-1")
    assert capfd.readouterr().out.count("identity provider tells no name") == 1


async def test_scopes_that_no_session_can_hold_are_left_out(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        site.issuer.granted = "orders:write a\0b \ud800"
        browser = site.browser()
        back = await browser.sign_in(sub="u-1", scope=None)
        done = await browser.ask("/orders/7", "POST", headers={"Origin": site.url})

    assert (back.status_code, done.json()) == (303, {"subject": "u-1"})


def test_claims_of_a_token_win_over_those_that_are_told_beside_it() -> None:
    caller = Caller(subject="u-1", name="u-1", claims={"sub": "u-1", "groups": ["a"]})
    told = add_claims(caller, {"sub": "u-1", "name": "Ada", "groups": ["b"], "email": "a@example.org"})

    assert told.name == "Ada"
    assert told.claims == {"sub": "u-1", "name": "Ada", "groups": ["a"], "email": "a@example.org"}


def pending(**changes: Any) -> str:
    begun = {"state": "s", "nonce": "n", "verifier": "v", "target": "/"} | changes
    return urlsafe_b64encode(json.dumps(begun).encode()).decode()


ODD_COOKIES = {
    "no JSON": "e30x", "a list": "W10=", "not Base64": "!", "nested deeply": urlsafe_b64encode(b"[" * 11_000).decode(),
}  # fmt: skip


@pytest.mark.parametrize(
    "cookie",
    [*ODD_COOKIES.values(), pending(verifier=7), pending(nonce=None), pending(nonce=["n"]), pending(target=["/"]),
     pending(state=1), pending(verifier={"a": 1}), pending(more=""), pending(nonce="\ud800"), pending(state="\ud800")],
)  # fmt: skip
def test_a_cookie_that_began_no_sign_in_is_none(cookie: str) -> None:
    assert read_pending(pending(), "s").verifier == "v"
    with pytest.raises(Unauthenticated):
        read_pending(cookie, "s")


async def test_sign_ins_that_were_begun_side_by_side_all_succeed_and_each_once(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        browser = site.browser()
        tabs = [await browser.ask(f"/auth/sign-in?to=/tab{number}") for number in range(3)]
        answers = [site.issuer.approve(tab.headers["Location"], sub="u-1") for tab in tabs]
        backs = [await browser.ask(answer) for answer in answers]
        again = [await browser.ask(answer) for answer in answers]
        signed_in = await browser.me()

    assert [(back.status_code, back.headers.get("Location")) for back in backs] == [
        (303, "/tab0"), (303, "/tab1"), (303, "/tab2"),
    ]  # fmt: skip
    assert [answer.status_code for answer in again] == [401] * 3
    assert (signed_in["subject"], set(browser.cookies)) == ("u-1", {SESSION})


def test_of_more_sign_ins_than_a_cookie_holds_the_last_are_kept() -> None:
    begun = [begin(f"/{number}") for number in range(100)]
    cookie = ""
    for one in begun:
        cookie = add_pending(cookie, one)

    assert len(cookie) <= ROOM
    assert [read_pending(cookie, one.state) for one in begun[-5:]] == begun[-5:]
    with pytest.raises(Unauthenticated):
        read_pending(cookie, begun[0].state)


def test_of_a_cookie_no_more_parts_are_read_than_ours_has() -> None:
    """In the headers of a request is room for as many as hold the event loop for 0.07 s."""
    one = begin("/")

    assert read_pending("." + one.cookie(), one.state) == one
    with pytest.raises(Unauthenticated):
        read_pending("." * 15_000 + one.cookie(), one.state)


@pytest.mark.parametrize("earlier", [*ODD_COOKIES.values(), "a; Domain=x", "\r\nX: 1", "...", ""])
def test_what_began_no_sign_in_is_not_sent_back(earlier: str) -> None:
    one = begin("/")

    assert add_pending(earlier, one) == one.cookie()


async def test_what_is_no_honest_answer_signs_nobody_in(make_settings: MakeSettings) -> None:
    statuses: dict[str, int] = {}
    async with sites(make_settings) as [site], open_issuer() as foreign:

        async def attempt(name: str, browser: Browser, url: str) -> None:
            response = await browser.ask(url)
            assert SESSION not in browser.cookies, name
            statuses[name] = response.status_code

        async def begun() -> tuple[Browser, str]:
            browser = site.browser()
            return browser, (await browser.ask("/auth/sign-in")).headers["Location"]

        browser, url = await begun()
        honest = site.issuer.approve(url)
        state = parse_qs(urlsplit(url).query)["state"][0]
        await attempt("another browser", site.browser(), honest)
        await attempt("another state", browser, honest.replace(state, "x" * 43))
        await attempt("no state", browser, honest.replace(f"state={state}", "x=1"))
        await attempt("another issuer (RFC 9207)", browser, honest.replace("iss=", "iss=x"))
        await attempt("no code", browser, f"/auth/callback?state={state}")
        await attempt("a made-up code", browser, f"/auth/callback?state={state}&code=x")
        await attempt("an error", browser, f"/auth/callback?state={state}&error=access_denied")
        await attempt("an error beside a code", browser, f"{honest}&error=access_denied")
        assert (await browser.ask(honest)).status_code == 303
        browser.cookies.pop(SESSION)
        await attempt("the same answer again", browser, honest)
        browser, url = await begun()
        used = site.issuer.approve(url)
        pending = dict(browser.cookies)
        assert (await browser.ask(used)).status_code == 303
        browser.cookies = pending
        await attempt("the same answer again, the cookie kept", browser, used)
        _, other_url = await begun()
        browser, url = await begun()
        stolen = parse_qs(urlsplit(site.issuer.approve(other_url)).query)["code"][0]
        mine = parse_qs(urlsplit(url).query)["state"][0]
        await attempt("a stolen code under one's own state", browser, f"/auth/callback?state={mine}&code={stolen}")
        changes: dict[str, dict[str, Any]] = {
            "another nonce": {"nonce": "x"},
            "no nonce": {"nonce": None},
            "a token for another client": {"aud": "another"},
            "a token for two, not made for us": {"aud": [CLIENT, "another"], "azp": "another"},
            "a token of another issuer": {"iss": foreign.url},
            "an expired token": {"exp": time.time() - 61},
            "a token of nobody": {"sub": None},
        }
        for name, claims in changes.items():
            browser, url = await begun()
            await attempt(name, browser, site.issuer.approve(url, **claims))
        site.issuer.omits_id_token = True
        browser, url = await begun()
        await attempt("an access token in place of an ID token", browser, site.issuer.approve(url))
        site.issuer.omits_id_token = False
        for name, cookie in ODD_COOKIES.items():
            browser, url = await begun()
            browser.cookies[PENDING] = cookie
            await attempt(name, browser, site.issuer.approve(url))

    assert set(statuses.values()) == {401}, statuses
    print(f"{len(statuses)} answers, nobody signed in")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("access_denied", "the identity provider did not sign anybody in: access_denied"),
        (
            "invalid_scope",
            "the identity provider did not sign anybody in: invalid_scope; SERVICE_AUTH_SCOPES must hold only what it "
            "grants to SERVICE_AUTH_CLIENT_ID",
        ),
        ('"\\\r\n', "the identity provider did not sign anybody in"),
    ],
)
async def test_what_the_provider_says_is_told(make_settings: MakeSettings, error: str, said: str) -> None:
    async with sites(make_settings) as [site]:
        browser = site.browser()
        state = parse_qs(urlsplit((await browser.ask("/auth/sign-in")).headers["Location"]).query)["state"][0]
        back = await browser.ask(f"/auth/callback?{urlencode({'state': state, 'error': error})}")

    assert (back.status_code, back.json()["detail"]) == (401, said)


async def test_a_provider_that_does_not_know_this_client_is_told_from_a_code_that_is_over(
    make_settings: MakeSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    async with sites(make_settings, auth_client_secret="not the client's") as [site]:
        back = await site.browser().sign_in()
    async with sites(make_settings) as [site]:
        browser = site.browser()
        begun = await browser.ask("/auth/sign-in")
        state = parse_qs(urlsplit(begun.headers["Location"]).query)["state"][0]
        over = await browser.ask(f"/auth/callback?state={state}&code=x")

    assert back.status_code == over.status_code == 401
    assert back.json()["detail"] == (
        "the identity provider answers 401 (invalid_client): SERVICE_AUTH_CLIENT_ID and SERVICE_AUTH_CLIENT_SECRET "
        "must be as it knows them"
    )
    assert over.json()["detail"].startswith("the identity provider answers 400 (invalid_grant) to the code, which is ")
    assert capfd.readouterr().out.count("identity provider refuses this client") == 1


@pytest.mark.parametrize(
    ("offered", "takes", "signed_in"),
    [
        (["client_secret_post", "client_secret_basic"], "client_secret_post", True),
        (["client_secret_post", "private_key_jwt"], "client_secret_post", True),
        (["client_secret_post", "client_secret_basic"], "client_secret_basic", True),
        (["private_key_jwt"], "client_secret_basic", True),
        ("client_secret_post", "client_secret_basic", True),
        (["client_secret_basic"], "client_secret_post", False),
    ],
)
async def test_a_secret_is_sent_in_the_way_that_the_provider_takes(
    make_settings: MakeSettings, offered: Any, takes: str, signed_in: bool
) -> None:
    async with sites(make_settings, odd={"token_endpoint_auth_methods_supported": offered}) as [site]:
        site.issuer.takes = takes
        statuses = [(await site.browser().sign_in()).status_code for _ in range(2)]

    assert statuses == ([303, 303] if signed_in else [401, 401])


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b'"x"', b"[" * 100_000, b'{"error": null}', b'{"error": ["invalid_client"]}',
     b'{"error": {}}', b'{"error": "a b"}', b"\xff"],
)  # fmt: skip
def test_of_a_refusal_that_says_nothing_the_status_is_told(body: bytes) -> None:
    assert str(refusal_of(400, body)).startswith("the identity provider answers 400 to the code, which is good once")


async def test_a_token_for_another_client_is_told_so(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        back = await site.browser().sign_in(aud="another")

    said = "the token is for another audience: its aud must hold SERVICE_AUTH_CLIENT_ID"
    assert (back.status_code, back.json()["detail"]) == (401, said)


async def test_the_id_token_of_a_sign_in_is_no_access_token(make_settings: MakeSettings) -> None:
    """Where the audience is the client's name nothing but its nonce tells it from what a program may send."""
    async with sites(make_settings, auth_audience=CLIENT) as [site]:
        begun = await site.browser().ask("/auth/sign-in")
        nonce = parse_qs(urlsplit(begun.headers["Location"]).query)["nonce"][0]
        answers = [
            await site.client.get("/members", headers={"Authorization": f"Bearer {token}"})
            for token in (
                site.issuer.token(header={"typ": "JWT"}, aud=CLIENT, nonce=nonce),
                site.issuer.token(header={"typ": "JWT"}, aud=CLIENT, nonce="a program's", at_hash="x"),  # Google's
                site.issuer.token(header={"typ": "JWT"}, aud=[CLIENT], nonce=7),
            )
        ]

    assert [answer.status_code for answer in answers] == [401, 200, 200]
    assert answers[0].json()["detail"] == "the token is the ID token of a browser's sign-in; send an access token"


async def test_a_provider_that_does_not_repeat_the_nonce_is_told_so(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        back = await site.browser().sign_in(nonce=None)

    said = "the ID token holds no nonce, which the identity provider was sent and has to repeat"
    assert (back.status_code, back.json()["detail"]) == (401, said)


async def test_over_http_who_comes_back_without_the_cookie_is_told_why(make_settings: MakeSettings) -> None:
    """Browsers keep no Secure cookie there but on their own machine: to begin anew would be in vain."""
    async with sites(make_settings, trusted_proxies="127.0.0.1") as [site]:
        details = [
            (await site.client.get("/auth/callback?state=x&code=x", headers=headers)).json()["detail"]
            for headers in ({}, {"X-Forwarded-Proto": "https"})
        ]

    why = "begin anew, by https: over http browsers keep its cookie on localhost alone, and Safari nowhere"
    assert [one.endswith(why) for one in details] == [True, False]


@pytest.mark.parametrize("status", [408, 425, 429, 500])
async def test_a_provider_that_is_busy_has_not_refused_the_code(make_settings: MakeSettings, status: int) -> None:
    """The code is good still, so the browser may come again with it, once the provider is less busy."""

    async def busy(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(f"HTTP/1.1 {status} \r\nContent-Length: 0\r\n\r\n".encode())

    async with other_service(busy) as url, sites(make_settings, odd={"token_endpoint": url}) as [site]:
        browser = site.browser()
        begun = await browser.ask("/auth/sign-in")
        back = site.issuer.approve(begun.headers["Location"])
        away = await browser.ask(back)

    assert (away.status_code, away.headers.get("Retry-After"), PENDING in browser.cookies) == (503, "5", True)


async def test_an_answer_that_met_an_outage_is_repeated_in_vain_and_says_what_to_do(
    make_settings: MakeSettings, one_server: OwnServer
) -> None:
    """The provider takes its code once, and the 503 said that the request may be sent again."""
    migrate(settings_for(one_server.url))
    async with sites(make_settings, database_url=one_server.tcp_url) as [site]:
        browser = site.browser()
        begun = await browser.ask("/auth/sign-in")
        back = site.issuer.approve(begun.headers["Location"])
        one_server.stop()
        away = await browser.ask(back)
        again = await browser.ask(back)
        one_server.start()

    assert (away.status_code, again.status_code) == (503, 401)
    assert again.json()["detail"].endswith(", which is good once and for a short time; begin anew at /auth/sign-in")


@pytest.mark.parametrize(
    "target",
    ["https://evil.example", "//evil.example", "/\\evil.example", "\\\\evil.example", "evil", "", "/\t/evil.example",
     "/a\r\nSet-Cookie: x=y", "javascript:alert(1)", "/é"],
)  # fmt: skip
async def test_nobody_is_sent_elsewhere(make_settings: MakeSettings, target: str) -> None:
    with pytest.raises(Invalid):
        check_target(target)
    async with sites(make_settings) as [site]:
        response = await site.client.get("/auth/sign-in", params={"to": target})

    assert response.status_code == 400
    assert "location" not in response.headers


async def test_an_id_that_was_there_before_is_not_taken_over(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        browser = site.browser()
        browser.cookies[SESSION] = planted = "p" * 43
        await browser.sign_in()
        first = browser.cookies[SESSION]
        await browser.sign_in(sub="u-2")
        second = browser.cookies[SESSION]
        old = Browser(site.client, site.issuer, {SESSION: first})
        fixed = Browser(site.client, site.issuer, {SESSION: planted})

        assert len({planted, first, second}) == 3
        assert not (await old.me())["signed_in"], "who signs in anew ends what was there before"
        assert not (await fixed.me())["signed_in"]
        assert (await browser.me())["subject"] == "u-2"


async def test_a_cookie_without_its_prefix_or_twice_is_none(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        browser = site.browser()
        await browser.sign_in()
        value = browser.cookies[SESSION]
        for sent in (
            f"session={value}",
            f"Host-session={value}",
            f"{SESSION}={value}; {SESSION}={'x' * 43}",
            f"x{SESSION}={value}",
        ):
            response = await site.client.get("/members", headers={"Cookie": sent})
            assert response.status_code == 401, sent


async def test_what_others_of_the_domain_set_keeps_nobody_from_signing_in_and_out(make_settings: MakeSettings) -> None:
    """Two of theirs, of which each holds half a quote, are around ours."""

    def beside(browser: Browser) -> dict[str, Any]:
        [(name, value)] = browser.cookies.items()
        return {"headers": {"Cookie": f'a="; {name}={value}; z="'}}

    async with sites(make_settings) as [site]:
        browser = site.browser()
        begun = await browser.ask("/auth/sign-in")
        back = await browser.ask(site.issuer.approve(begun.headers["Location"]), **beside(browser))
        here = Browser(site.client, site.issuer, dict(browser.cookies))
        signed_in = await here.me()
        out = await browser.ask("/auth/sign-out", "POST", **beside(browser))
        after = await here.me()

    assert (back.status_code, signed_in["signed_in"]) == (303, True)
    assert (out.status_code, after["signed_in"]) == (200, False)


@pytest.mark.parametrize("sent", [{"data": {}}, {"data": {"token": "x"}}, {"json": {"logout_token": "x"}}])
async def test_a_logout_without_its_token_is_told_what_is_missing(
    make_settings: MakeSettings, sent: dict[str, Any]
) -> None:
    async with sites(make_settings) as [site]:
        answer = await site.client.post("/auth/backchannel-logout", **sent)

    assert answer.status_code == 400
    assert answer.json()["detail"] == "logout_token: is missing; must be a field of a form"


async def test_a_page_of_another_origin_can_do_nothing(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        browser = site.browser()
        await browser.sign_in()
        evil = {"Origin": "https://evil.example"}
        answers = [
            (await browser.ask(path, "POST", headers=evil)).status_code for path in ("/auth/sign-out", "/auth/ticket")
        ]
        form = {"logout_token": "x"}
        answers.append((await browser.ask("/auth/backchannel-logout", "POST", data=form, headers=evil)).status_code)
        own = {"Origin": site.url}
        by_our_page = await browser.ask("/auth/backchannel-logout", "POST", data=form, headers=own)
        assert (await browser.me())["signed_in"]

    assert answers == [403, 403, 403]
    assert by_our_page.status_code == 415, "a form is taken from who is no browser"


async def test_a_page_of_a_listed_origin_is_not_whoever_has_signed_in_here(make_settings: MakeSettings) -> None:
    """Browsers send the cookie with what a page of the same site does: app.example.org is of api.example.org's."""
    listed = "https://app.example.org"
    async with sites(make_settings, allowed_origins=f"{listed},http://127.0.0.1:1") as [site]:
        browser = site.browser()
        await browser.sign_in(sub="u-1")
        elsewhere = {"Origin": listed}
        asked = [("/auth/me", "GET"), ("/auth/ticket", "POST"), ("/hook", "POST"), ("/auth/sign-out", "POST")]
        with pytest.raises(UpgradeRefused) as upgrade:
            async with site.socket(browser, origin=listed):
                pass
        answers = [await browser.ask(path, method, headers=elsewhere) for path, method in asked]
        me, ticket, hook, out = answers
        token = {"Authorization": f"Bearer {site.issuer.token(sub='u-2')}"}
        by_token = await browser.ask("/auth/me", headers=elsewhere | token)
        assert (await browser.me())["signed_in"]

    assert (me.json()["signed_in"], hook.json()) == (False, {"subject": ""})
    assert (upgrade.value.status, ticket.status_code, out.status_code) == (401, 401, 403)
    assert [answer.headers.get("Set-Cookie") for answer in answers] == [None] * 4
    assert by_token.json()["subject"] == "u-2"


async def test_the_service_s_own_page_has_its_session_where_its_origin_is_listed(make_settings: MakeSettings) -> None:
    own = "http://orders.example.org"
    async with sites(make_settings, allowed_origins=f"https://app.example.org,{own}") as [site]:
        browser = site.browser()
        await browser.sign_in(sub="u-1")
        ours = {"headers": {"Origin": own, "Host": "orders.example.org"}}
        hook = await browser.ask("/hook", "POST", **ours)
        out = await browser.ask("/auth/sign-out", "POST", **ours)

    assert hook.json() == {"subject": "u-1"}
    assert (out.status_code, browser.cookies) == (200, {})


async def test_a_cookie_says_nothing_beside_a_body_that_any_page_may_send(make_settings: MakeSettings) -> None:
    """So that a form of a page, should it ever come without an Origin, is nobody's."""
    async with sites(make_settings) as [site]:
        browser = site.browser()
        await browser.sign_in(sub="u-1")
        sent: list[dict[str, Any]] = [
            {"data": {"a": "b"}},
            {"data": {"a": "b"}, "files": {"c": b"d"}},
            {"content": b"{}", "headers": {"Content-Type": "text/plain"}},
            {"json": {}},
        ]
        said = [(await browser.ask("/hook", "POST", **one)).json()["subject"] for one in sent]
        token = {"Authorization": f"Bearer {site.issuer.token(sub='u-2')}"}
        by_token = await site.client.post("/hook", data={"a": "b"}, headers=token)

    assert said == ["", "", "", "u-1"]
    assert by_token.json() == {"subject": "u-2"}


async def test_a_session_is_over_in_time_and_one_has_only_so_many(
    make_settings: MakeSettings, writable_database_url: str, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    async with sites(make_settings, database_url=writable_database_url) as [site]:
        browsers = [site.browser() for _ in range(MOST_SESSIONS + 1)]
        for browser in browsers:
            await browser.sign_in()
        states = [(await browser.me())["signed_in"] for browser in browsers]
        with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as connection:
            rows = connection.execute("SELECT hash, subject FROM identity_session").fetchall()
            connection.execute("UPDATE identity_session SET expires = now() - interval '1 second'")
        mock_clock.jump(POLL)
        after = await browsers[-1].me()

    assert states == [False] + [True] * MOST_SESSIONS
    assert browsers[-1].cookies[SESSION].encode() not in [bytes(row[0]) for row in rows]
    assert not after["signed_in"]


async def test_those_who_sign_in_at_once_have_as_many_sessions_together(make_settings: MakeSettings) -> None:
    def begin(connection: Connection) -> None:
        ada = Caller(subject="ada", expires=9e9)
        insert_session(connection, digest=make_id()[1], caller=ada, lifetime=60, sid=None, before=None)

    def begin_and_linger(connection: Connection) -> None:
        begin(connection)
        connection.execute(sa.text("SELECT pg_sleep(0.2)"))

    async with open_database(make_settings()) as database:
        for _ in range(MOST_SESSIONS):
            await database.run(begin)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(database.run, begin_and_linger)

        assert await database.read(count_sessions) == MOST_SESSIONS


def count_sessions(connection: Connection) -> int:
    return int(connection.execute(sa.text("SELECT count(*) FROM identity_session")).scalar_one())


async def test_of_more_sessions_than_a_statement_has_parameters_those_that_live_are_found(
    make_settings: MakeSettings,
) -> None:
    """As many as a replica may have websockets: `SERVICE_MAX_WEBSOCKETS` goes up to a million."""
    _, digest = make_id()
    async with open_database(make_settings()) as database:
        ada = Caller(subject="ada", expires=9e9)
        await database.run(insert_session, digest=digest, caller=ada, lifetime=600, sid=None, before=None)
        held = {digest, *(number.to_bytes(32) for number in range(2**16))}

        assert await database.read(select_live, digests=held) == {digest}


async def ended(socket: RawWebsocket, began: float) -> tuple[int, str, float]:
    try:
        while True:
            await socket.receive()
    except Closed as closed:
        return closed.code, closed.reason, trio.current_time() - began


async def test_a_sign_out_ends_the_websockets_on_every_replica_at_once(
    make_settings: MakeSettings, mock_clock: MockClock
) -> None:
    mock_clock.rate = SLOWLY
    async with sites(make_settings, count=2) as [here, there]:
        browser, other = here.browser(), here.browser()
        await browser.sign_in()
        await other.sign_in()
        async with here.socket(browser) as one, there.socket(browser) as two, there.socket(other) as stays:
            for socket in (one, two, stays):
                await socket.receive()
            began = trio.current_time()
            await browser.ask("/auth/sign-out", "POST")
            ends = [await ended(one, began), await ended(two, began)]
            await stays.send("still there")
            assert await stays.receive() == "still there"

    assert [(code, reason) for code, reason, _ in ends] == [(4401, "signed out")] * 2
    assert max(seconds for *_, seconds in ends) < POLL / 2, "heard, not found out by the poll"


async def test_a_websocket_by_a_ticket_ends_with_the_session_that_the_ticket_was_made_in(
    make_settings: MakeSettings, mock_clock: MockClock
) -> None:
    mock_clock.rate = SLOWLY
    async with sites(make_settings, count=2) as [here, there]:
        browser = here.browser()
        await browser.sign_in()
        offered = [f"ticket.{(await browser.ask('/auth/ticket', 'POST')).json()['ticket']}" for _ in range(4)]
        async with (
            open_raw(here.url, "/feed", protocol=offered[0]) as one,
            open_raw(there.url, "/feed", protocol=offered[1]) as two,
        ):
            assert await one.receive() == await two.receive() != ""
            began = trio.current_time()
            await browser.ask("/auth/sign-out", "POST")
            with trio.fail_after(2 * POLL):
                ends = [await ended(one, began), await ended(two, began)]
        refused = []
        for site, left in zip((here, there), offered[2:], strict=True):
            with pytest.raises(UpgradeRefused) as late:
                async with open_raw(site.url, "/feed", protocol=left):
                    pass
            refused.append(late.value.status)

    assert [(code, reason) for code, reason, _ in ends] == [(4401, "signed out")] * 2
    assert max(seconds for *_, seconds in ends) < POLL / 2, "heard, not found out by the poll"
    assert refused == [401, 401]


async def test_without_listen_they_end_by_the_poll(
    make_settings: MakeSettings, writable_database_url: str, mock_clock: MockClock
) -> None:
    mock_clock.rate = SLOWLY
    async with sites(make_settings, count=2, database_url=writable_database_url) as [here, there]:
        browser = here.browser()
        await browser.sign_in()
        async with there.socket(browser) as socket:
            await socket.receive()
            with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute("DELETE FROM identity_session")  # without a NOTIFY
            began = trio.current_time()
            mock_clock.jump(POLL)
            code, _, seconds = await ended(socket, began)

    assert code == 4401
    assert seconds < 2 * POLL


@pytest.mark.parametrize("payload", ["", "hello", "abc", "é", "00" * 31, "0" * 7_998])
async def test_what_others_notify_ends_nothing(
    make_settings: MakeSettings, writable_database_url: str, mock_clock: MockClock, payload: str
) -> None:
    mock_clock.rate = SLOWLY
    async with sites(make_settings, database_url=writable_database_url) as [site]:
        browser = site.browser()
        await browser.sign_in()
        async with site.socket(browser) as socket:
            await socket.receive()
            with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as connection:
                connection.execute("SELECT pg_notify('identity', %s)", (payload,))
                connection.execute("SELECT pg_notify('identity', %s)", (payload + " ",))
            await socket.send("still there")
            assert await socket.receive() == "still there"
            began = trio.current_time()
            await browser.ask("/auth/sign-out", "POST")
            code, reason, seconds = await ended(socket, began)

    assert (code, reason) == (4401, "signed out")
    assert seconds < POLL / 2, "heard, not found out by the poll"


def logout(site: Site, **changes: Any) -> str:
    claims = {"aud": CLIENT, "events": {LOGOUT_EVENT: {}}, "sub": "u-1", "name": None, "scope": None} | changes
    return site.issuer.token(header={"typ": "logout+jwt"}, **claims)


async def test_the_provider_ends_sessions(make_settings: MakeSettings, mock_clock: MockClock) -> None:
    mock_clock.rate = SLOWLY
    async with sites(make_settings, count=2) as [here, there]:
        browsers = [here.browser() for _ in range(3)]
        for browser, claims in zip(
            browsers, ({"sub": "u-1", "sid": "s-1"}, {"sub": "u-1", "sid": "s-2"}, {"sub": "u-2"}), strict=True
        ):
            await browser.sign_in(**claims)

        async def signed_in() -> list[bool]:
            return [(await browser.me())["signed_in"] for browser in browsers]

        async def tell(token: str) -> int:
            response = await there.client.post("/auth/backchannel-logout", data={"logout_token": token})
            return response.status_code

        assert await signed_in() == [True, True, True]
        async with here.socket(browsers[0]) as socket:
            await socket.receive()
            assert await tell(logout(here, sid="s-1")) == 200
            code, _, seconds = await ended(socket, trio.current_time())
        assert (code, seconds < POLL / 2) == (4401, True)
        assert await signed_in() == [False, True, True]
        assert await tell(logout(here)) == 200
        with trio.fail_after(30):
            while await signed_in() != [False, False, True]:
                await trio.sleep(0.02)

        refused = {
            "typ of an access token": here.issuer.token(aud=CLIENT, sub="u-2", events={LOGOUT_EVENT: {}}),
            "no event": logout(here, sub="u-2", events={}),
            "with a nonce": logout(here, sub="u-2", nonce="x"),
            "for another client": logout(here, sub="u-2", aud="another"),
            "of another issuer": logout(here, sub="u-2", iss="https://evil.example"),
            "an old one": logout(here, sub="u-2", iat=time.time() - 600),
            "of nobody": logout(here, sub=None),
            "of a subject that no database stores": logout(here, sub="u-2\0"),
            "of half a character": logout(here, sub=None, sid="\ud800"),
            "none": "",
        }
        answers = {name: await tell(token) for name, token in refused.items()}
        unknown_types = await there.client.post("/auth/ticket", data={"logout_token": "x"})
        assert await signed_in() == [False, False, True]

    assert set(answers.values()) == {400}, answers
    assert unknown_types.status_code == 415, "a form is taken at that one path alone"


async def test_without_a_provider_browsers_are_told_so(make_settings: MakeSettings) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("auth_issuer", "auth_audience", "auth_client_id", "auth_client_secret"))
    async with sites(make_settings, **nothing) as [site]:
        answer = await site.client.get("/auth/sign-in")

    said = "no identity provider is set (SERVICE_AUTH_ISSUER): everybody is a guest, and nobody signs in"
    assert (answer.status_code, answer.json()["detail"]) == (409, said)


async def test_a_place_to_go_that_is_too_long_is_told_so(make_settings: MakeSettings) -> None:
    async with sites(make_settings) as [site]:
        answer = await site.client.get("/auth/sign-in", params={"to": "/" + "a" * 2_000})

    assert answer.json()["detail"].startswith("to: must be a path on this site, of at most 2000 characters, not '/aaa")


async def test_without_a_client_id_browsers_are_told_so(make_settings: MakeSettings) -> None:
    async with sites(make_settings, auth_client_id=None, auth_client_secret=None) as [site]:
        answers = [(await site.client.get(path)).status_code for path in ("/auth/sign-in", "/auth/callback?state=x")]
        answers.append((await site.client.post("/auth/sign-out")).status_code)
        me = (await site.client.get("/auth/me")).json()

    assert answers == [409, 409, 409]
    assert (me["identity"], me["sign_in"]) == (True, False)
