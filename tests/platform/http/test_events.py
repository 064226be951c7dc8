"""Server-sent events on real sockets: what is sent, and whatever ends them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any, Self, cast
from urllib.parse import urlsplit

import httpx2
import pytest
import sqlalchemy as sa
import trio
from quart import Blueprint, Response, request
from sqlalchemy import Connection
from structlog.testing import capture_logs

from service.platform.database import in_order, open_feed
from service.platform.errors import Busy
from service.platform.feature import Feature, Resources
from service.platform.http import Event, Media, create_app, limited, replies, send_events, surround, unlimited
from service.platform.identity import anyone
from service.platform.lifecycle import Lifecycle
from service.platform.server import RateLimits, ServerStatistics
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from tests.platform.server.child import make_settings as server_settings
from tests.platform.server.conftest import Server, running
from tests.platform.server.wire import Reader, get, stalled

END = b"0\r\n\r\n"


class Source:
    """Gives what a test wants, and says when it was ended."""

    def __init__(self, *events: Event, large: bool = False, error: Exception | None = None) -> None:
        self.ended = trio.Event()
        self._events, self._large, self._error = events, large, error
        self.more, self.sent = trio.open_memory_channel[Event](0)

    async def follow(self) -> AsyncIterator[Event]:
        try:
            for event in self._events:
                yield event
            while self._large:
                yield Event("x" * 50_000)
            if self._error is not None:
                raise self._error
            async for event in self.sent:
                yield event
        finally:
            self.ended.set()


@asynccontextmanager
async def streaming(
    source: Source, *, heartbeat: float = 3_600, lifetime: float = 3_600, **changes: Any
) -> AsyncIterator[tuple[Server, Lifecycle, list[Any]]]:
    settings, lifecycle, routes = server_settings(drain_spread=0.1, **changes), Lifecycle(), Blueprint("it", __name__)
    resources = cast(Resources, SimpleNamespace(lifecycle=lifecycle, settings=settings))

    @routes.get("/events")
    @anyone
    @limited(concurrency=50)
    async def events() -> Response:
        return send_events(resources, source.follow(), heartbeat=heartbeat, lifetime=lifetime)

    @routes.get("/any-number")
    @anyone
    @unlimited("a test's")
    async def any_number() -> Response:
        return send_events(resources, source.follow())

    around = surround(
        create_app([routes], settings),
        settings,
        lifecycle=lifecycle,
        statistics=ServerStatistics(),
        limits=RateLimits(0),
    )
    with capture_logs() as lines:
        async with running(around, settings) as server:
            yield server, lifecycle, lines


async def reasons(lines: list[Any]) -> list[tuple[Any, Any]]:
    """Return status and reason of the request's line, once it is there."""
    while not (found := [line for line in lines if line["event"] == "request"]):  # noqa: ASYNC110  a log has no event
        await trio.sleep(0.01)
    return [(line["status"], line.get("reason")) for line in found]


async def test_events_are_sent_as_the_standard_has_them_and_the_first_part_at_once() -> None:
    source = Source()
    async with streaming(source) as (server, _, lines), await server.connect() as client:
        reader = Reader(client)
        await client.send_all(get("/events"))
        head = await reader.until(b"\r\n\r\n")
        first = await reader.until(b"\n\n")
        await source.more.send(Event('{"a": 1}', id="7", name="note"))
        await source.more.send(Event("one\r\ntwo\rthree\n"))
        await source.more.aclose()
        rest = await reader.until(END)
        told = await reasons(lines)

    assert b"content-type: text/event-stream" in head.lower()
    assert b"retry: " in first
    assert b'id: 7\nevent: note\ndata: {"a": 1}\n\n' in rest
    assert b"\ndata: one\ndata: two\ndata: three\ndata: \n\n" in b"\n" + rest.replace(b"\r\n", b"\n")
    assert told == [(200, None)]


class Plain(Source):
    """Gives events by an iterator that is no generator, and so has nothing to close."""

    def follow(self) -> AsyncIterator[Event]:
        return aiter(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        return await anext(self.sent)


async def test_a_source_need_not_be_a_generator() -> None:
    source = Plain()
    async with streaming(source) as (server, _, lines), await server.connect() as client:
        await client.send_all(get("/events"))
        await source.more.send(Event("one"))
        await source.more.aclose()
        await Reader(client).until(END)
        told = await reasons(lines)

    assert told == [(200, None)]


async def test_a_route_that_does_not_say_how_many_there_may_be_is_a_mistake_that_is_told() -> None:
    async with streaming(Source()) as (server, _, lines), await server.connect() as client:
        await client.send_all(get("/any-number"))
        head = await Reader(client).until(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 500")
    [told] = [line["exc_info"][1] for line in lines if line["event"] == "unhandled error"]
    assert str(told) == "it.any_number: sends events, and has to be @limited(concurrency=…)"


@pytest.mark.parametrize("event", [Event("", id="1\n"), Event("", name="a\rb"), Event("", id="\0")])
def test_an_id_cannot_begin_a_line_of_its_own(event: Event) -> None:
    with pytest.raises(ValueError, match="must be one line"):
        event.encode()


async def test_what_comes_after_heartbeats_is_not_lost() -> None:
    source = Source()
    async with streaming(source, heartbeat=0.01) as (server, _, _), await server.connect() as client:
        reader = Reader(client)
        await client.send_all(get("/events"))
        for number in range(3):
            await reader.until(b":\n\n")
            await source.more.send(Event(str(number)))
            await reader.until(b"data: %d\n\n" % number)

    await source.ended.wait()


async def test_a_client_that_leaves_ends_the_source() -> None:
    source = Source(Event("one"))
    async with streaming(source) as (server, _, lines):
        async with await server.connect() as client:
            await client.send_all(get("/events"))
            await Reader(client).until(b"data: one")
        await source.ended.wait()
        told = await reasons(lines)

    assert told == [(200, "cut, client")]


async def test_a_client_that_does_not_read_ends_the_source() -> None:
    source = Source(large=True)
    async with streaming(source, write_timeout=0.2) as (server, _, lines):
        client = await stalled(server.port, get("/events"))
        await source.ended.wait()
        told = await reasons(lines)
        await client.aclose()

    assert told == [(200, "cut, client")]


@pytest.mark.parametrize("why", ["drain", "lifetime"])
async def test_at_the_drain_and_after_its_lifetime_it_ends_whole(why: str) -> None:
    source = Source(Event("one"))
    lifetime = 0.2 if why == "lifetime" else 3_600
    async with streaming(source, lifetime=lifetime) as (server, lifecycle, lines), await server.connect() as client:
        reader = Reader(client)
        await client.send_all(get("/events"))
        await reader.until(b"data: one")
        if why == "drain":
            lifecycle.start_leaving()
        await reader.until(END)
        told = await reasons(lines)

    assert (told, source.ended.is_set()) == ([(200, None)], True)


async def test_an_outage_ends_an_answer_that_has_begun() -> None:
    """As a page's EventSource comes back after that, and never after a 503."""
    source = Source(error=Busy("all are in use"))
    async with streaming(source) as (server, _, lines), await server.connect() as client:
        await client.send_all(get("/events"))
        raw = await Reader(client).rest()
        told = await reasons(lines)

    assert raw.startswith(b"HTTP/1.1 200 ")
    assert not raw.endswith(END)
    assert told == [(200, "cut, database busy")]


async def test_head_ends_at_once() -> None:
    async with streaming(Source()) as (server, _, _), await server.connect() as client:
        await client.send_all(
            get("/events").replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )

        head = await Reader(client).rest()

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"content-length" not in head.lower()  # the events have none (RFC 9110, 8.6)


steps = sa.Table("events_step", sa.MetaData(), sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True))


def insert_step(connection: Connection) -> int:
    in_order(connection, steps)
    number: int = connection.execute(sa.insert(steps).returning(steps.c.id)).scalar_one()
    return number


@asynccontextmanager
async def open_steps(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("steps", __name__)
    await resources.database.run(lambda connection: steps.create(connection, checkfirst=True))

    @routes.post("/steps")
    @anyone
    @limited()
    async def step() -> dict[str, int]:
        return {"id": await resources.database.run(insert_step)}

    async with open_feed(resources.database, steps) as feed:

        @routes.get("/steps")
        @anyone
        @limited(concurrency=50)
        @replies(Media("text/event-stream"))
        async def watch() -> Response:
            async def events(after: int) -> AsyncIterator[Event]:
                async for row in feed.follow(after):
                    yield Event("", id=str(row.id))

            return send_events(resources, events(int(request.headers.get("Last-Event-ID", "0"))))

        yield routes


async def test_who_comes_back_with_the_last_id_misses_nothing_and_gets_nothing_twice(
    make_settings: MakeSettings,
) -> None:
    """At another replica, after the first has seen it off."""
    free = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", "drain_spread": 0.1}
    opened, made, seen = list[Resources](), list[int](), list[int]()

    def open_it(resources: Resources) -> Any:
        opened.append(resources)
        return open_steps(resources)

    feature = Feature("steps", open=open_it)
    with trio.fail_after(60):
        async with (
            booted(make_settings(**free), [feature]) as there,
            booted(make_settings(**free), [feature]) as here,
            httpx2.AsyncClient(timeout=60) as client,
        ):

            async def step() -> None:
                made.append((await client.post(f"{there.public}/steps")).json()["id"])

            async def watch(url: str, count: int) -> None:
                """Take events until there are so many, or the answer ends."""
                last = [f"Last-Event-ID: {seen[-1]}"] if seen else []
                async with await trio.open_tcp_stream("127.0.0.1", urlsplit(url).port or 0) as stream:
                    reader = Reader(stream)
                    await stream.send_all(get("/steps", headers=["Connection: close", *last]))
                    with suppress(EOFError):
                        while len(seen) < count:
                            await reader.until(b"\nid: ")
                            seen.append(int(await reader.until(b"\n")))

            for _ in range(3):
                await step()
            async with trio.open_nursery() as first:
                first.start_soon(watch, here.public, 99)
                while len(seen) < 3:  # noqa: ASYNC110  they come over a socket
                    await trio.sleep(0.01)
                opened[-1].lifecycle.start_leaving()
                await step()
            await step()
            await watch(there.public, 5)

    assert seen == made
