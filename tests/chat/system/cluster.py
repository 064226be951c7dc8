"""Replicas of the service as real processes on one PostgreSQL, and the faults that are done to them."""

import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import trio

from service.platform.testing.place import Place
from service.platform.testing.processes import SERVICE

NOTICE = 0.2  # seconds until a load balancer knows that a replica drains


class Replica(Place):
    """One place in the cluster, and whether clients are sent there."""

    serving = False

    async def start(self) -> None:
        await self.launch().wait_ready()
        self.serving = True

    async def kill(self) -> None:
        self.serving = False
        await self.end(signal.SIGKILL)

    async def drain(self) -> int:
        """Ask it to go, as a rollout does; routers take notice a moment later, within the drain's delay."""
        assert self.process is not None
        self.send(signal.SIGTERM)
        await trio.sleep(NOTICE)
        self.serving = False
        return await self.process.wait_end(60)


class Cluster:
    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas

    def urls(self) -> list[str]:
        """Return where clients may go: a load balancer's view, which learns of a death late."""
        return [replica.process.public for replica in self.replicas if replica.serving and replica.process] or [
            "http://127.0.0.1:9"
        ]

    def ended(self) -> list[str]:
        """Return which processes ended by themselves."""
        return [
            f"{replica.logs[-1]}: ended with {replica.process.process.poll()}"
            for replica in self.replicas
            if replica.serving and replica.process is not None and replica.process.process.poll() is not None
        ]

    def complaints(self) -> list[str]:
        """Return what the replicas logged that a fault does not explain: crashes, and tracebacks of ours."""
        return [
            f"{log}: {line[:2000]}"
            for replica in self.replicas
            for log in replica.logs
            for line in log.read_text().splitlines()
            if "Traceback" in line or '"critical"' in line
        ]


@asynccontextmanager
async def open_cluster(
    directory: Path, count: int, *, command: Sequence[str] = SERVICE, **settings: Any
) -> AsyncIterator[Cluster]:
    """Start `count` replicas at once and yield them when all are ready."""
    quick = {"drain_delay": 2 * NOTICE, "drain_spread": 0.5, "log_level": "warning"}
    unlimited = {"rate_per_connection": 0, "rate_per_address": 0}
    defaults = quick | unlimited
    replicas = [
        Replica(directory / f"replica{number}", "serve", command=command, **(defaults | settings))
        for number in range(count)
    ]
    with closed(replicas):
        async with trio.open_nursery() as nursery:
            for replica in replicas:
                nursery.start_soon(replica.start)
        yield Cluster(replicas)


@contextmanager
def closed(replicas: list[Replica]) -> Iterator[None]:
    try:
        yield
    finally:
        for replica in replicas:
            replica.close()
