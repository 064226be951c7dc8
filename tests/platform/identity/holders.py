"""`python -m tests.platform.identity.holders HOST PORT COUNT COOKIE`: many websockets of one session.

In a process of their own, as they must not take the processor from whoever measures. Prints a line when all are open,
and at the end of all of them their codes and when each ended, by the system's monotonic clock.
"""

import json
import os
import selectors
import socket
import sys
import time

HEAD = (
    "GET /feed HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nCookie: {cookie}\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CLOSE = 0x88


def opened(host: str, port: int, cookie: str) -> socket.socket:
    client = socket.create_connection((host, port))
    client.sendall(HEAD.format(host=host, port=port, cookie=cookie).encode())
    got = b""
    while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < 2:  # and the first frame
        got += client.recv(4096)
    assert b" 101 " in got.partition(b"\r\n")[0], got
    return client


def main(host: str, port: int, count: int, cookie: str) -> None:
    selector = selectors.DefaultSelector()
    for _ in range(count):
        selector.register(opened(host, port, cookie), selectors.EVENT_READ)
    os.nice(19)  # also where there are fewer processors than processes
    print("open", flush=True)
    codes: dict[int, int] = {}
    moments: list[float] = []
    while len(moments) < count:
        for key, _ in selector.select():
            client = key.fileobj
            assert isinstance(client, socket.socket)
            frame = client.recv(4096)
            code = int.from_bytes(frame[2:4]) if frame[:1] == bytes([CLOSE]) else 1006
            codes[code] = codes.get(code, 0) + 1
            moments.append(time.monotonic())
            if frame:
                client.sendall(bytes([CLOSE, 0x82, 0, 0, 0, 0]) + frame[2:4])
            selector.unregister(client)
            client.close()
    print(json.dumps({"codes": codes, "moments": moments}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
