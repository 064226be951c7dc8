"""A session with a thousand websockets ends: soon, and without the others' noticing."""

import json
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trio

from service.platform.testing.contract import Client
from service.platform.testing.issuer import CLIENT, Issuer, open_issuer
from service.platform.testing.processes import ROOT, started
from service.platform.testing.wire import open_raw
from tests.platform.identity.test_sign_in import SESSION, Browser
from tests.platform.identity.world import auth

COUNT = 1_000
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
            ratios = [await one_run(service.public, issuer) for _ in range(5)]

    print("p99 of another member, while they end to before:", [f"{ratio:.2f}" for ratio in ratios])
    assert statistics.median(ratios) <= 1.5


def holding(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


async def one_run(url: str, issuer: Issuer) -> float:
    where = urlsplit(url)
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
                before: list[float] = []
                during: list[float] = []

                async def ask(into: list[float]) -> None:
                    while True:
                        began = time.perf_counter()
                        await member.send("x")
                        await member.receive()
                        into.append(time.perf_counter() - began)

                with trio.move_on_after(1):
                    await ask(before)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(ask, during)
                    ended = time.monotonic()
                    nursery.start_soon(partial(browser.ask, "/auth/sign-out", "POST"))
                    told = json.loads(await trio.to_thread.run_sync(holders.stdout.readline))
                    nursery.cancel_scope.cancel()
    seconds = max(told["moments"]) - ended
    print(
        f"{COUNT} ended in {seconds:.2f} s, {told['codes']}; another's p99 {p99(before) * 1000:.2f} ms before, "
        f"{p99(during) * 1000:.2f} ms while they end ({len(during)} turns)"
    )
    assert told["codes"] == {"4401": COUNT}
    return p99(during) / p99(before)
