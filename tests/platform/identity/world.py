"""A service with identity on, its issuer, and a feature with a route of each kind."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import trio
from quart import Blueprint, websocket
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.feature import Feature, Resources
from service.platform.http import caller, replies, takes, wait_signed_out
from service.platform.http.limits import unlimited
from service.platform.identity import Unauthenticated, anyone, only, scope, signed_in
from service.platform.process.addresses import Urls
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import AUDIENCE, Issuer, open_issuer
from service.platform.testing.wire import Closed, RawWebsocket, UpgradeRefused, open_raw
from tests.platform.identity.test_may import not_ada

VALID = 300.0  # seconds for which a token is good in tests of its end
FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", "rate_per_address": 0}


class Subject(TypedDict):
    subject: str


@asynccontextmanager
async def open_doors(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("doors", __name__)

    @routes.get("/open")
    @anyone
    @unlimited("a test's")
    async def open_to_all() -> dict[str, str]:
        return {"subject": ""}

    @routes.get("/me")
    @anyone
    @unlimited("a test's")
    @replies(Subject)
    @replies(Unauthenticated)
    async def me() -> Subject:
        return {"subject": (await caller()).subject}

    @routes.post("/hook")
    @anyone
    @unlimited("a test's")
    @takes("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")
    @replies(Subject)
    @replies(Unauthenticated)
    async def hook() -> Subject:
        return {"subject": (await caller()).subject}

    @routes.get("/members")
    @signed_in
    @unlimited("a test's")
    async def members() -> dict[str, str]:
        return {"subject": (await caller()).subject}

    @routes.post("/orders/<int:number>")
    @scope("orders:write")
    @unlimited("a test's")
    async def order(number: int) -> dict[str, str]:
        return {"subject": (await caller()).subject}

    @routes.get("/not-ada")
    @only(not_ada)
    @unlimited("a test's")
    async def anybody_else() -> dict[str, str]:
        return {"subject": (await caller()).subject}

    @routes.websocket("/feed")
    @signed_in
    @unlimited("a test's")
    async def feed() -> None:
        await websocket.accept()
        await websocket.send((await caller()).subject)
        while True:
            await websocket.send(await websocket.receive())

    @routes.websocket("/last-words")
    @signed_in
    @unlimited("a test's")
    async def last_words() -> None:
        await websocket.accept()
        await websocket.send(await wait_signed_out())
        await websocket.close(4401, "in its own words")

    @routes.websocket("/stubborn")
    @signed_in
    @unlimited("a test's")
    async def stubborn() -> None:
        await websocket.accept()
        await wait_signed_out()
        await trio.sleep_forever()

    @routes.websocket("/subprotocols")
    @anyone
    @unlimited("a test's")
    async def subprotocols() -> None:
        await websocket.accept(subprotocol="feed.v1")
        await websocket.send(",".join(websocket.requested_subprotocols))

    yield routes


DOORS = Feature("doors", open=open_doors)


@dataclass(frozen=True)
class World:
    issuer: Issuer
    urls: Urls
    client: Client

    async def ask(self, token: str, path: str = "/members", method: str = "GET") -> int:
        """Return the status that a token is answered with."""
        response = await self.client.request(method, path, headers={"Authorization": f"Bearer {token}"})
        return response.status_code


async def upgrade(here: World, path: str = "/feed", *, token: str | None = None, offered: str = "") -> int:
    """Return the status of an upgrade, 101 when it opened, 0 for a refusal that is no problem document."""
    try:
        async with open_socket(here, path, token=token, offered=offered):
            return 101
    except UpgradeRefused as refused:
        return refused.status if "application/problem+json" in refused.head else 0


@asynccontextmanager
async def open_socket(
    here: World, path: str = "/feed", *, token: str | None = None, offered: str = ""
) -> AsyncIterator[RawWebsocket]:
    headers = "" if token is None else f"Authorization: Bearer {token}\r\n"
    async with open_raw(here.urls.public, path, protocol=offered, headers=headers) as opened:
        yield opened


def auth(issuer: Issuer) -> dict[str, Any]:
    return {"auth_issuer": issuer.url, "auth_audience": AUDIENCE, "auth_algorithms": "ES256,RS256,Ed25519"}


@asynccontextmanager
async def world(make_settings: MakeSettings, *, away: bool = False, **changes: Any) -> AsyncIterator[World]:
    async with open_issuer() as issuer:
        issuer.away = away
        settings = make_settings(**FREE, **auth(issuer) | changes)
        async with booted(settings, [DOORS]) as urls, Client(urls.public) as client:
            yield World(issuer, urls, client)


async def end_in_time(
    mock_clock: MockClock, socket: RawWebsocket, begun: float, *, grace: float = 0
) -> tuple[list[str], Closed]:
    """Return what is said until the end, which is VALID and `grace` seconds after `begun`, neither sooner nor later.

    The event loop's clock stands still but for jumps, and so nothing is late because a machine is busy; what has passed
    of the wall clock since `begun`, until the token was looked at, is part of VALID.
    """
    said: list[str] = []
    ends: list[Closed] = []

    async def read() -> None:
        try:
            while True:
                said.append(await socket.receive())
        except Closed as closed:
            ends.append(closed)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        passed = time.time() - begun
        mock_clock.jump(VALID - passed)
        await wait_all_tasks_blocked()
        assert not ends
        if grace:
            mock_clock.jump(grace)
            await wait_all_tasks_blocked()
            assert not ends
        mock_clock.jump(passed)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    [closed] = ends
    return said, closed
