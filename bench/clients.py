"""Load over raw sockets: cheap, so that the server is what is busy. All of it in this one process and thread."""

import os
import selectors
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

PORTS = 5_000  # used of one address, of the 28,000 that Linux has by default
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def requests(port: int, request: bytes, number: int, connections: int = 16, *, status: bytes = b"20") -> float:
    """Send `number` requests, one at a time on each connection; return the seconds it took.

    Each is to be answered with the status, of which the beginning is enough.
    """
    selector = selectors.DefaultSelector()
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    left = number
    started = time.perf_counter()
    for client in sockets:
        selector.register(client, selectors.EVENT_READ)
        client.sendall(request)
    waiting = connections
    left -= connections
    while waiting:
        for key, _ in selector.select():
            answering = key.fileobj
            assert isinstance(answering, socket.socket)
            answer = _response(answering)
            assert answer.startswith(b"HTTP/1.1 " + status), answer
            if left > 0:
                left -= 1
                answering.sendall(request)
            else:
                waiting -= 1
    took = time.perf_counter() - started
    for client in sockets:
        client.close()
    return took


def each(port: int, requests: Sequence[bytes], connections: int = 8) -> None:
    """Send each of the requests once, over as many connections."""
    sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(connections)]
    for first in range(0, len(requests), connections):
        asking = list(zip(sockets, requests[first : first + connections], strict=False))
        for client, request in asking:
            client.sendall(request)
        for client, _ in asking:
            answer = _response(client)
            assert answer.startswith(b"HTTP/1.1 200"), answer
    for client in sockets:
        client.close()


def latencies(port: int, request: bytes, number: int) -> list[float]:
    """Send `number` requests one after the other; return the seconds that each answer took."""
    taken = []
    with socket.create_connection(("127.0.0.1", port)) as client:
        for _ in range(number):
            started = time.perf_counter()
            client.sendall(request)
            _response(client)
            taken.append(time.perf_counter() - started)
    return taken


@contextmanager
def stalled(port: int, request: bytes, number: int) -> Iterator[None]:
    """Have `number` peers ask for something long and read nothing of it, for the length of the block."""
    with ExitStack() as stack:
        for _ in range(number):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(request)
        time.sleep(0.5)
        yield


def _response(client: socket.socket) -> bytes:
    answer = client.recv(65_536)
    while b"\r\n\r\n" not in answer:
        answer += client.recv(65_536)
    head, _, body = answer.partition(b"\r\n\r\n")
    marker = head.lower().index(b"content-length:")
    length = int(head[marker:].partition(b"\r\n")[0].split(b":")[1])
    while len(body) < length:
        body += client.recv(65_536)
    return answer


class Members:
    """Websockets that read, or do not."""

    def __init__(self, port: int, number: int, *, stalled: int = 0) -> None:
        self.selector = selectors.DefaultSelector()
        self.sockets = [_join(port, source=source_of(one)) for one in range(number)]
        self.stalled = [_join(port, receive_buffer=4096) for _ in range(stalled)]
        for client in self.sockets:
            client.setblocking(False)
            self.selector.register(client, selectors.EVENT_READ)

    def send(self, text: bytes) -> None:
        """Send a text of fewer than 126 bytes from one of them."""
        self.sockets[0].setblocking(True)
        self.sockets[0].sendall(bytes((0x81, 0x80 | len(text))) + bytes(4) + text)
        self.sockets[0].setblocking(False)

    def receive(self, total: int) -> None:
        """Read until all of them together have read so many bytes."""
        while total > 0:
            for key, _ in self.selector.select(10):
                total -= len(os.read(key.fd, 1 << 20))

    def close(self) -> None:
        self.selector.close()
        for client in self.sockets + self.stalled:
            client.close()


def source_of(number: int) -> str:
    """Return the address that the connection of this number comes from: an address has only so many ports."""
    return f"127.0.0.{1 + number // PORTS}"


def _join(port: int, receive_buffer: int = 0, source: str = "127.0.0.1") -> socket.socket:
    client = socket.socket()
    client.bind((source, 0))
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", port))
    client.sendall(UPGRADE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    assert b" 101 " in head, head
    return client
