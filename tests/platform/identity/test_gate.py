"""What the gate remembers of tokens, and for how long; the wall clock is the test's own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from joserfc import jwk
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.identity import Caller, Unauthenticated
from service.platform.identity.caller import TICKETS
from service.platform.identity.gate import MOST_REMEMBERED, Gate, bearer
from service.platform.identity.keys import Fetched, Keys
from service.platform.identity.public_keys import PublicKey, public_keys
from service.platform.identity.statistics import IdentityStatistics
from service.platform.identity.tokens import SKEW, Rules
from service.platform.testing.issuer import sign

PAIR = jwk.OKPKey.generate_key("Ed25519", {"kid": "k"})
EXPIRY = 600.0


class Door:
    """A gate, its clock, and whoever comes to it."""

    def __init__(self, keys: Keys[PublicKey]) -> None:
        self.now = 0.0
        self.statistics = IdentityStatistics()
        self.redeemed: list[str] = []
        self.may_redeem = trio.Event()
        self.may_redeem.set()
        rules = Rules("i", "a", {"Ed25519"})
        self.gate = Gate(rules, keys, b"key", self.statistics, redeem=self._redeem, now=lambda: self.now)

    async def _redeem(self, ticket: str) -> tuple[Caller, bytes | None]:
        await self.may_redeem.wait()
        assert ticket not in self.redeemed, "it is good once"
        self.redeemed.append(ticket)
        return Caller(subject="ada", expires=EXPIRY), None

    async def ask(self, token: str) -> str:
        scope: dict[str, Any] = {"headers": [(b"authorization", f"Bearer {token}".encode())]}
        return (await self.gate.identify(scope)).subject

    async def bring(self, *tickets: str) -> str:
        return (await self.gate.identify({"headers": [], TICKETS: tickets})).subject


@asynccontextmanager
async def open_door() -> AsyncIterator[Door]:
    async def fetch() -> Fetched[PublicKey]:
        return Fetched(public_keys({"keys": [PAIR.as_dict(private=False)]}))

    keys = Keys(fetch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keys.run)
        await wait_all_tasks_blocked()
        yield Door(keys)
        nursery.cancel_scope.cancel()


def token_of(subject: str, kid: str = "k") -> str:
    claims = {"iss": "i", "aud": "a", "sub": subject, "exp": EXPIRY}
    return sign({"alg": "Ed25519", "kid": kid}, claims, PAIR)


async def test_a_token_that_is_remembered_is_refused_once_it_has_expired(mock_clock: MockClock) -> None:
    async with open_door() as door:
        token = token_of("ada")
        assert [await door.ask(token), await door.ask(token)] == ["ada", "ada"]
        assert (door.statistics.tokens["accepted"], door.statistics.remembered) == (1, 1)
        door.now = EXPIRY + SKEW

        for _ in range(2):
            with pytest.raises(Unauthenticated, match="expired"):
                await door.ask(token)
        assert door.gate.remembered == 0


async def test_so_many_tokens_are_remembered_and_those_that_were_used_last(mock_clock: MockClock) -> None:
    async with open_door() as door:
        used, left, *others = [token_of(str(number)) for number in range(MOST_REMEMBERED + 1)]
        for token in (used, left, *others[:-1], used, others[-1]):
            await door.ask(token)
        assert door.gate.remembered == MOST_REMEMBERED
        door.statistics.remembered = 0

        await door.ask(used)
        assert door.statistics.remembered == 1
        await door.ask(left)
        assert door.statistics.remembered == 1


async def test_a_ticket_holds_until_its_expiry_and_one_alone(mock_clock: MockClock) -> None:
    async with open_door() as door:
        assert await door.bring("one") == "ada"
        with pytest.raises(Unauthenticated, match="ticket"):
            await door.bring("two", "three")
        door.now = EXPIRY
        with pytest.raises(Unauthenticated, match="ticket"):
            await door.bring("four")

        assert door.redeemed == ["one", "four"]
        assert door.statistics.tickets == {"taken": 1, "refused": 2}


async def test_tasks_that_ask_at_once_who_has_brought_a_ticket_are_all_told(mock_clock: MockClock) -> None:
    told: list[str] = []
    first = trio.CancelScope()
    scope: dict[str, Any] = {"headers": [], TICKETS: ["one"]}
    async with open_door() as door, trio.open_nursery() as nursery:
        door.may_redeem = trio.Event()

        async def ask() -> None:
            told.append((await door.gate.identify(scope)).subject)

        async def give_up() -> None:
            with first:
                await ask()

        for task in (give_up, ask, ask):
            nursery.start_soon(task)
            await wait_all_tasks_blocked()
        first.cancel()
        await wait_all_tasks_blocked()
        door.may_redeem.set()

    assert (told, door.redeemed, door.statistics.tickets) == (["ada", "ada"], ["one"], {"taken": 1})


async def test_a_key_that_the_issuer_does_not_have_is_told_as_that(mock_clock: MockClock) -> None:
    async with open_door() as door:
        with pytest.raises(Unauthenticated, match="a key that the issuer does not have"):
            await door.ask(token_of("ada", kid="another"))


def test_what_is_no_bearer_s_is_no_token_however_often_it_is_given() -> None:
    basic = (b"authorization", b"Basic YTpi")

    assert bearer([]) is bearer([basic]) is bearer([basic, basic]) is None
    assert bearer([(b"authorization", b"bearer  a.b.c ")]) == b"a.b.c"
    with pytest.raises(Unauthenticated, match="more than one"):
        bearer([basic, (b"authorization", b"Bearer a.b.c")])
