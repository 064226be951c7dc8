"""Members over raw sockets, cheap enough that ten thousand of them are less work than what they measure."""

import json
import selectors
import socket
import time
from collections.abc import Iterable, Sequence

from bench.clients import source_of

MARK = b"^"  # in each text once, and in no other frame: nor is a frame as long as its code
TEXT = MARK.decode() + " a message of a usual length, as people write them to each other in a room"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Protocol: chat.v1\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SETTLED = 3.0  # seconds
PATIENCE = 30  # seconds until something is taken to hang


class Crowd:
    """Members of rooms of one or more replicas, numbered as they come; what is delivered is counted by MARK."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._sockets: list[socket.socket] = []
        self._sent = 0

    def __len__(self) -> int:
        return len(self._sockets)

    def join(self, port: int, rooms: Sequence[str], since: dict[str, object] | None = None) -> bytes:
        """Let another member join all of these rooms; return what came until it had, the frames and maybe more."""
        client = socket.socket()
        client.bind((source_of(len(self)), 0))
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", port))
        client.sendall(UPGRADE)
        _read_until(client, b"\r\n\r\n", 1)
        more: dict[str, object] = {"since": since} if since else {}
        client.sendall(b"".join(frame({"type": "join", "room": room, "ref": "r", **more}) for room in rooms))
        came = _read_until(client, b'"type":"joined"', len(rooms))
        client.setblocking(False)
        self._selector.register(client, selectors.EVENT_READ)
        self._sockets.append(client)
        return came

    def send(self, member: int, rooms: Iterable[str]) -> None:
        """Send a message to each of the rooms."""
        frames = []
        for room in rooms:
            self._sent += 1
            frames.append(frame({"type": "send", "room": room, "id": f"g{id(self)}-{self._sent}", "text": TEXT}))
        client = self._sockets[member]
        client.setblocking(True)
        client.sendall(b"".join(frames))
        client.setblocking(False)

    def receive(self, deliveries: int) -> None:
        """Read until all of them together have got so many messages. Raises TimeoutError."""
        while deliveries > 0:
            ready = self._selector.select(PATIENCE)
            if not ready:
                raise TimeoutError(f"{deliveries} deliveries are missing")
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                deliveries -= _take(key.fileobj).count(MARK)

    def settle(self) -> None:
        """Say something, as who is silent for 50 s is let go, and read what is there, until nothing comes or for 3 s.

        Among thousands there is always one that the service asks whether it is still there.
        """
        for client in self._sockets:
            client.setblocking(True)
            client.sendall(PONG)
            client.setblocking(False)
        limit = time.monotonic() + SETTLED
        while time.monotonic() < limit and (ready := self._selector.select(0.5)):
            for key, _ in ready:
                assert isinstance(key.fileobj, socket.socket)
                _take(key.fileobj)

    def close(self) -> None:
        self._selector.close()
        for client in self._sockets:
            client.close()


def frame(said: dict[str, object]) -> bytes:
    """Return a client's frame, masked with zeros."""
    text = json.dumps(said).encode()
    if len(text) < 126:
        return bytes((0x81, 0x80 | len(text))) + bytes(4) + text
    return bytes((0x81, 0x80 | 126)) + len(text).to_bytes(2) + bytes(4) + text


PONG = frame({"type": "pong", "t": 0})


def _take(client: socket.socket) -> bytes:
    """Return what is there, and say that this member is still there if it was asked."""
    came = client.recv(1 << 20)
    if not came:
        raise ConnectionError("the service has closed a member's websocket")
    if b'"type":"ping"' in came:
        client.sendall(PONG)
    return came


def _read_until(client: socket.socket, what: bytes, number: int) -> bytes:
    came = b""
    while came.count(what) < number:
        more = client.recv(1 << 16)
        if not more:
            raise ConnectionError(f"the service has closed a websocket: {came[-500:]!r}")
        came += more
    return came
