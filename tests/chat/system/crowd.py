"""Thousands of members: what one costs that says nothing, and what comes of it when all come back at once."""

import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from service.platform.testing.processes import Process
from service.platform.testing.wire import Closed, RawWebsocket, UpgradeRefused
from tests.chat.wire import open_raw

PATIENCE = 60.0  # seconds for a connection, when thousands are made


@dataclass
class Returns:
    """How the resumes went: statuses and errors on the way, `complete` at the end, and when that was, in seconds."""

    answers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0


def resident_kib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if "VmRSS" in line)


async def open_many(stack: AsyncExitStack, url: str, count: int) -> list[RawWebsocket]:
    """Open members of the lobby, twenty at a time; each is told that it has joined."""
    lines: list[RawWebsocket] = []

    async def some(number: int) -> None:
        for _ in range(number):
            line = await stack.enter_async_context(open_raw(url, limit=PATIENCE))
            await line.send({"type": "join", "room": "lobby", "ref": "r"})
            lines.append(line)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(some, count // 20)
    return lines


async def write(url: str, count: int) -> None:
    async with open_raw(url) as writer:
        await writer.send({"type": "join", "room": "lobby", "ref": "r"})
        for number in range(count):
            frame = {"type": "send", "room": "lobby", "id": f"{time.time()}-{number}", "text": "missed"}
            await writer.send(frame)
            await writer.expect("ack")


async def come_back(service: Process, *, members: int, since: dict[str, Any], missed: int) -> Returns:
    """Let all resume at once, and again a second after a refusal, until each has what it missed."""
    returns, begun = Returns(), trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(members):
            nursery.start_soon(_resume, service, since, missed, returns.answers)
    returns.seconds = trio.current_time() - begun
    return returns


async def _resume(service: Process, since: dict[str, Any], missed: int, answers: Counter[str]) -> None:
    while True:
        try:
            async with open_raw(service.public, limit=PATIENCE) as line:
                await line.send({"type": "join", "room": "lobby", "ref": "r", "since": since})
                for seq in range(since["seq"] + 1, since["seq"] + missed + 1):
                    assert (await line.expect("message"))["seq"] == seq
                answers["complete"] += 1
                return
        except (UpgradeRefused, Closed, OSError, trio.TooSlowError) as error:
            answers[_describe(error)] += 1
            await trio.sleep(1)


def _describe(error: Exception) -> str:
    if isinstance(error, UpgradeRefused) and "retry-after" in error.head.lower():
        return f"{error.status} announced"
    return repr(error)
