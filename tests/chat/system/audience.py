"""Many members of one room, cheap enough for hundreds: some are timed, some do not read, the others only take bytes.

Without a protocol they are clients of a plain loop, whose texts come as they were sent.
"""

import json
import socket
import statistics
import sys
import time
from collections.abc import AsyncIterator, Sized
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio

from service.chat.protocol import MAX_TEXT, SUBPROTOCOL, Close
from service.platform.testing.wire import Closed, RawWebsocket
from tests.chat.wire import open_raw

TIMED = 20
LONG = "𝄞" * (MAX_TEXT - 40)  # 16 KB: a member that does not read is full after a few hundred of them
LET_GO = {Close.TOO_SLOW, 1006}  # without a word where its kernel has no room for the close frame, ever
PATIENCE = 5.0  # seconds without any delivery after which no more are expected
RESUME = 120.0  # seconds for all who did not read


@dataclass
class Delivery:
    """What came of the messages. `delays`, as (when, seconds), and `share` are of those who are timed."""

    delays: list[tuple[float, float]] = field(default_factory=list)
    share: float = 0
    let_go: int = 0  # of those who did not read
    complete: int = 0  # of those who did not read, after they came back

    @property
    def p99(self) -> float:
        return statistics.quantiles([delay for _, delay in self.delays], n=100)[98]

    @property
    def usual_p99(self) -> float:
        """The median of the p99s of all half seconds: what stalled members cost shows in each, a bad moment in one."""
        windows: dict[int, list[float]] = {}
        for when, delay in self.delays:
            windows.setdefault(int(2 * when), []).append(delay)
        return statistics.median(statistics.quantiles([0.0, *window], n=100)[98] for window in windows.values())


async def compare(
    url: str, *, members: int, stalled: int, messages: int, pause: float, pairs: int
) -> list[tuple[Delivery, Delivery]]:
    """Deliver without and with those who do not read, by turns; print what it is for the others."""
    found = []
    for _ in range(pairs):
        free = await deliver(url, members=members, stalled=0, messages=messages, pause=pause)
        beside = await deliver(url, members=members, stalled=stalled, messages=messages, pause=pause)
        found.append((free, beside))
    ratio = statistics.median(beside.p99 / free.p99 for free, beside in found)
    shown = ", ".join(f"{1000 * beside.p99:.0f}/{1000 * free.p99:.0f} ms" for free, beside in found)
    sys.stdout.write(f"{stalled} of {members} stop reading: the others' p99 is {ratio:.2f}x ({shown})\n")
    return found


async def deliver(
    url: str, *, members: int, stalled: int, messages: int, pause: float, protocol: str | None = SUBPROTOCOL
) -> Delivery:
    """Send `messages`, one each `pause` seconds, while `stalled` of the members do not read; then let those resume."""
    found = Delivery()
    async with AsyncExitStack() as stack, trio.open_nursery() as nursery:
        silent = [await stack.enter_async_context(_member(url, protocol)) for _ in range(stalled)]
        for line, _ in silent:
            line.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for number in range(members - stalled):
            line, _ = await stack.enter_async_context(_member(url, protocol))
            nursery.start_soon(*((_time, line, found.delays) if number < TIMED else (_drain, line)))
        sender, joined = await stack.enter_async_context(_member(url, protocol))
        sent: dict[str, dict[str, str]] = {}
        nursery.start_soon(*((_drain, sender) if protocol is None else (_repeat, sender, sent)))
        nursery.start_soon(_send, sender, messages, pause, None if protocol is None else sent)
        await _wait_for(found.delays, TIMED * messages)
        found.share = len(found.delays) / (TIMED * messages)
        if protocol is not None:
            with trio.move_on_after(RESUME):
                async with trio.open_nursery() as returning:
                    for line, start in silent:
                        returning.start_soon(_resume, url, line, start, joined["from"] + messages, found)
        nursery.cancel_scope.cancel()
    return found


@asynccontextmanager
async def _member(url: str, protocol: str | None) -> AsyncIterator[tuple[RawWebsocket, dict[str, Any]]]:
    async with open_raw(url, protocol=protocol, limit=30) as line:
        if protocol is not None:
            await line.send({"type": "join", "room": "lobby", "ref": "r"})
        yield line, await line.expect("joined") if protocol is not None else {}


async def _send(sender: RawWebsocket, messages: int, pause: float, sent: dict[str, dict[str, str]] | None) -> None:
    """Send texts, or frames that are kept in `sent` by their ids."""
    for _ in range(messages):
        text = f"{time.perf_counter()} {LONG}"
        if sent is None:
            await sender.send(text)
        else:
            sent[text[:32]] = {"type": "send", "room": "lobby", "id": text[:32], "text": text}
            await sender.send(sent[text[:32]])
        await trio.sleep(pause)


async def _repeat(sender: RawWebsocket, sent: dict[str, dict[str, str]]) -> None:
    """Send again what was answered `unavailable`, as a client does: on a busy machine a commit may take seconds."""
    while True:
        data = await sender.receive()
        if data.startswith('{"type":"error"'):
            answer = json.loads(data)
            assert answer["retryable"], answer
            await sender.send(sent[answer["id"]])


async def _wait_for(delays: Sized, count: int) -> None:
    """Wait until so many deliveries are there, or until there are no more."""
    seen, since = 0, trio.current_time()
    while seen < count and trio.current_time() - since < PATIENCE:
        await trio.sleep(0.02)
        if len(delays) > seen:
            seen, since = len(delays), trio.current_time()


async def _time(line: RawWebsocket, delays: list[tuple[float, float]]) -> None:
    while True:
        data = await line.receive()
        if text := data if data[0] != "{" else data.partition('"text":"')[2]:
            now = time.perf_counter()
            delays.append((now, now - float(text.partition(" ")[0])))


async def _drain(line: RawWebsocket) -> None:
    while await line.stream.receive_some(1 << 20):
        pass


async def _resume(url: str, line: RawWebsocket, start: dict[str, Any], head: int, found: Delivery) -> None:
    """Read what still comes, then go on where that ended. Complete: each message once, in order."""
    got: list[int] = []
    try:
        while not got or got[-1] < head:
            got.append((await line.expect("message"))["seq"])
    except Closed as closed:
        found.let_go += closed.code in LET_GO
        last = got[-1] if got else start["from"]
        async with open_raw(url, limit=30) as again:
            since = {"epoch": start["epoch"], "seq": last}
            await again.send({"type": "join", "room": "lobby", "ref": "r", "since": since})
            got += [(await again.expect("message"))["seq"] for _ in range(head - last)]
    found.complete += got == list(range(start["from"] + 1, head + 1))
