"""The chat's part of `service smoke`: what one replica was told comes out of another; and its client."""

import uuid
from collections.abc import AsyncIterator, Sequence
from typing import Any

import trio

from service.platform.client import PATIENCE, Address, ClosedError, SmokeError, WebsocketClient, connect

UNAUTHENTICATED = 401
ROOM = "smoke"  # kept apart from where people write


async def smoke(addresses: Sequence[Address], host: str) -> AsyncIterator[str]:
    """Yield a line for each replica that passed on to the next what it was told; raises SmokeError otherwise."""
    for told, other in zip(addresses, [*addresses[1:], *addresses[:1]], strict=True):
        try:
            await _cross(told, other, host)
        except ClosedError as error:
            if error.code == UNAUTHENTICATED:
                yield f"skip  {told[0]}:{told[1]} wants a token, so no message was sent"
                continue
            raise SmokeError(f"{told[0]}:{told[1]} or {other[0]}:{other[1]}: {error}") from error
        yield f"ok    a message sent to {told[0]}:{told[1]} came out of {other[0]}:{other[1]}"


async def _cross(told: Address, other: Address, host: str) -> None:
    """Send a message to one replica, and wait for its ack there and for itself from the other."""
    message = {"type": "send", "room": ROOM, "id": f"smoke-{uuid.uuid4()}", "text": "smoke test"}
    async with (
        connect(other) as there,
        connect(told) as here,
        Chat(there, host) as listener,
        Chat(here, host) as sender,
    ):
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
