"""Rows of history: what a page, a join and a resume cost while there are more and more of them, and how they are read.

The rows are those of ROOMS rooms, made by INSERT ... SELECT. Rooms that are in memory would tell nothing: each is
joined when nobody has been in it for a while.
"""

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from bench import clients
from bench.measure import Server, middle_and_late
from bench.postgres import migrated, plain
from bench.tables import Extent, Table
from service.platform.database import Embedded
from tests.chat import plans
from tests.chat.growth_clients import MARK, Crowd
from tests.chat.growth_measures import cost, serving

ROOMS = 200
EMPTY = 20_000  # rooms besides
RESUMED = 5  # messages of a page and of a resume: what each of the rooms has at the smallest size
FORGOTTEN = 2.5  # seconds after which a room without members is no longer in memory
ROUNDS = 4  # of joins, and of resumes, over half of the rooms each
PAGES = 1_000


def history(extent: Extent) -> None:
    table = Table(
        "rows", "Rows of history", "a page: service, µs", "PostgreSQL, µs", "a join: service, µs", "PostgreSQL, µs",
        "a resume: service, µs", "PostgreSQL, µs", "page p50, ms", "p99, ms", "read by",
    )  # fmt: skip
    with migrated() as embedded, serving(embedded) as [service]:
        url, last = plain(embedded.url), 0
        plans.fill(url, prefix="empty-", rooms=EMPTY, first=1, last=0)
        for size in extent.sizes((10**3, 10**4, 10**5, 10**6, 10**7), 10**6):
            first, last = last + 1, size // ROOMS
            plans.fill(url, prefix="h-", rooms=ROOMS, first=first, last=last)
            epoch = ready_to_be_read(url)
            figures = [
                *_pages(service, embedded, last, extent.times(PAGES)),
                *_joins(service, embedded, None, extent),
                *_joins(service, embedded, {"epoch": epoch, "seq": last - RESUMED}, extent),
                *_page_times(service, last, extent.times(PAGES // 4)),
            ]
            table.row(size, *figures, read_by(url, last))


def ready_to_be_read(url: str) -> str:
    """Write away what was inserted, so that nobody pays for it later; return the epoch."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
        row = connection.execute("SELECT epoch FROM chat_epoch").fetchone()
    assert row is not None
    return str(row[0])


def page_requests(last: int, number: int) -> list[bytes]:
    """Return requests for pages anywhere in the history."""
    chosen = random.Random(last)
    places = [(chosen.randint(1, ROOMS), chosen.randint(RESUMED, last) + 1) for _ in range(number)]
    path = "/api/rooms/h-{}/messages?limit={}&before={}"
    return [
        f"GET {path.format(room, RESUMED, before)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        for room, before in places
    ]


def _pages(service: Server, embedded: Embedded, last: int, number: int) -> tuple[float, float]:
    requests = page_requests(last, number)
    clients.each(service.port, requests[:100])  # files are read for the first time
    used, server, _ = cost([service], embedded, lambda: clients.each(service.port, requests))
    return used / number * 1e6, server / number * 1e6


def _page_times(service: Server, last: int, number: int) -> tuple[float, float]:
    requests = page_requests(last + 1, number)
    return middle_and_late([clients.latencies(service.port, request, 1)[0] for request in requests])


def _joins(service: Server, embedded: Embedded, since: dict[str, object] | None, extent: Extent) -> tuple[float, float]:
    """Return what it costs to come in, by websocket, upgrade and goodbye included."""
    halves = range(1, ROOMS // 2 + 1), range(ROOMS // 2 + 1, ROOMS + 1)
    names = [f"h-{number}" for number in halves[0 if since is None else 1]]
    if extent.brief:
        del names[4:]
    rounds = [
        cost([service], embedded, lambda: come(service, names, since)) for _ in range(1 if extent.brief else ROUNDS)
    ]
    count = len(rounds) * len(names)
    return sum(used for used, _, _ in rounds) / count * 1e6, sum(server for _, server, _ in rounds) / count * 1e6


def come(service: Server, names: Sequence[str], since: dict[str, object] | None) -> None:
    """Let a member come into each of the rooms, one after the other, and all go until the rooms are forgotten."""
    crowd = Crowd()
    for name in names:
        came = crowd.join(service.port, [name], since)
        if since is not None:
            crowd.receive(RESUMED - came.count(MARK))
    crowd.close()
    time.sleep(FORGOTTEN)


def read_by(url: str, last: int) -> str:
    """Return how PostgreSQL reads for pages, joins and resumes: by index scans, or also by what else, for what."""
    with psycopg.connect(url, autocommit=True) as connection:
        otherwise = dict(_otherwise_read(connection, last))
    return "; ".join(["index scans", *(f"{name}: {kind}" for name, kind in otherwise.items())])


def _otherwise_read(connection: psycopg.Connection[Any], last: int) -> Iterator[tuple[str, str]]:
    for name, ask in plans.questions("h-7", last).items():
        for table, kind, _ in plans.scans(connection, ask):
            if kind not in plans.BY_INDEX:
                yield name, f"{kind} of {table}"
