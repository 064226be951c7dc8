"""What a process believes of sessions without asking, and how long: in virtual time, over a table that is a dict."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.database import Database
from service.platform.identity import Caller
from service.platform.identity.caller import TICKETS
from service.platform.identity.gate import Gate
from service.platform.identity.ids import make_id
from service.platform.identity.keys import Fetched, Keys
from service.platform.identity.public_keys import PublicKey
from service.platform.identity.sessions import MOST_KNOWN, POLL, Sessions
from service.platform.identity.statistics import IdentityStatistics
from service.platform.identity.stay import Stay
from service.platform.identity.tokens import Rules

ONE = bytes(32)


class Rows:
    """A database of sessions, as far as `Sessions` asks it."""

    def __init__(self, *digests: bytes) -> None:
        self.live = set(digests)
        self.left = 3_600.0  # seconds of each
        self.reads = 0
        self.looked_for: list[set[bytes]] = []
        self.may_answer = trio.Event()
        self.may_answer.set()
        self.committed: Callable[[], object] = lambda: None  # called when a session's end is committed
        self.tell, self._told = trio.open_memory_channel[Collection[str] | None](10)

    async def fetch(self, _: object, digest: bytes) -> list[tuple[dict[str, Any], float]]:
        self.reads += 1
        rows = [(Caller(subject="ada").to_json(), self.left)] if digest in self.live else []
        await self.may_answer.wait()
        return rows

    async def run(self, *_: object, **__: object) -> list[str]:
        await trio.lowlevel.cancel_shielded_checkpoint()
        self.committed()
        return ["u-1"]

    async def read(self, _: object, *, digests: Collection[bytes]) -> set[bytes]:
        await trio.lowlevel.checkpoint()
        self.looked_for.append(set(digests))
        return self.live & set(digests)

    @asynccontextmanager
    async def listen(self, _: str) -> AsyncIterator[AsyncIterator[Collection[str] | None]]:
        yield self._told

    async def say(self, told: Collection[str] | None) -> None:
        await self.tell.send(told)
        await wait_all_tasks_blocked()


@asynccontextmanager
async def open_sessions(rows: Rows) -> AsyncIterator[Sessions]:
    sessions = Sessions(cast(Database, rows), IdentityStatistics())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sessions.listen)
        yield sessions
        nursery.cancel_scope.cancel()


async def test_what_was_read_is_believed_for_so_long_and_no_longer(mock_clock: MockClock) -> None:
    rows = Rows(ONE)
    async with open_sessions(rows) as sessions:
        assert await sessions.find(ONE) is not None
        rows.live.clear()
        mock_clock.jump(POLL - 0.1)
        assert await sessions.find(ONE) is not None
        assert rows.reads == 1
        mock_clock.jump(0.1)

        assert await sessions.find(ONE) is None


async def test_what_is_known_is_over_when_nothing_is_left_of_it(mock_clock: MockClock) -> None:
    rows = Rows(ONE)
    rows.left = POLL / 2
    async with open_sessions(rows) as sessions:
        assert await sessions.find(ONE) is not None
        rows.live.clear()
        mock_clock.jump(POLL / 2)

        assert await sessions.find(ONE) is None


async def test_an_end_is_believed_at_once_and_so_is_that_one_may_have_been_missed(mock_clock: MockClock) -> None:
    for told in ({ONE.hex()}, None):
        rows = Rows(ONE)
        async with open_sessions(rows) as sessions:
            assert await sessions.find(ONE) is not None
            rows.live.clear()
            await rows.say(told)

            assert await sessions.find(ONE) is None


async def test_a_ticket_is_not_lost_when_the_look_at_its_session_is_cancelled(mock_clock: MockClock) -> None:
    redeemed: list[str] = []

    async def redeem(ticket: str) -> tuple[Caller, bytes] | None:
        redeemed.append(ticket)
        return (Caller(subject="ada"), ONE) if redeemed == [ticket] else None

    async def fetch() -> Fetched[PublicKey]:
        raise AssertionError("there is no token")

    rows = Rows(ONE)
    scope: dict[str, Any] = {"headers": [], TICKETS: ["one"]}
    async with open_sessions(rows) as sessions:
        rules = Rules("i", "a", {"Ed25519"})
        gate = Gate(rules, Keys(fetch), b"key", IdentityStatistics(), redeem=redeem, sessions=sessions)
        rows.may_answer = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gate.identify, scope)
            await wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        rows.may_answer.set()

        assert (await gate.identify(scope)).subject == "ada"


async def test_an_end_that_is_heard_while_its_session_is_read_is_not_forgotten(mock_clock: MockClock) -> None:
    rows = Rows(ONE)
    async with open_sessions(rows) as sessions, trio.open_nursery() as nursery:
        rows.may_answer = trio.Event()
        nursery.start_soon(sessions.find, ONE)
        await wait_all_tasks_blocked()
        rows.live.clear()
        await rows.say({ONE.hex()})
        rows.may_answer.set()
        await wait_all_tasks_blocked()

        assert await sessions.find(ONE) is None


async def test_so_many_sessions_are_known_and_the_latest(mock_clock: MockClock) -> None:
    digests = [number.to_bytes(32) for number in range(MOST_KNOWN + 1)]
    rows = Rows(*digests)
    async with open_sessions(rows) as sessions:
        for digest in digests:
            await sessions.find(digest)

        await sessions.find(digests[-1])
        assert rows.reads == len(digests)
        await sessions.find(digests[0])
        assert rows.reads == len(digests) + 1


async def test_a_session_is_looked_for_as_long_as_a_websocket_lives_on_it(mock_clock: MockClock) -> None:
    """What were never forgotten would grow for as long as sessions last."""
    rows = Rows(ONE)
    async with open_sessions(rows) as sessions:
        one, other = (sessions.hold(ONE, Stay(lambda _: None)) for _ in range(2))
        one()
        await rows.say(None)
        other()
        await rows.say(None)

    assert rows.looked_for == [{ONE}]


async def test_who_signs_out_and_hangs_up_leaves_no_websocket_behind(autojump_clock: MockClock) -> None:
    value, digest = make_id()
    rows = Rows(digest)
    async with open_sessions(rows) as sessions:
        stays = [Stay() for _ in range(3)]
        for stay in stays:
            sessions.hold(digest, stay)
        with trio.CancelScope() as request:
            rows.committed = request.cancel
            await sessions.end(value)

        assert all(stay.over for stay in stays)


async def test_last_words_are_in_time_for_a_caller_whom_a_handler_asks_for_when_it_waits_already(
    autojump_clock: MockClock,
) -> None:
    stay, begun = Stay(), trio.current_time()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(stay.wait_over)
            for seconds in (20, 10):
                await trio.sleep(1)
                stay.limit(seconds)

    assert trio.current_time() - begun == pytest.approx(12)


async def test_others_have_their_turns_while_websockets_of_many_sessions_end(autojump_clock: MockClock) -> None:
    """As those of one session do: so everybody is signed out, by a DELETE of all that is in the table."""
    rows = Rows()
    told, turns, most = list[int](), 0, 1_000

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.sleep(0.001)
            turns += 1

    async with open_sessions(rows) as sessions, trio.open_nursery() as others:
        for number in range(most):
            sessions.hold(number.to_bytes(32), Stay(lambda _: told.append(turns)))
        others.start_soon(take_turns)
        begun = trio.current_time()
        await rows.tell.send(None)
        while len(told) < most:
            await trio.sleep(0.01)
        others.cancel_scope.cancel()

        assert told[-1] - told[0] >= most // 4
        assert trio.current_time() - begun < 1, "a thousand within a second"
        assert sessions.held == 0
