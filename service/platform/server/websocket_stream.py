"""One websocket between the protocol and the app: limits, the closing handshake, and the way to the outbox.

Theory of operation. The states are Hypercorn's ASGIWebsocketState, and beside them three facts of ours:

    HANDSHAKE   the request is with the app, which accepts, refuses with a response, or fails (500)
    CONNECTED   frames go both ways, until one side says goodbye:
                  ours    `_say_close` writes a close frame                                   -> CLOSED
                  theirs  `_take_close` answers later: what came before is still handled, at most LAST_MESSAGES
                  none    the connection ends without a word (`_end`)                          -> CLOSED, 1006
    CLOSED      nothing more is sent; HTTPCLOSED is the same after a refusal

    _peer_closed   the peer's close frame has come: a clean end
    _goodbye       our answer to it, held until the app has taken what came before
    _deaf          nothing that comes in is looked at any more: after a fault of the peer's, or its close

Who may change them: the reading task handles frames, one after the other (`_handle_events`); the app's task accepts,
sends and closes; fan-out of other tasks calls `send_nowait` and may call `close`. Each change of state is made together
with its write, between two checkpoints, so no task sees a state whose frame has not been queued.

What cannot happen, and why:

- A frame behind our close frame: `send_nowait`, `ping` and `app_send` look at the state in the same step that writes.
- Two close frames: `_say_close` and `answer_close` leave CONNECTED at once, and `_goodbye` is taken before it is used.
- A message lost that came before a clean close: the app is not cancelled at it; it gets the messages, then the
  disconnect, and has LAST_MESSAGES seconds.
- A message over the limit kept in memory: the size is checked before the buffer is extended; afterwards we are deaf.
- A close that waits for a peer for ever: CLOSE_WAIT bounds it, and a full outbox is discarded first.
- A seat that is counted twice or never freed: joining and leaving `config.websockets` happens in `_accept` and `_end`
  alone, and `_end` is reached by every end of the connection, by `forget` if by nothing else.
"""

import contextlib
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import trio
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WSStream
from hypercorn.typing import ASGISendEvent, WebsocketAcceptEvent
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Message, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from service.platform.server.config import ServerConfig
from service.platform.server.exchange import ConnectionTasks, Exchange
from service.platform.server.frames import Frame, encode_message
from service.platform.server.outbox import TooSlowError

if TYPE_CHECKING:
    from service.platform.server.connection import ServerConnection  # it makes the protocol that makes us

EXTENSION = "service.websocket"
# How long the peer may take to answer our close frame.
CLOSE_WAIT = 1.0
# What came before a clean close is still handled, for at most this long.
LAST_MESSAGES = 1.0
# How long a handler may leave a full inbox alone while more is coming in.
UNTAKEN_TIMEOUT = 10.0
# A packet may hold ten thousand frames; after so many of them others have their turn.
FRAMES_IN_A_ROW = 32
# What is asked of a handshake when it is over; what the client has sent in its own is not kept.
ACCEPTED: Any = SimpleNamespace(accepted=True)


class WebsocketStream(WSStream):
    """See README.md: A1, B3, C2 to C4, D2, D5."""

    app_put: Exchange | None
    config: ServerConfig

    def __init__(self, *args: Any, transport: "ServerConnection") -> None:
        super().__init__(*args)
        self.transport = transport
        self._peer_closed = False
        self._waited_for: trio.Event | None = None  # by whoever has closed: the peer's close
        self._deaf = False
        self.frames_sent = 0
        self.seen_off_at = 0.0  # Trio's time before which the peer's answer to our close is left where it is
        self.close_code = 0  # 0 while it is open
        self.close_reason = ""  # ours; a peer's is its own text, and nobody's to keep
        self._goodbye: CloseConnection | None = None  # our answer to the peer's close, while it has to wait

    @property
    def last_received(self) -> float:
        """Trio's time when anything, a pong included, last came from the peer."""
        return self.transport.last_received

    def send_nowait(self, frame: Frame) -> None:
        """Write or queue one frame; nothing happens before the accept and after the close. Raises TooSlowError."""
        if self.state is not ASGIWebsocketState.CONNECTED:
            return
        self.transport.outbox.send_nowait(frame.data, droppable=frame.droppable)
        self.frames_sent += 1

    async def ping(self) -> None:
        """Send a ping; the answer shows in `last_received`."""
        if self.state is ASGIWebsocketState.CONNECTED:
            await self._send_wsproto_event(Ping())

    def ping_nowait(self) -> None:
        """Write or queue a ping, or drop it where too much waits; nothing before the accept and after the close."""
        if self.state is ASGIWebsocketState.CONNECTED:
            with contextlib.suppress(LocalProtocolError):  # closing
                self.transport.outbox.send_nowait(self.connection.send(Ping()), droppable=True)

    async def close(self, code: int, reason: str = "") -> None:
        """Close, and wait at most CLOSE_WAIT seconds for the peer's close, from `seen_off_at` on."""
        if self.state is not ASGIWebsocketState.CONNECTED:
            return
        begins = max(self.seen_off_at, now := trio.current_time())
        if begins > now:
            self.transport.send_with_end()
        self._say_close(code, reason)
        if begins > now:
            self.transport.rest(begins)
        if not self._peer_closed:
            self._waited_for = trio.Event()
            with trio.move_on_at(begins + CLOSE_WAIT):
                await self._waited_for.wait()

    async def answer_close(self) -> None:
        """Answer the peer's close: the handler has had all that came before it."""
        if self._goodbye is not None:
            goodbye, self._goodbye = self._goodbye, None
            if self.state is ASGIWebsocketState.CONNECTED:
                self.state = ASGIWebsocketState.CLOSED
                self._write(goodbye)
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def shut(self, code: int) -> None:
        """Close, and end the handler: at once, or within LAST_MESSAGES seconds of the peer's answer."""
        was_open = self.state is ASGIWebsocketState.CONNECTED
        await self.close(code)
        if not self.closed:
            await self.send(StreamClosed(stream_id=self.stream_id))
        elif was_open and self.app_put is not None:  # the answer has ended it cleanly, and not cancelled the handler
            self.app_put.scope.deadline = trio.current_time() + LAST_MESSAGES

    def abandon(self) -> None:
        """Say goodbye without waiting: the server is ending under us."""
        if self.state is ASGIWebsocketState.CONNECTED:
            self._say_close(self._unplanned)

    def forget(self) -> None:
        """End, if nothing has ended it: the connection is over, and nobody is told any more."""
        if self.app_put is not None and not self.closed:
            self._end()

    async def handle(self, event: Event) -> None:
        if self.closed:
            return
        if isinstance(event, Request):
            await self._begin(event)
        elif isinstance(event, StreamClosed):
            self._end()
        elif not self.handshake.accepted:
            if self.state is ASGIWebsocketState.HANDSHAKE:  # else it is refused, and what comes is nobody's
                await self._refuse_early_data()
        elif not self._deaf and self.connection.state is not ConnectionState.CLOSED:
            self.connection.receive_data(event.data)  # type: ignore[attr-defined]  # Body or Data
            await self._handle_events()

    async def app_send(self, message: ASGISendEvent | None) -> None:
        if self.closed:
            await trio.lowlevel.checkpoint()  # an app that goes on sending must not stop the others
        elif message is None:
            await self._finish()
        elif message["type"] == "websocket.close" and self.state is not ASGIWebsocketState.HANDSHAKE:
            await self.close(message.get("code") or CloseReason.NORMAL_CLOSURE, message.get("reason") or "")
        elif message["type"] != "websocket.send":
            await super().app_send(message)
        elif self.state is ASGIWebsocketState.CONNECTED:
            self.frames_sent += 1
            data = message["text"] if message["bytes"] is None else message["bytes"]
            await self.transport.outbox.send(encode_message(data))  # type: ignore[arg-type]  # one of them is there

    @property
    def owes_answer(self) -> bool:
        """Whether a client waits whose upgrade has no answer."""
        return not self.closed and self.state is ASGIWebsocketState.HANDSHAKE

    @property
    def _unplanned(self) -> CloseReason:
        """The code for an end that the handler did not choose."""
        return CloseReason.SERVICE_RESTART if self.config.lifecycle.draining else CloseReason.INTERNAL_ERROR

    async def _begin(self, request: Request) -> None:
        await super().handle(request)
        if self.closed:  # not a handshake: answered already
            await self.send(StreamClosed(stream_id=self.stream_id))
        else:
            self.scope["extensions"][EXTENSION] = self  # type: ignore[assignment]  # ours, not JSON

    def _end(self) -> None:
        """Tell the app. After a clean close it may handle what came before; otherwise it is cancelled at once."""
        clean = self._peer_closed
        self._goodbye = None
        if self.state is ASGIWebsocketState.CONNECTED and not clean:
            self._note_close(CloseReason.ABNORMAL_CLOSURE)
        self._leave_seat()
        self.closed = True
        self.state = ASGIWebsocketState.CLOSED
        if self.handshake.accepted:
            self.connection._proto._parse_more = iter(())  # type: ignore[assignment]  # what was there keeps who keeps it
        if self.app_put is not None:
            code = CloseReason.NORMAL_CLOSURE if clean else CloseReason.ABNORMAL_CLOSURE
            self.app_put.close({"type": "websocket.disconnect", "code": int(code)})
            if not clean:
                self.app_put.scope.cancel()

    async def _refuse_early_data(self) -> None:
        """A client must wait for our half of the handshake; what it sends before is no frame (RFC 6455, 4.1)."""
        await self._send_error_response(400)
        self.state = ASGIWebsocketState.HTTPCLOSED
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _accept(self, message: WebsocketAcceptEvent) -> None:
        # Without an offer there is no permessage-deflate: a frame of 509 KiB would become 500 MB.
        self.handshake.extensions = None
        # Ahead of the write, which may wait for a peer that does not read: `_end` may come before its end.
        self.config.websockets.add(self)
        self.config.statistics.websockets_open += 1
        try:
            await super()._accept(message)
        except Exception:  # of the headers that the handler gave: nothing was written, and it may be refused yet
            self._leave_seat()
            self.state, self.handshake.accepted = ASGIWebsocketState.HANDSHAKE, False
            raise
        self.handshake = ACCEPTED
        if (farewell := self.config.websockets.farewell) is not None:
            cast(ConnectionTasks, self.task_group).start_soon(partial(self.shut, farewell))

    def _leave_seat(self) -> None:
        if self in self.config.websockets:
            self.config.websockets.discard(self)
            self.config.statistics.websockets_open -= 1

    async def _finish(self) -> None:
        """The app has returned."""
        if self.state is ASGIWebsocketState.HANDSHAKE:
            await self._send_error_response(500)
        elif self._goodbye is not None:
            await self.answer_close()
            return
        else:
            await self.close(self._unplanned)
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _handle_events(self) -> None:
        for number, event in enumerate(self.connection.events(), start=1):
            if number % FRAMES_IN_A_ROW == 0:
                await trio.lowlevel.checkpoint()
            if isinstance(event, Message):
                await self._take(event)
            elif isinstance(event, Ping):
                self._answer_ping(event)
            elif isinstance(event, CloseConnection):
                await self._take_close(event)
            if self._deaf:
                break

    async def _take(self, event: Message[Any]) -> None:
        if self.state is not ASGIWebsocketState.CONNECTED:
            return  # we have said goodbye
        size = len(event.data.encode() if isinstance(event, TextMessage) and not event.data.isascii() else event.data)
        if self.buffer.length + size > self.config.websocket_max_message_size:
            await self._reject(CloseReason.MESSAGE_TOO_BIG)
            return
        self.buffer.extend(event)
        self.buffer.length += size - len(event.data)
        if event.message_finished:
            message = self.buffer.to_message()
            self.buffer.clear()
            await self._hand_over(message)

    async def _hand_over(self, message: Any) -> None:
        exchange = self.app_put
        assert exchange is not None  # noqa: S101  # it is there once accepted
        if exchange.put_nowait(message):  # mostly: a scope round each message costs as much as handing it over
            return
        with trio.move_on_after(UNTAKEN_TIMEOUT) as patience:
            await exchange(message)
        if patience.cancelled_caught and self.state is ASGIWebsocketState.CONNECTED:  # else we have said goodbye
            await self._reject(CloseReason.POLICY_VIOLATION, "the messages are not taken")

    async def _reject(self, code: int, reason: str = "") -> None:
        """Close for the peer's fault and listen no more; what it goes on sending is read and dropped."""
        self._deaf = True
        self._say_close(code, reason)
        await self.send(StreamClosed(stream_id=self.stream_id))

    async def _take_close(self, event: CloseConnection) -> None:
        self._deaf = True
        if self.connection.state is ConnectionState.OPEN:  # no close frame: wsproto found a fault
            await self._reject(event.code, event.reason or "")
            return
        self._peer_closed = True
        if self.connection.state is ConnectionState.REMOTE_CLOSING and self.app_put is not None:
            self._note_close(event.code, by_peer=True)
            self._goodbye = event.response()
            self.app_put.close({"type": "websocket.disconnect", "code": int(event.code)})
            self.app_put.scope.deadline = trio.current_time() + LAST_MESSAGES
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()  # many end together: others come between the parts
            await self.send(StreamClosed(stream_id=self.stream_id))
        if self._waited_for is not None:
            self._waited_for.set()

    def _answer_ping(self, ping: Ping) -> None:
        # Closing, or not reading: either way it will not see this pong.
        with contextlib.suppress(LocalProtocolError, TooSlowError):
            self.transport.outbox.send_nowait(self.connection.send(ping.response()), droppable=True)

    def _say_close(self, code: int, reason: str = "") -> None:
        self.state = ASGIWebsocketState.CLOSED
        if self.transport.outbox.overflowed:
            self.transport.outbox.discard()  # or the close frame would never arrive
        self._write(CloseConnection(code=code, reason=reason))
        if not self._peer_closed:  # else it is noted, with the code of who was first
            self._note_close(code, reason)

    def _note_close(self, code: int, reason: str = "", *, by_peer: bool = False) -> None:
        self.close_code, self.close_reason = int(code), reason
        self.config.statistics.count_close(code, by_peer=by_peer)

    def _write(self, event: CloseConnection) -> None:
        self.transport.outbox.push(bytes(self.connection.send(event)))
