"""Connects where a name server of our own is the only one: a program for `unshare`, run by test_names.py.

The server gives known.test an address, knows of no other name, and says nothing of silent.test.
"""

import fcntl
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from typing import Any

import trio

from service.platform.database.wire import ConnectFailed, connect

SIOCSIFFLAGS, IFF_UP = 0x8914, 1
TYPE_A = 1


class NameServer:
    """Answers on a thread, for as long as the process lives."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:  # a new namespace has it down
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh", b"lo", IFF_UP))
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        while True:
            query, sender = self._socket.recvfrom(512)
            end = query.index(0, 12)
            name = ".".join(labels(query))
            kind = int.from_bytes(query[end + 1 : end + 3])
            self.asked.append(f"{name} {kind}")
            if name != "silent.test":
                self._socket.sendto(answer(query, name, kind, end + 5), sender)


def labels(query: bytes) -> Iterator[str]:
    at = 12
    while length := query[at]:
        yield query[at + 1 : at + 1 + length].decode()
        at += 1 + length


def answer(query: bytes, name: str, kind: int, end: int) -> bytes:
    records = int(name == "known.test" and kind == TYPE_A)
    status = 0 if name == "known.test" else 3
    address = struct.pack(">HHHIH4s", 0xC00C, TYPE_A, 1, 60, 4, socket.inet_aton("127.0.0.1")) * records
    header = query[:2] + struct.pack(">HHHHH", 0x8180 | status, 1, records, 0, 0)
    return header + query[12:end] + address


async def connect_again_and_again(*, times: int, within: float, **parameters: str) -> dict[str, Any]:
    said = []
    for _ in range(times):
        try:
            pgconn = await connect(parameters, within=within)
        except ConnectFailed as failed:
            said.append(str(failed))
        else:
            pgconn.finish()
            said.append("connected")
    return {"said": said, "threads": trio.to_thread.current_default_thread_limiter().borrowed_tokens}


async def main() -> None:
    server = NameServer()
    found = await connect_again_and_again(**json.loads(sys.argv[1]))
    sys.stdout.write(json.dumps({**found, "asked": server.asked}))


if __name__ == "__main__":
    trio.run(main)
