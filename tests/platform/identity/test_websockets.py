"""Websockets: a token or a ticket lets one in, and it ends when what let it in does."""

import time
from contextlib import AsyncExitStack
from typing import Any

import psycopg
import pytest
import trio
from trio.testing import MockClock

from service.platform.identity.stay import LAST_WORDS
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import open_issuer
from tests.platform.identity.world import DOORS, FREE, VALID, World, auth, end_in_time, open_socket, upgrade, world


async def ticket(here: World, **claims: Any) -> str:
    """Return a ticket, as it is offered."""
    headers = {"Authorization": f"Bearer {here.issuer.token(**claims)}"}
    response = await here.client.post("/auth/ticket", headers=headers)
    assert (response.status_code, response.json()["expires_in"]) == (201, 30)
    return f"ticket.{response.json()['ticket']}"


async def test_a_token_or_a_ticket_opens_a_websocket_for_who_has_it(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        async with open_socket(here, token=here.issuer.token(sub="bob")) as socket:
            by_token = await socket.receive()
        async with open_socket(here, offered=f"feed.v1, {await ticket(here, sub='cleo')}") as socket:
            by_ticket = await socket.receive()

    assert (by_token, by_ticket) == ("bob", "cleo")


async def test_a_ticket_is_good_once_and_nowhere_else(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        offered = await ticket(here)
        value = offered.removeprefix("ticket.")
        in_a_url = [await upgrade(here, f"/feed?{name}={value}") for name in ("ticket", "token", "access_token")]
        as_a_bearer = await upgrade(here, token=value)
        by_http = await here.client.get("/members", headers={"Sec-WebSocket-Protocol": offered})
        first = await upgrade(here, offered=offered)
        again = await upgrade(here, offered=offered)
        two = await upgrade(here, offered=f"{await ticket(here)}, {await ticket(here)}")
        made_up = [await upgrade(here, offered=f"ticket.{wrong}") for wrong in ("x" * 43, "x", "", "x" * 4_000)]
        without = await here.client.post("/auth/ticket")

    assert in_a_url == [401, 401, 401]
    assert (as_a_bearer, by_http.status_code, without.status_code) == (401, 401, 401)
    assert (first, again, two, made_up) == (101, 401, 401, [401] * 4)


async def test_of_many_that_use_one_ticket_at_once_one_gets_in(make_settings: MakeSettings) -> None:
    statuses: list[int] = []
    async with world(make_settings, database_queue_wait=30) as here:  # or who waits too long is told 503
        offered = await ticket(here)

        async def enter() -> None:
            statuses.append(await upgrade(here, offered=offered))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(enter)

    assert sorted(statuses) == [101] + [401] * 19


async def test_a_ticket_is_good_for_30_seconds_and_swept(
    make_settings: MakeSettings, writable_database_url: str
) -> None:
    async with world(make_settings, database_url=writable_database_url) as here:
        with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as connection:
            ages = {}
            for age in (25, 31, -3_600):  # the last is of before the clock was put back
                offered = await ticket(here)
                connection.execute("UPDATE identity_ticket SET made = now() - make_interval(secs => %s)", (age,))
                ages[age] = await upgrade(here, offered=offered)
            kept = connection.execute("SELECT hash, caller::text FROM identity_ticket").fetchall()
            value = (await ticket(here)).removeprefix("ticket.")
            stored = connection.execute("SELECT encode(hash, 'escape') FROM identity_ticket").fetchall()

    assert ages == {25: 101, 31: 401, -3_600: 401}
    assert kept == [], "also one that came too late is gone"
    assert value not in str(stored)


async def test_a_ticket_holds_no_longer_than_its_token(make_settings: MakeSettings, writable_database_url: str) -> None:
    """The token is made older in the table, where a ticket keeps its end: no second has to pass, or may not."""
    older = "UPDATE identity_ticket SET caller = jsonb_set(caller, '{expires}', to_jsonb(%s::float8))"
    async with world(make_settings, database_url=writable_database_url) as here:
        with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as connection:
            expires = time.time() + 300
            offered = await ticket(here, exp=expires)
            kept = connection.execute("SELECT (caller->>'expires')::float8 FROM identity_ticket").fetchall()
            connection.execute(older, (time.time() - 0.001,))
            status = await upgrade(here, offered=offered)

    assert kept == [(expires + 60,)]
    assert status == 401


async def test_any_replica_takes_a_ticket(make_settings: MakeSettings) -> None:
    async with open_issuer() as issuer, AsyncExitStack() as stack:
        settings = make_settings(**FREE, **auth(issuer))
        replicas = []
        for _ in range(2):
            urls = await stack.enter_async_context(booted(settings, [DOORS]))
            client = await stack.enter_async_context(Client(urls.public))
            replicas.append(World(issuer, urls, client))
        one, other = replicas

        assert await upgrade(other, offered=await ticket(one)) == 101


async def test_no_handler_sees_a_ticket(make_settings: MakeSettings) -> None:
    async with (
        world(make_settings) as here,
        open_socket(here, "/subprotocols", offered=f"{await ticket(here)}, feed.v1, other") as socket,
    ):
        assert await socket.receive() == "feed.v1,other"


async def test_without_an_issuer_a_ticket_is_neither_given_nor_minded(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [DOORS]) as urls, Client(urls.public) as client, open_issuer() as issuer:
        here = World(issuer, urls, client)
        assert (await client.post("/auth/ticket")).status_code == 409
        async with open_socket(here, "/subprotocols", offered=f"feed.v1, ticket.{'x' * 43}") as socket:
            assert await socket.receive() == "feed.v1"
        async with open_socket(here, offered=f"ticket.{'x' * 43}") as socket:
            assert await socket.receive() == ""


@pytest.mark.parametrize("path", ["/feed", "/last-words", "/stubborn"])
async def test_a_websocket_ends_when_its_token_does(
    make_settings: MakeSettings, mock_clock: MockClock, path: str
) -> None:
    async with world(make_settings) as here:
        begun = time.time()
        token = here.issuer.token(exp=begun + VALID - 60)
        async with open_socket(here, path, token=token) as socket:
            said, closed = await end_in_time(mock_clock, socket, begun, grace=LAST_WORDS * (path == "/stubborn"))

    assert closed.code == 4401
    assert said == {"/feed": ["ada"], "/last-words": ["the token has expired"], "/stubborn": []}[path]
    assert closed.reason == ("in its own words" if path == "/last-words" else "the token has expired")


async def test_a_websocket_by_ticket_ends_with_the_token_that_the_ticket_was_for(
    make_settings: MakeSettings, mock_clock: MockClock
) -> None:
    async with world(make_settings) as here:
        begun = time.time()
        offered = await ticket(here, exp=begun + VALID - 60)
        async with open_socket(here, offered=offered) as socket:
            _, closed = await end_in_time(mock_clock, socket, begun)

    assert closed.code == 4401
