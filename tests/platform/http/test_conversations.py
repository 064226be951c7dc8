"""Conversations over a websocket: a stream that ends in words, the farewell of a drain, and patience with a flood."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from quart import Blueprint
from trio.testing import MockClock

from service.platform.errors import Busy
from service.platform.feature import Feature, Resources
from service.platform.http import Conversation, Conversations, Ending, limited, open_conversations
from service.platform.http.conversations import CALM, FLOOD, LOOKS, MOST_REASON, SILENCE, Patience
from service.platform.identity import anyone
from service.platform.lifecycle import Lifecycle
from service.platform.server import RateLimits, encode_frame
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.wire import CLOSE, PING, PONG, Closed, RawWebsocket, open_raw

LIMIT = 30
MORE = 2_000  # frames, 120 MB: no socket's buffer holds as much
FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}

type Messages = Callable[[], AsyncIterator[str]]


async def two_and_the_end() -> AsyncIterator[str]:
    yield "one"
    yield "two"


async def one_and_no_end() -> AsyncIterator[str]:
    yield "one"
    await trio.sleep_forever()


async def one_and_an_outage() -> AsyncIterator[str]:
    yield "one"
    raise Busy("é" * 200)


async def one_and_an_outage_of_several_tasks() -> AsyncIterator[str]:
    yield "one"
    raise ExceptionGroup("of a nursery", [Busy("é" * 200), Busy("another")])


@asynccontextmanager
async def open_feed(resources: Resources, *, messages: Messages, heartbeat: float) -> AsyncIterator[Blueprint]:
    routes = Blueprint("feed", __name__)

    async with open_conversations(resources, heartbeat=heartbeat) as conversations:

        @routes.websocket("/feed")
        @anyone
        @limited()
        async def feed() -> None:
            await Conversation(conversations).stream(messages())

        yield routes


@asynccontextmanager
async def listening(
    make_settings: MakeSettings, messages: Messages, *, heartbeat: float = 20
) -> AsyncIterator[RawWebsocket]:
    feature = Feature("feed", open=partial(open_feed, messages=messages, heartbeat=heartbeat))
    with trio.fail_after(LIMIT):
        async with booted(make_settings(**FREE), [feature]) as urls, open_raw(urls.public, "/feed") as socket:
            assert await socket.receive() == "one"
            yield socket


@dataclass
class Talks:
    """A feature whose websockets say whether a message was within the rate, and "more" for more than anybody reads."""

    heartbeat: float = 20
    lifecycle: Lifecycle = field(init=False)
    conversations: Conversations = field(init=False)

    @asynccontextmanager
    async def open(self, resources: Resources) -> AsyncIterator[Blueprint]:
        self.lifecycle = resources.lifecycle
        routes = Blueprint("talks", __name__)
        async with open_conversations(resources, heartbeat=self.heartbeat) as self.conversations:

            @routes.websocket("/talk")
            @anyone
            @limited()
            async def talk() -> None:
                conversation = Conversation(self.conversations)
                await conversation.run(partial(self.converse, conversation), partial(self.say_bye, conversation))

            yield routes

    async def converse(self, conversation: Conversation, _nursery: trio.Nursery) -> None:
        while True:
            said = await conversation.socket.receive()
            if said == "more":
                for _ in range(MORE):
                    conversation.send_frame(encode_frame("x" * 60_000))
            conversation.send_frame(encode_frame("later" if conversation.take() else "taken"))

    async def say_bye(self, conversation: Conversation, ending: Ending) -> None:
        conversation.send_frame(encode_frame(f"bye: {ending.reason}"))


@asynccontextmanager
async def talking(make_settings: MakeSettings, talks: Talks, **settings: Any) -> AsyncIterator[str]:
    with trio.fail_after(LIMIT):
        async with booted(make_settings(**FREE | settings), [Feature("talks", open=talks.open)]) as urls:
            yield urls.public


async def test_at_the_drain_each_is_told_goodbye_and_when_the_last_has_gone_none_is_left(
    make_settings: MakeSettings,
) -> None:
    talks = Talks()
    async with talking(make_settings, talks, drain_spread=0.2) as url, AsyncExitStack() as stack:
        sockets = [await stack.enter_async_context(open_raw(url, "/talk")) for _ in range(8)]
        for socket in sockets:
            await socket.send("hello")
            assert await socket.receive() == "taken"
        assert len(talks.conversations) == 8
        talks.lifecycle.start_leaving()
        for socket in sockets:
            assert await socket.receive() == "bye: restart"
            with pytest.raises(Closed, match="1012 restart"):
                await socket.receive()
        while len(talks.conversations):  # noqa: ASYNC110  the peer's close is answered before ours is noted
            await trio.sleep(0.01)


async def test_what_is_received_counts_against_the_rate(make_settings: MakeSettings) -> None:
    async with talking(make_settings, Talks(), rate_per_connection=0.01) as url, open_raw(url, "/talk") as socket:
        for _ in range(2):
            await socket.send("hello")

        assert [await socket.receive() for _ in range(2)] == ["taken", "later"]


async def receive_all(socket: RawWebsocket, into: list[str]) -> None:
    while True:
        into.append(await socket.receive())


async def test_who_does_not_read_gets_no_frame_after_the_one_that_found_no_room(make_settings: MakeSettings) -> None:
    talks = Talks()
    async with talking(make_settings, talks) as url, open_raw(url, "/talk") as socket:
        await socket.send("more")
        received: list[str] = []
        with pytest.raises(Closed, match="4008 too slow"):
            await receive_all(socket, received)

    assert 0 < len(received) < MORE
    assert set(received) == {"x" * 60_000}
    assert talks.conversations.overflows == 1


async def test_a_stream_that_ends_says_so(make_settings: MakeSettings) -> None:
    async with listening(make_settings, two_and_the_end) as socket:
        assert await socket.receive() == "two"
        with pytest.raises(Closed, match="1000 complete"):
            await socket.receive()


@pytest.mark.parametrize("messages", [one_and_an_outage, one_and_an_outage_of_several_tasks])
async def test_an_outage_is_a_code_and_a_reason_that_fits_its_frame(
    make_settings: MakeSettings, messages: Messages
) -> None:
    async with listening(make_settings, messages) as socket:
        with pytest.raises(Closed) as closed:
            await socket.receive()

    assert (closed.value.code, closed.value.reason) == (1013, "é" * (MOST_REASON // 2))


async def test_what_makes_the_messages_ends_with_who_listened(make_settings: MakeSettings) -> None:
    """Also where a message waits for him: a generator that nobody ends is a warning, and here an error."""
    waiting, ended = trio.Event(), trio.Event()

    async def endless() -> AsyncIterator[str]:
        try:
            yield "one"
            while True:
                waiting.set()
                yield "x" * 60_000
        finally:
            ended.set()

    async with listening(make_settings, endless):
        await waiting.wait()

    assert ended.is_set()


async def test_who_only_listens_is_not_to_talk(make_settings: MakeSettings) -> None:
    async with listening(make_settings, one_and_no_end) as socket:
        await socket.send("hello")
        with pytest.raises(Closed, match="1008 nothing is to be sent here"):
            await socket.receive()


async def test_who_does_not_even_pong_is_let_go(make_settings: MakeSettings) -> None:
    async with listening(make_settings, one_and_no_end, heartbeat=0.2) as socket:
        opcode = None
        while opcode != CLOSE:  # pings are read, and not answered
            opcode, payload = await socket._receive_frame()

    assert payload == (4408).to_bytes(2) + b"silent"


ANSWERING = LOOKS + 8  # more than are looked at in a row


async def test_each_is_pinged_and_only_who_is_silent_is_let_go(make_settings: MakeSettings) -> None:
    talks, pings = Talks(heartbeat=0.3), Counter[int]()

    async def answer(number: int, socket: RawWebsocket) -> None:
        while True:
            opcode, payload = await socket._receive_frame()
            assert opcode == PING, payload
            pings[number] += 1
            await socket.send_frame(PONG, payload)

    async with (
        talking(make_settings, talks, rate_per_address=0) as url,
        AsyncExitStack() as stack,
        trio.open_nursery() as nursery,
    ):
        for number in range(ANSWERING):  # from the first moment on: a busy machine opens them in a second
            nursery.start_soon(answer, number, await stack.enter_async_context(open_raw(url, "/talk")))
        for socket in [await stack.enter_async_context(open_raw(url, "/talk")) for _ in range(3)]:
            while (await socket._receive_frame())[0] != CLOSE:
                pass
        nursery.cancel_scope.cancel()

    assert len(pings) == ANSWERING
    assert min(pings.values()) >= 2


async def test_a_process_that_stood_still_takes_nobody_for_silent(make_settings: MakeSettings) -> None:
    talks = Talks(heartbeat=0.5)
    async with talking(make_settings, talks) as url, open_raw(url, "/talk") as socket:
        await socket.send("hello")
        assert await socket.receive() == "taken"
        time.sleep(2 * SILENCE * talks.heartbeat)  # noqa: ASYNC251  suspended, throttled, or moved to another machine
        await socket.send("still here")
        assert await socket.receive() == "taken"


class Peer:
    """A websocket of which only is known when something came last, and how often it was pinged."""

    def __init__(self) -> None:
        self.remote_addr = ""
        self.outbox = SimpleNamespace(send_nowait=None)
        self.last_received = trio.current_time()
        self.pings = 0

    def ping_nowait(self) -> None:
        self.pings += 1


async def test_who_was_not_heard_while_the_process_stood_still_is_asked_once_more(autojump_clock: MockClock) -> None:
    """A peer that only answers pings has nothing else to be heard by."""
    conversations = Conversations(Lifecycle(), RateLimits(0), spread=0, heartbeat=10)
    answers, silent = Peer(), Peer()
    of_both = [Conversation(conversations, cast(Any, peer)) for peer in (answers, silent)]
    now = trio.current_time() + 1_000

    assert [one.look(now) for one in of_both] == [now + 5] * 2
    assert [one.look(now + 4) for one in of_both] == [now + 5] * 2
    assert (answers.pings, silent.pings) == (1, 1)
    answers.last_received = now + 4
    assert [one.look(now + 5) for one in of_both] == [now + 10, None]


def test_a_flood_is_ended_after_ten_seconds() -> None:
    patience = Patience()

    assert not any(patience.refuse(100 + tenth / 10) for tenth in range(int(FLOOD * 10)))
    assert patience.refuse(100 + FLOOD)


def test_who_calms_down_between_is_forgiven() -> None:
    patience = Patience()
    now = 0.0
    for _ in range(20):
        for _ in range(5):
            now += 1
            assert not patience.refuse(now)
        now += CALM
