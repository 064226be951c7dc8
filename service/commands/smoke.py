"""`service smoke`, for `helm test`: every replica behind a name answers, and one passes on what another was told.

A client of its own, small enough to read: it checks the service by what is on the wire, not by the service's code.
"""

import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import SplitResult, urlsplit

import trio

from service.commands.websocket_client import ClosedError, WebsocketClient

PROBES = ("/livez", "/readyz", "/healthz")
ROOM = "smoke"  # kept apart from where people write
PATIENCE = 10  # seconds for one answer
DISCOVERY = 15  # seconds until as many replicas as promised have an address


type Address = tuple[str, int]


class SmokeError(Exception):
    """What did not work, with the address of the replica that it did not work on."""


async def smoke(urls: Sequence[str], *, replicas: int, host: str = "", health_only: bool = False) -> AsyncIterator[str]:
    """Yield a line for each thing that works; raises SmokeError for the first that does not.

    `urls` lead to the replicas one by one, as the name of a headless Service does. `host` is sent as Host.
    """
    host = host or urlsplit(urls[0]).netloc
    addresses = await _find([urlsplit(url) for url in urls], replicas)
    for address in addresses:
        for probe in PROBES:
            await _get(address, host, probe)
        yield f"ok    {address[0]}:{address[1]} answers {' '.join(PROBES)}"
    if health_only:
        return
    for told, other in zip(addresses, addresses[1:] + addresses[:1], strict=True):
        await _cross(told, other, host)
        yield f"ok    a message sent to {told[0]}:{told[1]} came out of {other[0]}:{other[1]}"


async def _find(places: Sequence[SplitResult], replicas: int) -> list[Address]:
    """Return the addresses behind the names, once there are at least as many as wanted."""
    names = ", ".join(place.netloc for place in places)
    found: list[Address] = []
    reason = ""
    with trio.move_on_after(DISCOVERY):
        while True:
            try:
                found = sorted({address for place in places for address in await _resolve(place)})
            except OSError as error:
                reason = f": {error}"
            if len(found) >= replicas:
                return found
            await trio.sleep(1)
    raise SmokeError(f"{names} leads to {len(found)} replicas, and {replicas} were promised{reason}")


async def _resolve(place: SplitResult) -> list[Address]:
    infos = await trio.socket.getaddrinfo(place.hostname, place.port or 80, type=socket.SOCK_STREAM)
    return [(str(info[4][0]), int(info[4][1])) for info in infos]


@asynccontextmanager
async def _connect(address: Address) -> AsyncIterator[trio.SocketStream]:
    try:
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream(*address)
    except (OSError, trio.TooSlowError) as error:
        raise SmokeError(f"{address[0]}:{address[1]} takes no connection: {str(error) or 'too slow'}") from error
    async with stream:
        try:
            yield stream
        except (trio.BrokenResourceError, trio.TooSlowError) as error:
            raise SmokeError(f"{address[0]}:{address[1]} did not answer within {PATIENCE} s, or hung up") from error
        except ClosedError as error:
            raise SmokeError(f"{address[0]}:{address[1]}: {error}") from error


async def _get(address: Address, host: str, path: str) -> None:
    async with _connect(address) as stream:
        with trio.fail_after(PATIENCE):
            await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join([part async for part in stream])
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split(b"\r\n")[0].decode(errors="replace")
    if not status.startswith("HTTP/1.1 200"):
        raise SmokeError(f"{address[0]}:{address[1]}{path} says {status!r}: {body[:200].decode(errors='replace')}")


async def _cross(told: Address, other: Address, host: str) -> None:
    """Send a message to one replica, and wait for its ack there and for itself from the other."""
    message = {"type": "send", "room": ROOM, "id": f"smoke-{uuid.uuid4()}", "text": "smoke test"}
    async with _connect(other) as there, _connect(told) as here:
        listener, sender = Chat(there, host), Chat(here, host)
        with trio.fail_after(PATIENCE):
            for chat in (listener, sender):
                await chat.open(name="smoke")
                await chat.send({"type": "join", "room": ROOM, "ref": "smoke"})
                await chat.wait_for("joined")
            await sender.send(message)
            await sender.wait_for("ack", id=message["id"])
            await listener.wait_for("message", id=message["id"])


class Chat(WebsocketClient):
    """One websocket that speaks chat.v1: only as much of it as it takes to try a service from outside."""

    async def open(self, *, name: str) -> None:
        await self.request(f"/ws?name={name}", subprotocol="chat.v1")
        await self.wait_for("hello")

    async def receive(self) -> dict[str, Any]:
        """Return the next frame; raises ClosedError, and SmokeError for an error that the service reports."""
        frame = await super().receive()
        if frame["type"] == "error":
            raise SmokeError(f"{frame['code']}: {frame['message']}")
        return frame

    async def wait_for(self, type_: str, **fields: str) -> dict[str, Any]:
        """Skip frames until one of this type with these fields comes."""
        wanted = {"type": type_, **fields}
        while not wanted.items() <= (frame := await self.receive()).items():
            pass
        return frame
