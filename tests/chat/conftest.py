"""For each test of the chat: a migrated database, opened, and replicas that serve it."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import pytest
import trio
from sqlalchemy import Connection, create_engine

from service.chat import CHAT
from service.chat.routes import open_chat
from service.chat.rules import Rule, check
from service.platform.database import Database, open_database
from service.platform.inside.management import Inside
from service.platform.inside.watchdog import Watchdog
from service.platform.lifecycle import Lifecycle
from service.platform.process.addresses import Urls
from service.platform.process.main import live
from service.platform.process.stage import ALONE
from service.platform.telemetry.logs import LogLevel
from service.platform.telemetry.metrics import Metrics
from service.platform.testing.fixtures import MakeSettings


@pytest.fixture
async def database(make_settings: MakeSettings) -> AsyncIterator[Database]:
    async with open_database(make_settings()) as database:
        yield database


@pytest.fixture
def outside(writable_database_url: str) -> Iterator[Connection]:
    """Yield a connection of somebody else: an operator, or another replica that is slow."""
    engine = create_engine(writable_database_url)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


@dataclass(frozen=True)
class Running:
    """A service in this process, and the means to drain it."""

    url: str
    lifecycle: Lifecycle
    metrics: Metrics


class Start(Protocol):
    async def __call__(self, *, heartbeat: float = 20, rule: Rule = check, **settings: Any) -> Running: ...


@pytest.fixture
async def start(make_settings: MakeSettings) -> AsyncIterator[Start]:
    """Yield what starts a replica on this test's database: main's own scopes, on real sockets, with the chat alone."""
    quick = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0", "drain_delay": 0, "drain_spread": 0.2}
    async with trio.open_nursery() as nursery:

        async def start(*, heartbeat: float = 20, rule: Rule = check, **settings: Any) -> Running:
            ready, urls, lifecycle = trio.Event(), [], Lifecycle()

            def on_ready(found: Urls) -> None:
                urls.append(found)
                ready.set()

            feature = replace(CHAT, open=partial(open_chat, heartbeat=heartbeat, rule=rule))
            made = make_settings(**quick | settings)
            inside = Inside(Metrics(), LogLevel(made.log_level), Watchdog(made.slow_step))
            nursery.start_soon(
                partial(live, made, [feature], lifecycle, inside, ALONE, public=True, origins={}, on_ready=on_ready)
            )
            with trio.fail_after(60):
                await ready.wait()
            return Running(urls[0].public, lifecycle, inside.metrics)

        yield start
        nursery.cancel_scope.cancel()
