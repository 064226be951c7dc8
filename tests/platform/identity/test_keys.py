"""The issuer's keys over time: virtual time for the rules, real sockets for the promise."""

import re
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import httpx2
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from service.platform.calls import open_client
from service.platform.errors import Unavailable
from service.platform.identity.keys import MOST_WAITING, PATIENCE, Fetched, Keys, ProviderAway
from service.platform.identity.provider import Provider
from service.platform.identity.statistics import IdentityStatistics, show_identity
from service.platform.telemetry import Metrics
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import open_issuer
from tests.platform.identity.world import World, world


class Source:
    """A provider: what it has, whether it answers, and when it was asked."""

    def __init__(self, **keys: int) -> None:
        self.keys = keys
        self.asked: list[float] = []
        self.away = False
        self.slow = 0.0
        self.max_age = 600.0

    async def fetch(self) -> Fetched[int]:
        self.asked.append(trio.current_time())
        await trio.sleep(self.slow)
        if self.away:
            raise ProviderAway("it answers 503")
        return Fetched(dict(self.keys), self.max_age)


@pytest.fixture
def source() -> Source:
    return Source(one=1)


async def running(keys: Keys[int], nursery: trio.Nursery) -> None:
    nursery.start_soon(keys.run)
    await wait_all_tasks_blocked()


async def test_keys_are_fetched_ahead_of_their_expiry(autojump_clock: MockClock, source: Source) -> None:
    keys = Keys(source.fetch)
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        await trio.sleep(1_000)
        nursery.cancel_scope.cancel()

    assert [moment - start for moment in source.asked] == [0, 480, 960]


@pytest.mark.parametrize(("max_age", "pause"), [(0.0, 48), (10.0, 48), (7_200.0, 2_880), (1e9, 2_880)])
async def test_how_long_keys_are_fresh_is_the_providers_word_within_bounds(
    autojump_clock: MockClock, source: Source, max_age: float, pause: float
) -> None:
    source.max_age = max_age
    async with trio.open_nursery() as nursery:
        await running(Keys(source.fetch), nursery)
        await trio.sleep(pause + 1)
        nursery.cancel_scope.cancel()

    assert source.asked[1] - source.asked[0] == pytest.approx(pause)


async def test_keys_are_kept_while_the_provider_is_away_and_found_when_it_is_back(
    autojump_clock: MockClock, source: Source
) -> None:
    keys = Keys(source.fetch)
    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        source.away = True
        await trio.sleep(600)
        assert (await keys.find("one"), keys.error) == (1, "it answers 503")
        assert keys.age == pytest.approx(600)
        source.away, source.keys = False, {"two": 2}
        await trio.sleep(31)
        assert (await keys.find("two"), keys.error) == (2, "")
        nursery.cancel_scope.cancel()

    assert len(source.asked) <= 1 + 5 + 30, "it is not asked all the time"


async def test_whatever_keys_are_made_up_the_provider_is_asked_once_in_30_seconds(
    autojump_clock: MockClock, source: Source
) -> None:
    keys = Keys(source.fetch)
    source.slow = 0.01
    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        await trio.sleep(100)
        before = len(source.asked)
        for number in range(10_000):
            assert await keys.find(f"made up {number}") is None
            await trio.sleep(0.009)  # 90 seconds
        nursery.cancel_scope.cancel()

    assert len(source.asked) - before in {3, 4}
    assert min(later - sooner for sooner, later in pairwise(source.asked)) >= 30


async def test_a_fetch_is_counted_when_it_is_over(autojump_clock: MockClock, source: Source) -> None:
    keys, metrics = Keys(source.fetch), Metrics()
    show_identity(metrics, IdentityStatistics(), keys)
    counted: list[dict[bytes, bytes]] = []
    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        source.away, source.slow = True, 5.0
        for seconds in (1, 481, 4):  # behind the first, amid the second, and when that has failed
            await trio.sleep(seconds)
            shown = re.findall(rb'^identity_key_fetches_total{result="(.*)"} (.*)$', metrics.text(), re.MULTILINE)
            counted.append(dict(shown))
        nursery.cancel_scope.cancel()

    once = {b"fetched": b"1.0", b"failed": b"0.0"}
    assert counted == [once, once, once | {b"failed": b"1.0"}], "a counter that falls is read as one that began anew"


async def test_a_new_key_is_found_by_the_request_that_needs_it(autojump_clock: MockClock, source: Source) -> None:
    keys = Keys(source.fetch)
    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        await trio.sleep(31)
        source.keys, source.slow = {"one": 1, "two": 2}, 1

        assert await keys.find("two") == 2
        nursery.cancel_scope.cancel()


async def test_few_wait_for_a_fetch_and_not_long(autojump_clock: MockClock, source: Source) -> None:
    keys = Keys(source.fetch)
    turned_away: list[float] = []

    async def ask() -> None:
        try:
            await keys.find("new")
        except Unavailable:
            turned_away.append(trio.current_time() - start)

    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        await trio.sleep(31)
        source.slow, start = 60, trio.current_time()
        async with trio.open_nursery() as askers:
            for _ in range(MOST_WAITING + 5):
                askers.start_soon(ask)
        assert await keys.find("one") == 1, "whose key is known waits for nobody"
        nursery.cancel_scope.cancel()

    assert sorted(turned_away) == [0] * 5 + [PATIENCE] * MOST_WAITING


async def test_without_any_keys_nobody_can_tell(autojump_clock: MockClock, source: Source) -> None:
    source.away = True
    keys = Keys(source.fetch)
    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        await trio.sleep(20)
        with pytest.raises(Unavailable, match="not there yet"):
            await keys.find("one")
        source.away = False
        await trio.sleep(31)
        assert await keys.find("one") == 1
        nursery.cancel_scope.cancel()


async def test_whether_a_key_is_new_nobody_can_tell_while_the_provider_is_away(
    autojump_clock: MockClock, source: Source
) -> None:
    """Whoever has a good token is to come again, not to be told that it is none: it may be signed with a new key."""
    keys = Keys(source.fetch)
    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        source.away = True
        await trio.sleep(481)
        for _ in range(2):  # with a fetch that was asked for, and right behind it
            with pytest.raises(Unavailable):
                await keys.find("two")
        assert await keys.find("one") == 1
        source.away, source.keys = False, {"one": 1, "two": 2}
        await trio.sleep(31)
        assert (await keys.find("two"), await keys.find("three")) == (2, None)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("has", "found"), [({"one": 1}, 1), ({"one": 1, "two": 2}, None), ({}, None)])
async def test_a_token_that_names_no_key_is_of_the_only_one(
    autojump_clock: MockClock, source: Source, has: dict[str, int], found: int | None
) -> None:
    source.keys = has
    keys = Keys(source.fetch)
    async with trio.open_nursery() as nursery:
        await running(keys, nursery)
        assert await keys.find(None) == found
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(("then", "told"), [({"one": 1, "two": 2}, 0), ({"two": 2}, 1), ({"one": 3}, 1)])
async def test_a_key_that_is_gone_or_another_one_is_told(
    autojump_clock: MockClock, source: Source, then: dict[str, int], told: int
) -> None:
    calls: list[None] = []
    async with trio.open_nursery() as nursery:
        await running(Keys(source.fetch, on_change=lambda: calls.append(None)), nursery)
        source.keys = then
        await trio.sleep(500)
        nursery.cancel_scope.cancel()

    assert len(calls) == told


# On real sockets.


async def test_a_rotation_under_load_refuses_nobody(make_settings: MakeSettings) -> None:
    statuses: list[int] = []
    async with world(make_settings) as here, trio.open_nursery() as nursery:
        assert await here.ask(here.issuer.token()) == 200
        tokens = [here.issuer.token(sub=f"user-{number}") for number in range(20)]

        async def use(number: int) -> None:
            while True:
                statuses.append(await here.ask(tokens[number]))
                tokens[number] = here.issuer.token(sub=f"user-{number}")

        for number in range(4):
            nursery.start_soon(use, number)
        while len(statuses) < 100:
            await trio.sleep(0.01)
        here.issuer.rotate()
        while len(statuses) < 400:
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()

    assert set(statuses) == {200}


async def test_made_up_keys_make_one_fetch_at_most(make_settings: MakeSettings) -> None:
    async with world(make_settings, log_level="error") as here:
        assert await here.ask(here.issuer.token()) == 200
        before = here.issuer.fetches
        statuses = {await here.ask(here.issuer.token(header={"kid": f"made up {number}"})) for number in range(500)}
        assert await here.ask(here.issuer.token()) == 200

    assert statuses == {401}
    assert here.issuer.fetches - before <= 1


async def healthz(here: World) -> tuple[int, dict[str, Any]]:
    async with httpx2.AsyncClient() as client:
        response = await client.get(here.urls.management + "/healthz")
    check: dict[str, Any] = response.json()["checks"]["identity"]
    return response.status_code, check


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(30):
        while not await true():
            await trio.sleep(0.05)


async def test_a_provider_that_is_away_at_the_start_holds_up_neither_start_nor_requests(
    make_settings: MakeSettings,
) -> None:
    async with world(make_settings, away=True) as here:
        answers = [await here.ask(here.issuer.token()), await here.ask("any", "/open")]
        status, check = await healthz(here)
        here.issuer.away = False

        async def back() -> bool:
            return await here.ask(here.issuer.token()) == 200

        await until(back)
        assert (await healthz(here))[1]["state"] == "ok"

    assert answers == [503, 200]
    assert (status, check["ok"]) == (503, False)
    assert "away, no keys yet" in check["state"]
    assert "answers 503" in check["state"]


@pytest.mark.parametrize(
    "address",
    [None, 7, {}, "", "https://", "https://h/\x7f", "https://h/\ud800", "https://h/é", "https://a\u2024b/", "https://[::1",
     "https://h:99999/", "https://a..b/", f"https://{'a' * 64}/", "http://127.0.0.1:1/" + "a" * 70_000,
     "http://127.0.0.1:1/", "https://\u2100/"],
)  # fmt: skip
async def test_an_odd_address_in_the_discovery_document_is_a_provider_that_is_away(address: Any) -> None:
    async with open_issuer() as issuer, open_client() as client:
        provider = Provider(client, issuer.url, None)
        issuer.odd = {"jwks_uri": address}
        with pytest.raises(ProviderAway):
            await provider.fetch_keys()
        issuer.odd = {"token_endpoint": address}
        assert (await provider.fetch_keys()).keys
        with pytest.raises(ProviderAway):
            await provider.exchange({}, client="c", secret="s")


async def test_a_providers_own_words_are_shown_cut(make_settings: MakeSettings) -> None:
    async with world(make_settings, away=True) as here:
        here.issuer.odd = {"issuer": "x" * 100_000}
        here.issuer.away = False

        async def another_reason() -> bool:
            return "is of the issuer" in (await healthz(here))[1]["state"]

        await until(another_reason)
        _, check = await healthz(here)

    assert len(check["state"]) < 2_000
