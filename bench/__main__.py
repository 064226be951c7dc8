"""`make bench`: ratios of what a unit of work costs the server's processor, ours to others', and never bare times.

    python -m bench [NAME...]      NAME as in ALL, below, or a feature's
    python -m bench growth --help  how cost grows, for docs/capacity.md: minutes, so it is not part of the others

Each ratio is the median of interleaved pairs of runs. Work per second of processor time is compared, so a busy machine
does not tilt it much; PostgreSQL's own time is not counted. The ratios are kept in build/ratios.json.
"""

import argparse
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path

import psycopg

from bench import clients, growth, identity, jobs, starts
from bench import database as units
from bench import price as around
from bench.measure import Server, ratio, server, show
from bench.postgres import plain
from service.platform.database import open_embedded
from service.platform.process.start import end_at_signals

MEMBERS = 1_000
IDLE = 1_000
MESSAGES = 60
TEXT = b"a message of a usual length, as people write them to each other in a room"
LIVE = b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
MUCH = b"GET /much HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
HELLO = b"GET /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
READ = b"GET /items/7 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
NOWHERE = b"GET /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BELOW = b"GET /hello/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
BELOW_PART = b"GET /items/7/nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
DELETE = b"DELETE /hello HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
INSERT = (
    b"POST /items HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n"
    b'{"text": "words"}'
)


def requests_per_second(measured: Server, request: bytes, status: bytes, number: int = 2_000) -> float:
    """Return requests per second of the server's processor time."""
    before = measured.cpu
    clients.requests(measured.port, request, number, status=status)
    return number / (measured.cpu - before)


def probes() -> None:
    with server("ours") as ours, server("bare") as bare, server("fastapi_") as fastapi:
        show("/livez, to the stack as it comes", _compare(ours, bare, LIVE), 2.4)
        show("/livez, to FastAPI on uvicorn", _compare(ours, fastapi, LIVE), 1.0)


def http() -> None:
    with (
        server("ours") as ours,
        server("bare") as bare,
        server("fastapi_") as fastapi,
        server("fastapi_", "", "httptools") as quick,
    ):
        show("GET of a few bytes of JSON, to the stack as it comes", _compare(ours, bare, HELLO), 1.0)
        show("GET of a few bytes of JSON, to FastAPI on uvicorn", _compare(ours, fastapi, HELLO), 1.0)
        show("GET of a few bytes of JSON, to that with httptools", _compare(ours, quick, HELLO), 0.6)
        show("404, no route begins like that, to FastAPI on uvicorn", _compare(ours, fastapi, NOWHERE, b"404"), 1.0)
        show("404, below a route, to FastAPI on uvicorn", _compare(ours, fastapi, BELOW, b"404"), 1.0)
        show("405, to FastAPI on uvicorn", _compare(ours, fastapi, DELETE, b"405"), 1.0)


def _compare(ours: Server, theirs: Server, request: bytes, status: bytes = b"20") -> tuple[float, list[float]]:
    def per_second(measured: Server) -> float:
        return requests_per_second(measured, request, status)

    return ratio(lambda: per_second(ours), lambda: per_second(theirs))


def database() -> None:
    with postgres() as url:
        native = url.replace("postgresql+psycopg", "postgresql+asyncpg")
        with server("ours", url) as ours, server("fastapi_", native) as fastapi:
            show("a read through HTTP, to FastAPI, SQLAlchemy, asyncpg", _compare(ours, fastapi, READ), 1.1)
            show("404, below a part of a path, to FastAPI on uvicorn", _compare(ours, fastapi, BELOW_PART, b"404"), 1.0)
            show("an insert through HTTP, to FastAPI, SQLAlchemy, asyncpg", _compare(ours, fastapi, INSERT), 1.1)


def price() -> None:
    with postgres() as url:
        around.main(url)


@contextmanager
def postgres() -> Iterator[str]:
    """Yield the address of a throw-away server, on TCP, with the one table."""
    with (
        tempfile.TemporaryDirectory() as directory,
        open_embedded(Path(directory) / "data", durable=False) as embedded,
    ):
        with psycopg.connect(plain(embedded.url), autocommit=True) as connection:
            connection.execute("CREATE TABLE items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, text text)")
            connection.execute("INSERT INTO items (text) SELECT 'item ' || n FROM generate_series(1, 100) n")
        yield embedded.url


def fanout() -> None:
    """Deliveries to 1,000 members, one of whom does not read, per second of processor time."""
    with server("ours") as ours, server("fastapi_") as fastapi, server("bare") as bare:
        rooms = [clients.Members(each.port, MEMBERS - 1, stalled=1) for each in (ours, fastapi, bare)]
        before = ours.rss

        def deliver(measured: Server, room: clients.Members) -> float:
            cpu = measured.cpu
            for _ in range(MESSAGES):
                room.send(TEXT)
                room.receive((MEMBERS - 1) * (len(TEXT) + 2))
            return MESSAGES * MEMBERS / (measured.cpu - cpu)

        mine, theirs, stock = (
            lambda: deliver(ours, rooms[0]),
            lambda: deliver(fastapi, rooms[1]),
            lambda: deliver(bare, rooms[2]),
        )
        show(f"fan-out to {MEMBERS} members, to FastAPI on uvicorn", ratio(mine, theirs), 1.3)
        show(f"fan-out to {MEMBERS} members, to the stack as it comes", ratio(mine, stock, 3), 1.3)
        for _ in range(20):
            deliver(ours, rooms[0])
        print(f"{'memory meanwhile, one member not reading':<58} {ours.rss - before:+.1f} MB")
        for room in rooms:
            room.close()


def stalled() -> None:
    """How late the slowest hundredth of good clients' answers is while 50 peers ask for much and read nothing."""
    with server("ours") as ours:

        def late() -> float:
            return statistics.quantiles(clients.latencies(ours.port, HELLO, 1_000), n=100)[98]

        def late_beside_stalled() -> float:
            with clients.stalled(ours.port, MUCH, 50):
                return late()

        median, ratios = ratio(late_beside_stalled, late)
        show("p99 of others while 50 peers do not read, to without", (median, ratios), 1.5, at_most=True)


def start() -> None:
    """From exec to the first answer of /readyz, on a migrated database, in time and in processor time."""
    with postgres() as url:
        starts.main(url)


def idle() -> None:
    """The memory of a websocket that says nothing: of IDLE more, in turns of the two servers."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with server("ours") as ours, server("fastapi_") as fastapi, ExitStack() as stack:

        def grow(measured: Server) -> float:
            before = measured.pss
            stack.callback(clients.Members(measured.port, IDLE).close)
            time.sleep(1)
            return (measured.pss - before) / IDLE

        grow(ours), grow(fastapi)  # what is loaded and allocated for the first ones
        each = [(grow(ours), grow(fastapi)) for _ in range(3)]
        ratios = [one / other for one, other in each]
        show("memory of an idle websocket, to FastAPI", (statistics.median(ratios), ratios), 1.0, at_most=True)
        print(f"{'':<58} {statistics.median(one for one, _ in each):.1f} KiB")


ALL: dict[str, Callable[[], None]] = {
    "start": start,
    "price": price,
    "identity": identity.main,
    "probes": probes,
    "http": http,
    "fanout": fanout,
    "stalled": stalled,
    "idle": idle,
    "database": database,
    "units": units.main,
    "jobs": jobs.main,
}


def of_features() -> dict[str, Callable[[], None]]:
    """Return the benchmarks that features bring: `main` of tests/<feature>/bench.py."""
    found = Path(__file__).parents[1].glob("tests/*/bench.py")
    return {path.parent.name: import_module(f"tests.{path.parent.name}.bench").main for path in sorted(found)}


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["growth"]:
        growth.main(arguments[1:])
        return
    every = ALL | of_features()
    there_are = f"there are {', '.join(every)}"
    parser = argparse.ArgumentParser(
        "python -m bench",
        description="Ratios of what work costs, ours to others', of interleaved runs.",
        epilog="`python -m bench growth --help`: how cost grows, in minutes.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure, else all of it: {there_are}")
    names = parser.parse_args(arguments).names
    if wrong := [name for name in names if name not in every]:
        parser.error(f"there is no benchmark {wrong[0]!r}; {there_are}")
    for name in names or every:
        every[name]()


if __name__ == "__main__":
    end_at_signals()  # by an exception, so that no server is left behind
    main(sys.argv[1:])
