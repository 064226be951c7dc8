"""Clients that speak bytes, because those that speak HTTP or websockets behave too well."""

import ctypes
import os
import socket
import struct
from collections.abc import Iterable

import trio

UPGRADE = (
    b"GET %b HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%b\r\n"
)

SO_ATTACH_FILTER = 26  # asm-generic/socket.h; the socket module does not name it
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA


def get(path: str, *, version: str = "1.1", headers: Iterable[str] = ()) -> bytes:
    """Return a GET request."""
    lines = [f"GET {path} HTTP/{version}", "Host: x", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """Return a client's frame."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    mask_bit = 0x80 if masked else 0
    if len(payload) < 126:
        header = bytes((first, mask_bit | len(payload)))
    elif len(payload) < 1 << 16:
        header = bytes((first, mask_bit | 126)) + struct.pack("!H", len(payload))
    else:
        header = bytes((first, mask_bit | 127)) + struct.pack("!Q", len(payload))
    if not masked:
        return header + payload
    mask = os.urandom(4)
    key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)])
    return header + mask + (int.from_bytes(payload) ^ key).to_bytes(len(payload))


class Reader:
    """Reads frames and responses from a stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._buffer = bytearray()

    async def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError(bytes(self._buffer))
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    async def until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError(bytes(self._buffer))
            self._buffer += data
        return await self.exactly(self._buffer.index(mark) + len(mark))

    async def response(self) -> tuple[int, bytes, bytes]:
        """Return status, head and body of a response with a content length."""
        head = await self.until(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        return int(head.split()[1]), head, await self.exactly(length)

    async def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of a server's frame."""
        first, length = await self.exactly(2)
        if length == 126:
            length = int.from_bytes(await self.exactly(2))
        elif length == 127:
            length = int.from_bytes(await self.exactly(8))
        return first & 0x0F, await self.exactly(length)

    async def close_code(self) -> int:
        """Skip to the close frame and return its code; 1005 when it has none. EOFError without one."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2]) if payload else 1005

    async def rest(self) -> bytes:
        """Return everything up to the end."""
        while data := await self.stream.receive_some():
            self._buffer += data
        return bytes(self._buffer)


async def upgrade(stream: trio.SocketStream, path: str = "/echo", headers: bytes = b"") -> Reader:
    """Open a websocket on a connection."""
    await stream.send_all(UPGRADE % (path.encode(), headers))
    reader = Reader(stream)
    head = await reader.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101"), head
    return reader


async def stalled(port: int, request: bytes) -> trio.SocketStream:
    """Return a client that asks and never reads; its receive buffer is small, so that little gets out of sight."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await sock.connect(("127.0.0.1", port))
    stream = trio.SocketStream(sock)
    await stream.send_all(request)
    return stream


def vanish(stream: trio.SocketStream) -> None:
    """Have the kernel drop whatever comes for this socket, acknowledging nothing: as if the cable were cut."""
    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # one instruction: keep 0 bytes
    program = struct.pack("HL", 1, ctypes.addressof(drop_all))
    stream.socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
