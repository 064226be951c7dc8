"""What comes in thousands: websockets of a session that ends, and tokens by keys that nobody has."""

import json
import secrets
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
import trio

from service.platform.identity.keys import QUIET
from service.platform.testing.contract import Client
from service.platform.testing.issuer import CLIENT, Issuer, open_issuer
from service.platform.testing.processes import ROOT, started
from service.platform.testing.wire import open_raw
from tests.platform.identity.test_sign_in import SESSION, Browser
from tests.platform.identity.world import auth

COUNT = 1_000
MOST = 1.5  # times as long as before may another member wait, at p99
SEEING_OFF = 3  # seconds in which their peers' answers are read
MADE_UP, PORTION = 10_000, 250
DOORS = (sys.executable, "-m", "tests.platform.identity.doors")
HOLDERS = (sys.executable, "-m", "tests.platform.identity.holders")


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


@pytest.mark.drill
async def test_a_thousand_websockets_of_a_session_end_and_others_do_not_notice(
    tmp_path: Path, database_url: str
) -> None:
    async with open_issuer() as issuer:
        client = {"auth_client_id": CLIENT, "auth_client_secret": issuer.secret}
        settings = auth(issuer) | client | {"rate_per_address": 0, "rate_per_connection": 0}
        with started(tmp_path, command=DOORS, database_url=database_url, **settings) as service:
            await service.wait_ready()
            turns = [await one_run(service.public, issuer) for _ in range(9)]

    while_told, while_seen_off = zip(*turns, strict=True)
    assert statistics.median(while_told) <= MOST
    assert statistics.median(while_seen_off) <= MOST


def holding(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


async def one_run(url: str, issuer: Issuer) -> tuple[float, float]:
    """Return by what another member's p99 grows while they are told, and then while their answers are read."""
    where = urlsplit(url)
    before, told, seen_off = list[float](), list[float](), list[float]()
    async with Client(url) as http:
        browser = Browser(http, issuer)
        await browser.sign_in()
        cookie = f"{SESSION}={browser.cookies[SESSION]}"
        command = [*HOLDERS, str(where.hostname), str(where.port), str(COUNT), cookie]
        with holding(command) as holders:
            assert holders.stdout is not None
            assert await trio.to_thread.run_sync(holders.stdout.readline) == "open\n"
            headers = f"Authorization: Bearer {issuer.token(sub='other')}\r\n"
            async with open_raw(url, "/feed", headers=headers) as member:
                await member.receive()

                async def ask(into: list[float]) -> None:
                    while True:
                        began = time.perf_counter()
                        await member.send("x")
                        await member.receive()
                        into.append(time.perf_counter() - began)

                with trio.move_on_after(1):
                    await ask(before)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, told)
                    ended = time.monotonic()
                    nursery.start_soon(partial(browser.ask, "/auth/sign-out", "POST"))
                    found = json.loads(await trio.to_thread.run_sync(holders.stdout.readline))
                    nursery.cancel_scope.cancel()
            async with open_raw(url, "/feed", headers=headers) as member:
                await member.receive()
                with trio.move_on_after(SEEING_OFF):
                    await ask(seen_off)
    base, seconds = p99(before), max(found["moments"]) - ended
    ratios = p99(told) / base, p99(seen_off) / base
    print(
        f"{COUNT} told in {seconds:.2f} s, {found['codes']}; another's p99 {base * 1000:.2f} ms before, "
        f"{ratios[0]:.2f}x while they are told ({len(told)} turns), {ratios[1]:.2f}x while they are seen off"
    )
    assert found["codes"] == {"4401": COUNT}
    assert seconds <= 1
    return ratios


@pytest.mark.drill
async def test_ten_thousand_made_up_keys_cost_others_no_more_than_good_tokens(
    tmp_path: Path, database_url: str
) -> None:
    """The same number of requests beside a user, with tokens that hold and with tokens by keys of random names."""
    async with open_issuer() as issuer:
        settings = auth(issuer) | {"rate_per_address": 0, "log_level": "error"}
        with started(tmp_path, command=DOORS, database_url=database_url, **settings) as service:
            await service.wait_ready()
            good = [issuer.token()] * PORTION
            made_up = [issuer.token(header={"kid": secrets.token_urlsafe(9)}) for _ in range(MADE_UP)]
            user = issuer.token(sub="user")
            await beside(service.public, user, good)
            fetches, begun = issuer.fetches, time.monotonic()
            base, attacked = list[float](), list[float]()
            for first in range(0, MADE_UP, PORTION):
                base += await beside(service.public, user, good)
                attacked += await beside(service.public, user, made_up[first : first + PORTION])
            fetched, seconds = issuer.fetches - fetches, time.monotonic() - begun

    ratio = p99(attacked) / p99(base)
    print(
        f"{MADE_UP} made-up keys in {seconds:.0f} s: {fetched} fetches; a user's p99 is {ratio:.2f} of beside good ones"
    )
    assert fetched <= seconds / QUIET + 1
    assert ratio <= 1.2


async def beside(url: str, user: str, tokens: list[str]) -> list[float]:
    """Return how long a user's requests took, while so many with these tokens were asked by others."""
    taken: list[float] = []
    left = iter(tokens)
    async with httpx2.AsyncClient(base_url=url, verify=False) as client, trio.open_nursery() as nursery:

        async def get(token: str) -> int:
            return (await client.get("/members", headers={"Authorization": f"Bearer {token}"})).status_code

        async def ask() -> None:
            while True:
                began = time.perf_counter()
                assert await get(user) == 200
                taken.append(time.perf_counter() - began)

        async def others() -> None:
            for token in left:
                await get(token)

        nursery.start_soon(ask)
        async with trio.open_nursery() as asking:
            for _ in range(4):
                asking.start_soon(others)
        nursery.cancel_scope.cancel()
    return taken
