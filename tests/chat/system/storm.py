"""A seeded run of members and writers against a cluster while something is done to it; then the reckoning."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random

import httpx2
import trio

from tests.chat.system.checker import Got, History, violations
from tests.chat.system.clients import Member
from tests.chat.system.cluster import Cluster

ROOMS = ("one", "two", "three")
QUIET_LIMIT = 40.0  # seconds after the fault in which all is acked, and everybody has everything


@dataclass
class Storm:
    cluster: Cluster
    seed: int
    members: list[Member] = field(default_factory=list)
    history: History = field(default_factory=History)
    patience: float = QUIET_LIMIT
    ended: list[str] = field(default_factory=list)  # processes that nobody had ended
    quiet_after: float = float("inf")  # seconds from the last new message until all was acked and everywhere

    def __post_init__(self) -> None:
        self.random = Random(self.seed)

    def add_members(self, count: int, *, writers: int, pause: float = 0.08) -> None:
        for number in range(count):
            rooms = self.random.sample(ROOMS, self.random.randint(1, len(ROOMS)))
            self.members.append(
                Member(
                    name=f"m{number}",
                    rooms=rooms,
                    urls=self.cluster.urls,
                    random=Random(self.random.random()),
                    history=self.history,
                    pause=pause if number < writers else 0,
                )
            )

    async def rage(self, fault: Callable[["Storm"], Awaitable[None]], *, margin: float = 0.7) -> None:
        """Run the members, do the fault while they write, let them finish, and read everything."""
        writing = True
        async with trio.open_nursery() as nursery:
            for member in self.members:
                nursery.start_soon(member.run, lambda: writing)
            await trio.sleep(margin)
            await fault(self)
            await trio.sleep(margin)
            writing = False
            with trio.move_on_after(self.patience):
                begun = trio.current_time()
                await self._wait_complete()
                self.quiet_after = trio.current_time() - begun
            nursery.cancel_scope.cancel()
        self.ended = self.cluster.ended()
        await self.read_rooms()

    async def _wait_complete(self) -> None:
        while True:
            await trio.sleep(0.1)
            if all(not member.unacked for member in self.members):
                heads = await self.read_heads()
                if heads and all(member.complete(heads) for member in self.members):
                    return

    async def read_heads(self) -> dict[str, int]:
        try:
            async with httpx2.AsyncClient(timeout=5) as client:
                url = self.cluster.urls()[0]
                answers = {room: await client.get(f"{url}/api/rooms/{room}/messages?limit=1") for room in ROOMS}
                return {room: answer.json()["head"] for room, answer in answers.items()}
        except (httpx2.HTTPError, KeyError):
            return {}

    async def read_rooms(self) -> None:
        async with httpx2.AsyncClient(timeout=10) as client:
            for room in ROOMS:
                found: list[Got] = []
                while True:
                    url = f"{self.cluster.urls()[0]}/api/rooms/{room}/messages?limit=200&after={len(found)}"
                    page = (await client.get(url)).raise_for_status().json()
                    found += [Got(room, m["epoch"], m["seq"], m["id"], m["text"]) for m in page["messages"]]
                    if not page["messages"]:
                        break
                self.history.rooms[room] = found

    def reckoning(self) -> list[str]:
        """Return everything that is wrong: what the checker finds, what nobody acked, what the replicas logged."""
        return [
            *violations(self.history),
            *(f"{member.name}: never acked {sorted(member.unacked)[:3]}" for member in self.members if member.unacked),
            *(line for member in self.members for line in member.wrong),
            *self.ended,
            *self.cluster.complaints(),
        ]

    def summary(self) -> str:
        closes = sum((member.closes for member in self.members), start=type(self.members[0].closes)())
        dups = sum(ack.dup for ack in self.history.acks)
        frames = sum(len(seen) for seen in self.history.members.values())
        return (
            f"seed {self.seed}: {len(self.history.sent)} sent, {len(self.history.acks)} acks ({dups} repeats), "
            f"{frames} frames at members, closes {dict(closes)}, quiet after {self.quiet_after:.1f} s"
        )
