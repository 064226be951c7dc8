"""How the chat's cost grows: `python -m bench growth --axis members --axis rooms --axis replicas --axis history`.

The tables of service/chat/docs/capacity.md. Members are in this process; the replicas and PostgreSQL are in theirs.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack

from bench.growth import FILES_BESIDE, open_files
from bench.measure import Server, middle_and_late
from bench.postgres import migrated, plain
from bench.tables import Extent, Table
from service.chat.protocol import MAX_ROOMS
from service.platform.database import Embedded
from tests.chat import plans
from tests.chat.growth_clients import Crowd
from tests.chat.growth_history import history
from tests.chat.growth_measures import AT_ONCE, all_over, cost, full, one_by_one, serving

OF_A_REPLICA = 10  # members
REST = 5  # seconds for which what does nothing is looked at


def members(extent: Extent) -> None:
    """Members of one room: what a message costs, and each delivery of it."""
    table = Table(
        "members of a room", "Members of a room", "service, µs a message", "µs a delivery", "PostgreSQL, µs a message",
        "to the last member p50, ms", "p99, ms", "KiB a member",
    )  # fmt: skip
    most = open_files()
    with migrated() as embedded, serving(embedded) as services:
        with full(services, 10, ["warm"]) as crowd:
            one_by_one(crowd, "warm", 50)
        for size in extent.sizes((10, 100, 1_000, 10_000), 1_000):
            if size + FILES_BESIDE > most:
                print(f"\nulimit -n is {most}: too low for {size} members.")
                return
            memory, room = services[0].pss, f"members-{size}"
            messages = extent.times(max(20, min(500, 100_000 // size)))
            with full(services, size, [room]) as crowd:
                grown = (services[0].pss - memory) / size
                one_by_one(crowd, room, 3)  # counts of those who are there still go out
                used, server, late = cost(services, embedded, lambda: one_by_one(crowd, room, messages))  # noqa: B023
            each = used / messages * 1e6
            table.row(size, each, each / size, server / messages * 1e6, *middle_and_late(late), grown)


def rooms(extent: Extent) -> None:
    """Rooms that are open at one replica, a member in each: what a message costs, and what they cost at rest."""
    table = Table(
        "rooms", "Open rooms", "service, µs a message", "PostgreSQL, µs a message", "service at rest, % of a CPU",
        "PostgreSQL at rest, % of a CPU", "service, µs to join one", "KiB a room",
    )  # fmt: skip
    for size in extent.sizes((1, 10, 100, 1_000, 10_000), 1_000):
        with migrated() as embedded, serving(embedded) as services, ExitStack() as stack:
            names = [f"room-{number}" for number in range(1, size + 1)]
            plans.fill(plain(embedded.url), prefix="room-", rooms=size, first=1, last=0)
            with full(services, 1, ["warm"]) as warm:
                one_by_one(warm, "warm", 20)
            shares = [names[first : first + MAX_ROOMS] for first in range(0, size, MAX_ROOMS)]
            crowd = Crowd()
            stack.callback(crowd.close)
            memory = services[0].pss
            joined, _, _ = cost(services, embedded, lambda: [crowd.join(services[0].port, share) for share in shares])  # noqa: B023
            grown = (services[0].pss - memory) / size
            crowd.settle()
            messages = -(-extent.times(1_280) // AT_ONCE) * AT_ONCE
            rest, rest_server = at_rest(services, embedded, extent)
            used, server, _ = cost(services, embedded, lambda: all_over(crowd, shares, messages))  # noqa: B023
            table.row(
                size, used / messages * 1e6, server / messages * 1e6, rest, rest_server, joined / size * 1e6, grown
            )


def replicas(extent: Extent) -> None:
    """Replicas with ten members of one room each: what a message costs all of them, and when the last one has it."""
    table = Table(
        "replicas", "Replicas", "all replicas, µs a message", "each, µs a message", "PostgreSQL, µs a message",
        "to the last member p50, ms", "p99, ms", "replicas at rest, % of a CPU", "PostgreSQL at rest, % of a CPU",
    )  # fmt: skip
    for size in extent.sizes((1, 2, 4, 8), 8):
        with migrated(durable=True) as embedded, serving(embedded, size) as services:
            with full(services, OF_A_REPLICA * size, ["lobby"]) as crowd:
                messages = extent.times(400)
                one_by_one(crowd, "lobby", messages // 4)
                crowd.settle()
                rest = at_rest(services, embedded, extent)
                used, server, late = cost(services, embedded, lambda: one_by_one(crowd, "lobby", messages))  # noqa: B023
            each = used / messages * 1e6
            table.row(size, each, each / size, server / messages * 1e6, *middle_and_late(late), *rest)


def at_rest(services: list[Server], embedded: Embedded, extent: Extent) -> tuple[float, float]:
    """Return what the services, and PostgreSQL, use of a CPU while nobody says anything, in per cent."""
    seconds = 1 if extent.brief else REST
    used, server, _ = cost(services, embedded, lambda: time.sleep(seconds))
    return used / seconds * 100, server / seconds * 100


AXES: dict[str, Callable[[Extent], None]] = {
    "members": members,
    "rooms": rooms,
    "replicas": replicas,
    "history": history,
}
