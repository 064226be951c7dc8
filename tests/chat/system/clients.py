"""Members that behave as a client should: resume on a random replica, resend what is not acked, write down all."""

import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from service.platform.errors import leaves
from service.platform.testing.wire import Closed, RawWebsocket, UpgradeRefused
from tests.chat.frames import open_raw
from tests.chat.system.checker import Acked, Got, History, Joined

PING = 0.5  # seconds between two pings, so that something comes
SILENT = 2.5  # seconds of silence after which the line is given up
TEXTS = (
    "hello",
    "é\u0301\u200d",
    "𝄞🎶👩\u200d👩\u200d👧",
    "a\nb\tc\\\"'%s{}",
    "\u2028\u2029\x01\x7f",
    "x" * 3_900,
    "<b>&amp;</b>",
)


@dataclass
class Member:
    """One client: joins the rooms, sends a message each `pause` seconds (0: none), and reconnects whatever happens."""

    name: str
    rooms: Sequence[str]
    urls: Callable[[], Sequence[str]]
    random: Random
    history: History
    pause: float = 0
    cursors: dict[str, tuple[str, int]] = field(default_factory=dict)
    unacked: dict[tuple[str, str], str] = field(default_factory=dict)
    closes: Counter[int] = field(default_factory=Counter)
    byes: list[dict[str, Any]] = field(default_factory=list)
    returned: list[tuple[float, dict[str, Any]]] = field(default_factory=list)  # from which bye to the try let in, s
    refusals: list[int] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stalled: bool = False  # while True it does not read
    detour: str | None = None  # where it connects instead of at a replica
    _numbers: int = 0
    _said_bye: tuple[float, dict[str, Any]] | None = None
    _line: RawWebsocket | None = None

    async def run(self, writing: Callable[[], bool]) -> None:
        while True:
            try:
                await self._connect_once(writing)
            except* (Closed, UpgradeRefused, OSError, trio.TooSlowError) as group:
                self._note(group)
            await trio.sleep(self._patience())

    def complete(self, heads: dict[str, int]) -> bool:
        return not self.unacked and all(self.cursors.get(room, ("", -1))[1] == heads[room] for room in self.rooms)

    def reset(self) -> None:
        """End the connection with a RST, as a crashing client does; it comes back like after any other end."""
        if self._line is not None and self._line.stream.socket.fileno() >= 0:
            self._line.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._line.stream.socket.close()

    def _patience(self) -> float:
        if self._said_bye is not None:
            low, high = self._said_bye[1]["reconnect_after_ms"]
            return self.random.uniform(low, high) / 1000
        return self.random.uniform(0.05, 0.4)

    async def _connect_once(self, writing: Callable[[], bool]) -> None:
        url, begun = self.detour or self.random.choice(self.urls()), trio.current_time()
        async with open_raw(url, f"/ws?name={self.name}", limit=2.5) as line:
            self._line = line
            if self._said_bye is not None:
                self.returned.append((begun - self._said_bye[0], self._said_bye[1]))
                self._said_bye = None
            for room in self.rooms:
                await self._join(line, room)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ping, line)
                if self.pause or self.unacked:
                    nursery.start_soon(self._write, line, writing)
                await self._read(line, nursery)

    async def _join(self, line: RawWebsocket, room: str) -> None:
        since = self.cursors.get(room)
        asked = {"epoch": since[0], "seq": since[1]} if since else {"seq": 0}
        await send(line, type="join", room=room, ref=room, since=asked)

    async def _ping(self, line: RawWebsocket) -> None:
        while True:
            await trio.sleep(PING)
            await send(line, type="ping", t=1)

    async def _write(self, line: RawWebsocket, writing: Callable[[], bool]) -> None:
        for (room, id_), text in list(self.unacked.items()):  # of an earlier connection, and not acked there
            await send(line, type="send", room=room, id=id_, text=text)
        while self.pause and writing():
            await trio.sleep(self.random.uniform(0.5, 1.5) * self.pause)
            await self._send_new(line)

    async def _send_new(self, line: RawWebsocket) -> None:
        self._numbers += 1
        room, id_ = self.random.choice(self.rooms), f"{self.name}-{self._numbers}"
        text = f"{self.random.choice(TEXTS)} {self._numbers}"
        self.history.sent[room, id_] = self.unacked[room, id_] = text
        await send(line, type="send", room=room, id=id_, text=text)

    async def _read(self, line: RawWebsocket, nursery: trio.Nursery) -> None:
        while True:
            while self.stalled:
                await trio.sleep(0.05)
            with trio.fail_after(SILENT):
                frame = await line.frame()
            match frame["type"]:
                case "joined":
                    self._take_joined(frame)
                case "message":
                    self._take_message(frame)
                case "ack":
                    self.unacked.pop((frame["room"], frame["id"]), None)
                    keys = ("room", "id", "epoch", "seq", "dup")
                    self.history.acks.append(Acked(*(frame[key] for key in keys)))
                case "error":
                    nursery.start_soon(self._take_error, line, frame)
                case "bye":
                    self.byes.append(frame)
                    self._said_bye = trio.current_time(), frame

    def _take_joined(self, frame: dict[str, Any]) -> None:
        room = frame["room"]
        joined = Joined(room, self.cursors.get(room), frame["epoch"], frame["from"], frame["gap"])
        self.history.members.setdefault(self.name, []).append(joined)
        self.cursors[room] = joined.epoch, joined.start

    def _take_message(self, frame: dict[str, Any]) -> None:
        got = Got(frame["room"], frame["epoch"], frame["seq"], frame["id"], frame["text"])
        self.history.members.setdefault(self.name, []).append(got)
        self.cursors[got.room] = got.epoch, got.seq

    async def _take_error(self, line: RawWebsocket, frame: dict[str, Any]) -> None:
        if not frame["retryable"]:
            self.wrong.append(f"{self.name}: {frame}")
            return
        await trio.sleep(frame.get("retry_after_ms", 200) / 1000)
        if "ref" in frame:
            await self._join(line, frame["ref"])
        for (room, id_), text in list(self.unacked.items()):
            if id_ == frame.get("id"):
                await send(line, type="send", room=room, id=id_, text=text)

    def _note(self, group: BaseExceptionGroup[Exception]) -> None:
        for error in leaves(group):
            if isinstance(error, Closed):
                self.closes[error.code] += 1
            elif isinstance(error, UpgradeRefused):
                self.refusals.append(error.status)


async def send(line: RawWebsocket, **frame: Any) -> None:
    await line.send(frame)
