"""Three times more is asked than the database can do: what it can do is done, and the rest is told so at once."""

import math
import statistics
from dataclasses import dataclass, field

import psycopg
import pytest
import trio
from quart import Blueprint
from sqlalchemy import Connection, make_url, text

from service.platform.database import Database, open_database
from service.platform.http.app import create_app, surround
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.lifecycle import Lifecycle
from service.platform.server import RateLimits, ServerStatistics
from service.platform.testing.fixtures import MakeSettings
from tests.platform.server.conftest import Server, running
from tests.platform.server.wire import Reader, get

CONNECTIONS, QUERY = 5, 0.1
SECONDS = 5
PATIENCE = 10  # times what an answer takes at the capacity: then a client gives up


@dataclass
class Outcome:
    served: int = 0
    refused: list[float] = field(default_factory=list)  # seconds until the 503
    given_up: int = 0
    other: list[int] = field(default_factory=list)


def work(connection: Connection) -> None:
    """Count, outside any transaction, that PostgreSQL began this, and take the time."""
    connection.execute(text("SELECT nextval('begun'), pg_sleep(:seconds)"), {"seconds": QUERY})


def create_routes(database: Database) -> Blueprint:
    routes = Blueprint("overload", __name__)

    @routes.get("/work")
    @anyone
    @unlimited("a test's")
    async def do_work() -> dict[str, bool]:
        await database.run(work)
        return {"done": True}

    return routes


@dataclass(frozen=True)
class Promise:
    goodput: float  # at least, of the capacity
    refusal: float  # until the 503s, at most, of what a served client waits at the capacity
    percentile: int  # of them
    given_up: float  # share of the clients, and so of the queries that were nobody's


# Beside other work: half of them are told before a query would have ended. Alone: what is promised.
BUSY, QUIET = Promise(0.7, 1, 50, 0.2), Promise(0.98, 0.25, 99, 0)


@pytest.mark.parametrize("most", [CONNECTIONS * 4, 1_000], ids=["gate", "estimate"])  # which of the two refuses
@pytest.mark.parametrize("promise", [BUSY, pytest.param(QUIET, marks=pytest.mark.drill)], ids=["busy", "quiet"])
async def test_under_three_times_its_capacity_the_service_does_what_it_can(
    writable_database_url: str, make_settings: MakeSettings, promise: Promise, most: int
) -> None:
    settings = make_settings(database_url=writable_database_url, database_connections=CONNECTIONS, max_requests=most)
    with _connect(writable_database_url) as observer:
        observer.execute("CREATE SEQUENCE begun")
        outcome = Outcome()
        async with open_database(settings) as database:
            lifecycle, counters = Lifecycle(), ServerStatistics()
            app = create_app([create_routes(database)], settings)
            whole = surround(app, settings, lifecycle=lifecycle, statistics=counters, limits=RateLimits(0))
            async with running(whole, settings) as server:
                capacity = await _capacity(server)
                before = _begun(observer)
                usual = CONNECTIONS / capacity  # QUERY, and more where other work is done beside
                await _offer(server, 3 * capacity, outcome, patience=PATIENCE * usual)
        begun = _begun(observer) - before

    late = statistics.quantiles(outcome.refused, n=100)[promise.percentile - 1]
    goodput = outcome.served / (capacity * SECONDS)
    print(f"goodput {goodput:.1%} of a capacity of {capacity:.1f}/s")
    print(
        f"{len(outcome.refused)} refused, p{promise.percentile} {late * 1000:.1f} ms, max {max(outcome.refused):.3f} s"
    )
    print(f"queries begun {begun}, served {outcome.served}, given up {outcome.given_up}")
    assert outcome.given_up <= promise.given_up * 3 * capacity * SECONDS
    assert outcome.other == []
    assert outcome.served <= begun <= outcome.served + outcome.given_up  # every other query was somebody's answer
    assert goodput >= promise.goodput
    assert late < promise.refusal * usual


async def _capacity(server: Server) -> float:
    """Return how many a second are served when as many ask, one after the other, as there are connections."""
    outcome = Outcome()

    async def ask_on() -> None:
        while True:
            await _ask(server, outcome)

    await _ask(server, Outcome())
    with trio.move_on_after(2):
        async with trio.open_nursery() as nursery:
            for _ in range(CONNECTIONS):
                nursery.start_soon(ask_on)
    await trio.sleep(2 * QUERY)  # what was under way ends, or is cancelled
    return outcome.served / 2


async def _offer(server: Server, rate: float, outcome: Outcome, *, patience: float) -> None:
    """Ask `rate` times a second, whatever becomes of it."""
    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(int(rate * SECONDS)):
            await trio.sleep_until(start + number / rate)
            nursery.start_soon(_ask, server, outcome, patience)


async def _ask(server: Server, outcome: Outcome, seconds: float = math.inf) -> None:
    with trio.move_on_after(seconds) as patience:
        async with await server.connect() as client:
            started = trio.current_time()
            await client.send_all(get("/work"))
            status, _, _ = await Reader(client).response()
            if status == 200:
                outcome.served += 1
            elif status == 503:
                outcome.refused.append(trio.current_time() - started)
            else:
                outcome.other.append(status)
    outcome.given_up += patience.cancelled_caught


def _begun(observer: psycopg.Connection[tuple[int]]) -> int:
    row = observer.execute("SELECT last_value FROM begun").fetchone()
    assert row is not None
    return row[0]


def _connect(url: str) -> psycopg.Connection[tuple[int]]:
    plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return psycopg.connect(plain, autocommit=True)
