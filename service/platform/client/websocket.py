"""A websocket as a client holds one: wsproto over a Trio stream, a JSON object per text frame, and nothing else."""

import json
from collections import deque
from contextlib import suppress
from typing import Any, Self

import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Event, Message, Ping, RejectConnection, Request
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

CLOSE_WAIT = 0.5  # seconds for the peer's answer to our close


class ClosedError(Exception):
    """The websocket was refused (an HTTP status) or closed (a close code; 1006 without one)."""

    def __init__(self, code: int) -> None:
        super().__init__(
            f"the websocket was closed with {code}"
            if code >= CloseReason.NORMAL_CLOSURE
            else f"refused with status {code}"
        )
        self.code = code


class WebsocketClient:
    """One websocket. `receive` is for one task; `send` may be called by any; leaving `async with` is the goodbye.

    A goodbye takes at most CLOSE_WAIT seconds, whatever has ended it. The stream is closed by whoever opened it.
    """

    def __init__(self, stream: trio.abc.Stream, host: str) -> None:
        self.patience = float("inf")  # seconds for which the peer, its pings included, may be silent
        self._stream = stream
        self._host = host
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._writing = trio.Lock()
        self._received: deque[dict[str, Any]] = deque()
        self._text = ""
        self._closed: ClosedError | None = None
        self._torn = False  # what was written last may end within a frame

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close with 1000, or answer the peer's close, and wait for its answer to ours (RFC 6455, 7.1.1)."""
        open_ = self._connection.state in {ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING}
        if not open_ or self._torn:
            return
        code = CloseReason.NORMAL_CLOSURE if self._closed is None else self._closed.code
        lost = (trio.BrokenResourceError, trio.ClosedResourceError, LocalProtocolError, RemoteProtocolError)
        with trio.move_on_after(CLOSE_WAIT, shield=True), suppress(*lost):
            await self._write(CloseConnection(code=code))
            while self._connection.state is not ConnectionState.CLOSED:
                self._connection.receive_data(bytes(await self._stream.receive_some()) or None)
                for _event in self._connection.events():
                    pass  # it is read for the state: what still comes is nobody's

    async def request(self, target: str, *, subprotocol: str, token: str = "") -> None:
        """Ask for the upgrade, with an access token if there is one; what came of it shows at `receive`."""
        headers = [(b"Authorization", f"Bearer {token}".encode())] if token else []
        request = Request(host=self._host, target=target, subprotocols=[subprotocol], extra_headers=headers)
        await self._write(request)

    async def send(self, frame: dict[str, Any]) -> None:
        """Send a frame; raises ClosedError once the peer has closed, also before `receive` has told so."""
        await self.send_text(json.dumps(frame))

    async def send_text(self, text: str) -> None:
        """Send a frame that is encoded already."""
        if self._closed is not None:
            raise self._closed
        try:
            await self._write(Message(data=text))
        except LocalProtocolError:
            raise self._ending() from None

    async def receive(self) -> dict[str, Any]:
        """Return the next frame; raises ClosedError, and trio.TooSlowError after `patience` without a sign of life."""
        while not self._received:
            if self._closed is not None:
                raise self._closed
            with trio.fail_after(self.patience):
                data = bytes(await self._stream.receive_some())
            try:
                self._connection.receive_data(data or None)  # None is the end of the stream
                for event in self._connection.events():
                    await self._handle(event)
            except (LocalProtocolError, RemoteProtocolError):  # a fault of the peer's, or an answer that came too late
                self._closed = self._ending()
        return self._received.popleft()

    def _ending(self) -> ClosedError:
        """Return how it was closed, as far as that is known by now."""
        return ClosedError(CloseReason.ABNORMAL_CLOSURE) if self._closed is None else self._closed

    async def _handle(self, event: Event) -> None:
        match event:
            case RejectConnection():
                self._closed = ClosedError(event.status_code)
            case CloseConnection():
                self._closed = ClosedError(event.code)  # raised once what came before it has been read
            case Ping():
                await self._write(event.response())
            case Message():
                self._text += event.data
                if event.message_finished:
                    self._received.append(json.loads(self._text))
                    self._text = ""

    async def _write(self, event: Event) -> None:
        async with self._writing:
            data = self._connection.send(event)
            self._torn = True
            await self._stream.send_all(data)
            self._torn = False
