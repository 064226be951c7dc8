"""A websocket client of a few lines: cheap enough for thousands of members on one core, and it closes what it opens."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import trio
from wsproto.frame_protocol import CloseReason

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
LENGTH = re.compile(r"(?im)^content-length: *(\d+)")


class UpgradeRefused(Exception):
    """The upgrade was answered with another status than 101."""

    def __init__(self, status: int, head: str, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        self.head = head
        self.body = body


class Closed(Exception):
    """The connection has ended: with a code, or 1006 without a word."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code
        self.reason = reason


class RawWebsocket:
    """An open websocket; `send` and `receive` belong to one task each."""

    def __init__(self, stream: trio.SocketStream, buffer: bytearray, head: str) -> None:
        self.stream = stream
        self.head = head
        self.watch: Callable[[bool, str], object] = lambda *_: None  # is shown each text, and whether it was sent
        self._buffer = buffer
        self._sending = trio.Lock()

    async def send(self, data: str | dict[str, Any]) -> None:
        text = data if isinstance(data, str) else json.dumps(data)
        self.watch(True, text)
        await self.send_frame(TEXT, text.encode())

    async def send_frame(self, opcode: int, payload: bytes) -> None:
        """Send one frame, masked with zeros, which a server cannot tell from any other mask."""
        length = len(payload)
        if length < 126:
            size = bytes((0x80 | length,))
        else:
            size = b"\xfe" + length.to_bytes(2) if length < 1 << 16 else b"\xff" + length.to_bytes(8)
        try:
            async with self._sending:
                await self.stream.send_all(bytes((0x80 | opcode,)) + size + b"\0\0\0\0" + payload)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Closed(CloseReason.ABNORMAL_CLOSURE) from None

    async def receive(self) -> str:
        """Return the next text. Raises Closed."""
        while True:
            opcode, payload = await self._receive_frame()
            if opcode == TEXT:
                self.watch(False, text := payload.decode())
                return text
            if opcode == PING:
                await self._answer(PONG, payload)
            elif opcode == CLOSE:
                await self._answer(CLOSE, payload[:2])
                raise Closed(
                    int.from_bytes(payload[:2]) if payload else CloseReason.NO_STATUS_RCVD, payload[2:].decode()
                )

    async def _answer(self, opcode: int, payload: bytes) -> None:
        """Send a frame if the peer takes any more: what it sent before it went is read all the same."""
        with suppress(Closed):
            await self.send_frame(opcode, payload)

    async def frame(self) -> dict[str, Any]:
        """Return the next text as the JSON object that it is."""
        frame: dict[str, Any] = json.loads(await self.receive())
        return frame

    async def expect(self, kind: str) -> dict[str, Any]:
        """Return the next frame of a type; what comes before is skipped."""
        while (frame := await self.frame())["type"] != kind:
            pass
        return frame

    async def _receive_frame(self) -> tuple[int, bytes]:
        await self._fill(2)
        opcode, length = self._buffer[0] & 0x0F, self._buffer[1]
        start = 2
        if length >= 126:
            start = 4 if length == 126 else 10
            await self._fill(start)
            length = int.from_bytes(self._buffer[2:start])
        await self._fill(start + length)
        payload = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        return opcode, payload

    async def _fill(self, size: int) -> None:
        if len(self._buffer) >= size:
            return
        try:
            while len(self._buffer) < size:
                data = await self.stream.receive_some(65_536)
                if not data:
                    raise Closed(CloseReason.ABNORMAL_CLOSURE)
                self._buffer += data
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Closed(CloseReason.ABNORMAL_CLOSURE) from None


@asynccontextmanager
async def open_raw(
    url: str, path: str, *, protocol: str | None = None, headers: str = "", limit: float = 10
) -> AsyncIterator[RawWebsocket]:
    """Open a websocket at `url` within `limit` seconds. Raises UpgradeRefused, Closed, OSError, TooSlowError."""
    where = urlsplit(url)
    with trio.fail_after(limit):
        stream = await trio.open_tcp_stream(where.hostname or "", where.port or 80)
    try:
        with trio.fail_after(limit):
            line = await _upgrade(stream, where.netloc, path, protocol, headers)
        yield line
        with trio.move_on_after(0.5), suppress(Closed):
            await line.send_frame(CLOSE, CloseReason.NORMAL_CLOSURE.to_bytes(2))
    finally:
        await trio.aclose_forcefully(stream)


async def _upgrade(stream: trio.SocketStream, host: str, path: str, protocol: str | None, headers: str) -> RawWebsocket:
    offer = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    try:
        await stream.send_all(
            f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}{headers}\r\n".encode()
        )
        buffer = bytearray()
        while b"\r\n\r\n" not in buffer:
            data = await stream.receive_some(65_536)
            if not data:
                raise Closed(CloseReason.ABNORMAL_CLOSURE)
            buffer += data
    except trio.BrokenResourceError:
        raise Closed(CloseReason.ABNORMAL_CLOSURE) from None
    raw, _, rest = bytes(buffer).partition(b"\r\n\r\n")
    head = raw.decode("latin1")
    status = int(head.split(" ", 2)[1])
    if status != 101:
        body = await _body(stream, head, rest)
        raise UpgradeRefused(status, head, body.decode(errors="replace"))
    return RawWebsocket(stream, bytearray(rest), head)


async def _body(stream: trio.SocketStream, head: str, begun: bytes) -> bytes:
    """Return the body of an answer, as much as comes of what its head says; it may come later than that."""
    length = LENGTH.search(head)
    with suppress(trio.BrokenResourceError):
        while length and len(begun) < int(length[1]) and (data := await stream.receive_some(65_536)):
            begun += data
    return begun
