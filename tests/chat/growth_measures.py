"""What the axes of growth.py measure with: replicas, members in their rooms, and the processor time of both sides."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.measure import Server, backends_cpu_seconds, exact_cpu_seconds
from service.platform.database import Embedded
from service.platform.testing.processes import PATIENCE, started
from tests.chat.growth_clients import Crowd

UNLIMITED: dict[str, Any] = {
    "rate_per_connection": 0,
    "rate_per_address": 0,
    "max_websockets": 20_000,
    "log_level": "warning",
}
SILENCE = 15  # seconds after which those who have joined say something while others join
AT_ONCE = 64  # messages on their way: as many as one connection may have


@contextmanager
def serving(embedded: Embedded, number: int = 1) -> Iterator[list[Server]]:
    """Run replicas."""
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        options = UNLIMITED | {"database_url": embedded.url}
        replicas = [
            stack.enter_context(started(Path(directory), "serve", name=f"replica{one}", **options))
            for one in range(number)
        ]
        limit = time.monotonic() + PATIENCE
        while not all(one.ready_file.exists() for one in replicas):
            assert time.monotonic() < limit, replicas[0].log.read_text()
            time.sleep(0.02)
        yield [Server(one.process.pid, urlsplit(one.public).port or 0) for one in replicas]


@contextmanager
def full(services: Sequence[Server], number: int, rooms: Sequence[str]) -> Iterator[Crowd]:
    """Have so many members in the rooms, the same number at each replica."""
    crowd, said = Crowd(), time.monotonic()
    try:
        for one in range(number):
            crowd.join(services[one % len(services)].port, rooms)
            if time.monotonic() - said > SILENCE:
                crowd.settle()
                said = time.monotonic()
        crowd.settle()
        yield crowd
    finally:
        crowd.close()


def cost[T](services: Sequence[Server], embedded: Embedded, do: Callable[[], T]) -> tuple[float, float, T]:
    """Return seconds of processor time of the services, and of PostgreSQL, and what `do` returns."""
    before, server = used(services), backends_cpu_seconds(embedded.pid)
    done = do()
    return used(services) - before, backends_cpu_seconds(embedded.pid) - server, done


def used(services: Sequence[Server]) -> float:
    return sum(exact_cpu_seconds(one.pid) for one in services)


def one_by_one(crowd: Crowd, room: str, messages: int) -> list[float]:
    """Send each message when all have the one before, from each member in turn; return the seconds each took."""
    taken = []
    for number in range(messages):
        begun = time.perf_counter()
        crowd.send(number % len(crowd), [room])
        crowd.receive(len(crowd))
        taken.append(time.perf_counter() - begun)
    return taken


def all_over(crowd: Crowd, shares: Sequence[Sequence[str]], messages: int) -> None:
    """Send messages to rooms in turn, AT_ONCE of them at a time, each from its room's only member."""
    places = cycle([(member, room) for member, share in enumerate(shares) for room in share])
    for _ in range(0, messages, AT_ONCE):
        for member, room in islice(places, AT_ONCE):
            crowd.send(member, [room])
        crowd.receive(AT_ONCE)
