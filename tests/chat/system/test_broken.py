"""The checker finds each bug that is planted in a running service: what it says of the unbroken one is worth that."""

import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from tests.chat.system.checker import violations
from tests.chat.system.cluster import open_cluster
from tests.chat.system.storm import Storm


async def nothing(_: Storm) -> None:
    await trio.sleep(0.3)


async def kill(storm: Storm) -> None:
    (replica,) = storm.cluster.replicas
    await replica.kill()
    await replica.start()


async def reset(storm: Storm) -> None:
    for _ in range(2):
        for member in storm.members[::2]:
            member.reset()
        await trio.sleep(0.3)


@dataclass(frozen=True)
class Bug:
    """A function of broken_service, how many replicas have it, what is done to them, and what the checker says.

    `patience` seconds are waited for all members to have all.
    """

    name: str
    replicas: int
    fault: Callable[[Storm], Awaitable[None]]
    found: str
    patience: float = 0.3


BUGS = [
    Bug("ack_before_commit", 1, kill, "was acked as {seq} and is lost"),
    Bug("lost_notify_without_tick", 2, nothing, "ends at {seq}, the room at", patience=1.5),
    Bug("shuffled_order", 1, nothing, "and no gap was declared"),
    Bug("dropped_resume", 1, reset, "and no gap was declared"),
]


SLOW = {"lost_notify_without_tick"}


@pytest.mark.parametrize(
    "bug",
    [pytest.param(bug, id=bug.name, marks=[pytest.mark.drill] if bug.name in SLOW else []) for bug in BUGS],
)
async def test_a_bug_planted_in_the_service_is_found(tmp_path: Path, database_url: str, bug: Bug) -> None:
    found = await run_broken(tmp_path, database_url, bug)

    assert [line for line in found if all(part in line for part in bug.found.split("{seq}"))], found[:5]


@pytest.mark.drill
async def test_what_is_no_bug_is_not_found(tmp_path: Path, database_url: str) -> None:
    """The tick makes up for notifications that nobody hears."""
    assert await run_broken(tmp_path, database_url, Bug("lost_notify", 2, nothing, "", patience=20)) == []


async def run_broken(directory: Path, database_url: str, bug: Bug) -> list[str]:
    command = (sys.executable, "-m", "tests.chat.system.broken_service", bug.name)
    with trio.fail_after(60):
        async with open_cluster(directory, bug.replicas, command=command, database_url=database_url) as cluster:
            storm = Storm(cluster, seed=1, patience=bug.patience)
            storm.add_members(8, writers=4, pause=0.02)

            async def fault(storm: Storm) -> None:
                while len(storm.history.acks) < 20:
                    await trio.sleep(0.02)
                await bug.fault(storm)

            await storm.rage(fault, margin=0.2)
            return violations(storm.history)
