"""The tests' websocket where the chat is: at /ws, offering chat.v1 unless it is told otherwise."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from service.chat.protocol import SUBPROTOCOL
from service.platform.testing import wire
from service.platform.testing.wire import RawWebsocket


@asynccontextmanager
async def open_raw(
    url: str, path: str = "/ws", *, protocol: str | None = SUBPROTOCOL, **options: Any
) -> AsyncIterator[RawWebsocket]:
    """Open a websocket of the chat at `url`; as wire.open_raw, to which the options go."""
    async with wire.open_raw(url, path, protocol=protocol, **options) as socket:
        yield socket
