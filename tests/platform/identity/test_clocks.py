"""Whose clock says when a session is over: replicas whose clocks are wrong, and PostgreSQL's that is put back."""

import secrets
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, text

from service.platform.database import open_database
from service.platform.identity.caller import Caller
from service.platform.identity.ids import make_id
from service.platform.identity.session_store import MOST_SESSIONS, insert_session
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import CLIENT, open_issuer
from service.platform.testing.processes import started
from service.platform.testing.wire import open_raw
from tests.platform.identity.test_sign_in import SESSION, Browser
from tests.platform.identity.world import auth
from tests.platform.jobs.clocks import Clock, find_library

DOORS = (sys.executable, "-m", "tests.platform.identity.doors")
HOUR = 3_600
LIFETIME = 12 * HOUR


async def test_a_session_lasts_as_long_as_promised_whatever_the_clocks_of_replicas_say(
    tmp_path: Path, writable_database_url: str
) -> None:
    """One replica is half an hour ahead, where somebody signs in, and another a day."""
    if (library := find_library()) is None:
        pytest.skip("there is no libfaketime here")
    ahead, far_ahead = (Clock(tmp_path / f"offset-{number}", library) for number in range(2))
    async with open_issuer() as issuer, AsyncExitStack() as stack:
        settings = auth(issuer) | {
            "auth_client_id": CLIENT,
            "auth_client_secret": issuer.secret,
            "auth_session_lifetime": LIFETIME,
            "database_url": writable_database_url,
            "rate_per_address": 0,
        }
        services = [
            stack.enter_context(
                started(tmp_path, command=(*clock.prefix, *DOORS), name=secrets.token_hex(4), **settings)
            )
            for clock in (ahead, far_ahead)
        ]
        for service in services:
            await service.wait_ready()
        ahead.jump(HOUR // 2)
        far_ahead.jump(24 * HOUR)
        here, there = [await stack.enter_async_context(Client(service.public)) for service in services]
        browser = Browser(here, issuer)
        await browser.sign_in(exp=issuer.claims()["exp"] + HOUR)
        with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as connection:
            left = connection.execute("SELECT extract(epoch FROM expires - made) FROM identity_session").fetchall()
        elsewhere = Browser(there, issuer, browser.cookies)
        known = await elsewhere.me()
        async with open_raw(
            services[1].public, "/feed", headers=f"Cookie: {SESSION}={browser.cookies[SESSION]}\r\n"
        ) as socket:
            subject = await socket.receive()
            ticket = (await browser.ask("/auth/ticket", "POST")).json()["ticket"]
            async with open_raw(services[1].public, "/feed", protocol=f"ticket.{ticket}") as other:
                by_ticket = await other.receive()
        far_ahead.jump(0)
        still = await elsewhere.me()

    assert [round(float(row[0])) for row in left] == [LIFETIME]
    assert (known["signed_in"], subject, by_ticket, still["signed_in"]) == (True, "ada", "ada", True)


async def test_who_signs_in_after_the_database_s_clock_was_put_back_has_a_session(make_settings: MakeSettings) -> None:
    """Though all others of the same person are newer then."""
    digests = [make_id()[1] for _ in range(MOST_SESSIONS + 1)]

    def begin(connection: Connection, digest: bytes) -> None:
        ada = Caller(subject="ada", expires=9e9)
        insert_session(connection, digest=digest, caller=ada, lifetime=60, sid=None, before=None)

    def put_back(connection: Connection) -> None:
        connection.execute(text("UPDATE identity_session SET made = made + interval '1 hour'"))

    def select(connection: Connection) -> set[bytes]:
        return {bytes(row[0]) for row in connection.execute(text("SELECT hash FROM identity_session"))}

    async with open_database(make_settings()) as database:
        for digest in digests[:-1]:
            await database.run(begin, digest)
        await database.run(put_back)
        await database.run(begin, digests[-1])

        assert await database.read(select) == {*digests[1:]}
