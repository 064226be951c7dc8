"""What a parent and a child tell each other: a JSON object a line over a pair of sockets, and descriptors."""

import json
import socket
from typing import Any

type Message = dict[str, Any]

_MOST = 1 << 20


class Channel:
    """The child's end. It blocks: a child asks while it starts, and at a breakpoint, when nothing else is to go on."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._read = b""
        self._descriptors: list[int] = []

    def tell(self, **message: Any) -> None:
        self._socket.sendall(encode(message))

    def receive(self) -> tuple[Message, list[int]]:
        """Return the parent's next message and its descriptors. Raises EOFError when the parent is gone."""
        while b"\n" not in self._read:
            part, descriptors, _, _ = socket.recv_fds(self._socket, _MOST, 1)
            if not part:
                raise EOFError("the parent is gone")
            self._read += part
            self._descriptors += descriptors
        line, _, self._read = self._read.partition(b"\n")
        descriptors, self._descriptors = self._descriptors, []
        return json.loads(line), descriptors

    def ask(self, want: str, **more: Any) -> tuple[Message, list[int]]:
        self.tell(want=want, **more)
        return self.receive()


def encode(message: Message) -> bytes:
    return json.dumps(message).encode() + b"\n"
