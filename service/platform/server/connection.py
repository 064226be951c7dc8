"""One accepted socket: the barrier round it, its deadlines, and how it is closed.

Whatever goes wrong in here costs this connection and is logged and counted; it never reaches the server's nursery.
One scope round the reading, whose deadline moves, and one task for all that are idle (idle.py) stand in for Hypercorn's
task per idle connection.
"""

import contextlib
import math
import os
import select
import socket
import struct
import sys
from contextvars import Context

import structlog
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.tcp_server import MAX_RECV, TCPServer
from hypercorn.typing import AppWrapper, ConnectionState, LifespanState, WorkerContext

from service.platform.server.address import client_of, endpoint
from service.platform.server.config import ServerConfig
from service.platform.server.exchange import ConnectionTasks
from service.platform.server.outbox import Outbox
from service.platform.server.protocol import Protocol
from service.platform.server.statistics import NO_DESCRIPTORS

log = structlog.get_logger(__name__)

# How long a peer may take to read our last words and to close, before the socket is closed under it. Closing at once,
# with bytes of it unread, would make the kernel send a reset, and that takes the last words with it. It begins anew
# while a body that nobody wants goes on coming: some clients and proxies send all of it before they read the answer.
LINGER = 2.0
# A connection on which nothing has come yet, or whose listener is shared with others, may have its request on the way.
LAST_CALL = 1.0
# What may wait for a peer that reads slowly; more, and it is told TooSlowError about.
MAX_FRAMES = 256
MAX_BYTES = 1 << 20
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class ServerConnection(TCPServer):
    """Hypercorn's connection without its traps (see README.md: A1 to A4, B1, B4, B5)."""

    config: ServerConfig
    protocol: Protocol  # type: ignore[assignment]  # no wrapper: its one purpose is to change over to HTTP/2

    def __init__(
        self,
        app: AppWrapper,
        config: ServerConfig,
        context: WorkerContext,
        state: LifespanState,
        stream: trio.SocketStream,
    ) -> None:
        # Hypercorn's own constructor also makes two locks and a task's handle, all of which have no use here.
        self.app = app
        self.config = config
        self.context = context  # type: ignore[assignment]  # a protocol, of which Trio's is one
        self.stream = stream  # type: ignore[assignment]  # typed for TLS alone
        self.state = state
        self.read_scope = trio.CancelScope()
        self._tasks = ConnectionTasks()
        self.outbox = Outbox(
            stream.socket,
            start_soon=self._tasks.start_soon,
            fail=self.drop,
            write_timeout=config.settings.write_timeout,
            max_frames=MAX_FRAMES,
            max_bytes=MAX_BYTES,
        )
        self.last_received = trio.current_time()
        self._idle = True
        self._is_new = True  # nothing has come yet
        self._first = b""  # what has come with the connection, until it is handled
        self.has_entered = False  # nothing of it has to wait at the doorway any more
        self._in_headers = False
        self._headers_until = math.inf
        self._closing = False
        self._lingers_until = -math.inf  # at the latest, while it goes on sending
        self._resting: tuple[float, trio.Event] | None = None  # until when nothing is read, or until this

    async def run(self) -> None:
        self.config.statistics.connections_open += 1
        self.config.connections.add(self)
        self.config.doorway.notice()
        try:
            if self.stream.socket.fileno() >= self.config.first_spare:  # it is the lowest that was free
                self.drop(NO_DESCRIPTORS)
                return
            await self._enter()
            await self._converse()
        except OSError:
            pass  # gone before it was greeted
        except Exception as error:  # the barrier: one connection's failure is no reason to end the process
            self._report(error)
        except BaseExceptionGroup as group:
            errors, rest = group.split(Exception)
            if errors is not None:
                self._report(errors)
            if rest is not None:
                raise rest from None
        finally:
            self.outbox.close()
            self.config.connections.discard(self)
            self.config.idle.discard(self)
            self.config.statistics.connections_open -= 1
            self._break_circles()

    def _break_circles(self) -> None:
        """Let it all go now: the garbage collector, which would find it, stops the loop for longer the more is open."""
        self._closing = True  # whoever still has us closes nothing, and writes to an outbox that is closed
        self.outbox.forget_owner()
        protocol: Protocol | None = self.__dict__.pop("protocol", None)  # it may be gone before there was one
        if protocol is not None:
            protocol.forget()

    def send_with_end(self) -> None:
        """Let what is written next wait for the end of the stream, on Linux: one packet, heard of once."""
        if sys.platform == "linux" and not self.outbox.waiting_bytes:
            with contextlib.suppress(OSError):  # no TCP
                self.stream.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)

    def rest(self, until: float) -> None:
        """Leave what comes where it is until a moment of Trio's time. The peer sees the end now, and need not wait."""
        self._resting = until, trio.Event()
        if not self.outbox.waiting_bytes:
            self._end_writing()

    def drop(self, reason: str) -> None:
        """Let a peer go that does not read, or is gone. What waits for it is thrown away, in the kernel as well."""
        self.config.statistics.dropped[reason] += 1
        # Whoever writes to a member that has gone works for a request of his own, whose id would be in this line.
        Context().run(log.info, "connection dropped", reason=reason, client=self._client, **self._asked)
        self.outbox.close()
        with contextlib.suppress(OSError):
            self.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.read_scope.cancel()

    def leave(self, *, within: float = 0) -> None:
        """Close if nothing is asked of this connection within so many seconds; else it closes after the response."""
        if self._closing:
            self._lingers_until = min(self._lingers_until, trio.current_time() + LINGER)
        elif self._idle and not (self._in_headers or self._first or self._has_next or self._has_unread()):
            within = max(within, LAST_CALL) if self._is_new else within
            if not (within or self.outbox.waiting_bytes):
                self._closing = True
                self._end_writing()  # in the moment of that look: what comes after it is not answered any more
            self.read_scope.deadline = min(self.read_scope.deadline, trio.current_time() + within)

    @property
    def _client(self) -> str:
        """Return the address for a line of the log: the request's, if there is one, as a proxy may have named it."""
        protocol: Protocol | None = self.__dict__.get("protocol")  # not before it is greeted
        if protocol is not None:
            return protocol.client_address
        try:
            peer = endpoint(self.stream.socket.getpeername())
        except OSError:  # it is gone
            peer = None
        return client_of({"client": peer}) or "unknown"

    @property
    def _has_next(self) -> bool:
        """Whether a request came together with the one that was just answered, and waits for the task that reads."""
        protocol: Protocol | None = self.__dict__.get("protocol")
        return protocol is not None and protocol.has_partial_request

    @property
    def _asked(self) -> dict[str, str]:
        protocol: Protocol | None = self.__dict__.get("protocol")
        return {} if protocol is None else protocol.asked

    async def protocol_send(self, event: Event) -> None:
        # By type, as these classes are abstract ones' and isinstance asks in Python whether one is another.
        if type(event) is RawData:
            await self.outbox.send(event.data)
        elif type(event) is Closed:
            await self._close()
        elif type(event) is Updated:
            self._idle = event.idle
            self._in_headers = False
            if not self._closing:
                self._count_idle_time()

    def end_idle(self) -> None:
        """Close, as nothing has been asked of this connection for as long as it is kept."""
        if not self._closing:
            self.read_scope.cancel()

    def _count_idle_time(self) -> None:
        deadline = math.inf
        if not self._idle:
            self.config.idle.discard(self)
        elif self.config.closing:
            deadline = trio.current_time() + self._patience(self.config.keep_alive_timeout)
        else:
            self.config.idle.add(self)
        if self.read_scope.deadline != deadline:
            self.read_scope.deadline = deadline

    async def _enter(self) -> None:
        """Let others in first. Before a request is read, and a task made for it, that takes half the time."""
        self._first = self._read() or b""
        if self._first and not self._is_for_probe():
            await self.config.doorway.pass_through()
            self.has_entered = True

    def _is_for_probe(self) -> bool:
        """Whether a probe may be asked here; whether it is, the protocol finds out."""
        target = self._first.partition(b"\r\n")[0].split(b" ")[1:2]
        return bool(target) and target[0].partition(b"?")[0] in self.config.probes

    async def _converse(self) -> None:
        client = endpoint(self.stream.socket.getpeername())
        server = endpoint(self.stream.socket.getsockname())
        async with self._tasks:
            self.protocol = Protocol(
                self.app,
                self.config,
                self.context,
                self._tasks,
                ConnectionState(self.state),
                ssl=False,
                client=client,
                server=server,
                send=self.protocol_send,
                transport=self,
            )
            await self.protocol.initiate()
            try:
                await self._read_data()
            except trio.Cancelled:
                self.protocol.abandon()
                raise

    async def _read_data(self) -> None:
        # A connection on which nothing was asked yet has as long as its headers would have.
        self.read_scope.deadline = trio.current_time() + self._patience(self.config.settings.header_timeout)
        with self.read_scope:
            await self._take_all(await self._receive())
        while self._is_late and (data := self._read()):  # in time, while this process stood still or had others to read
            with trio.CancelScope() as self.read_scope:
                self._count_idle_time()
                await self._take_all(data)
        if self._is_late:
            await self._give_up_reading()
        if not self._closing:
            self.outbox.close()
        self._closing = True
        await self.protocol.handle(Closed())

    @property
    def _is_late(self) -> bool:
        """Whether the time for what is read was over; the peer has not gone, and was not let go."""
        return self.read_scope.cancelled_caught and not (self._closing or self.outbox.is_closed)

    async def _take_all(self, data: bytes) -> None:
        """Handle this and what comes after it, to the end."""
        while data:
            self._is_new = False
            if not self._closing:
                self.last_received = trio.current_time()
                await self.protocol.handle(RawData(data))
                if self._idle:
                    self._watch_headers()
            elif (until := min(self._lingers_until, trio.current_time() + LINGER)) > self.read_scope.deadline:
                self.read_scope.deadline = until
            data = await self._receive()

    async def _receive(self) -> bytes:
        """Return what has come, or nothing at the end. A first request has mostly come with its connection."""
        first, self._first = self._first, b""
        while not first:
            try:
                await trio.lowlevel.wait_readable(self.stream.socket)
            except (OSError, trio.ClosedResourceError):
                return b""
            if self._resting is not None:
                await self._wait_rested(*self._resting)
            await trio.lowlevel.checkpoint_if_cancelled()  # before it is read, or it would be lost
            if (read := self._read()) is not None:
                return read
        return first

    async def _wait_rested(self, until: float, called: trio.Event) -> None:
        with trio.move_on_at(until):
            await called.wait()
        self._resting = None

    def _read(self) -> bytes | None:
        """Return what has come, nothing at the end, None when there is nothing yet."""
        try:
            return os.read(self.stream.socket.fileno(), MAX_RECV)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    async def _give_up_reading(self) -> None:
        if self._in_headers:
            self.config.statistics.dropped["header timeout"] += 1
            await self.protocol.refuse(408)

    def _watch_headers(self) -> None:
        """Start the clock with the first bytes of a request, not with each."""
        if self.protocol.has_partial_request:
            if not self._in_headers:
                self._in_headers = True
                self._headers_until = trio.current_time() + self.config.settings.header_timeout
            self.config.idle.discard(self)
            self.read_scope.deadline = self._headers_until
        elif self.config.closing and not self._closing:
            self._count_idle_time()  # what came kept `leave` from ending this, and was no request: an empty line

    def _has_unread(self) -> bool:
        poll = select.poll()
        poll.register(self.stream.socket.fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def _patience(self, usual: float) -> float:
        return min(usual, LAST_CALL) if self.config.closing else usual

    async def _close(self) -> None:
        """Say our last words and that no more will come, and give the peer a moment to read them."""
        if self._closing:
            return
        self._closing = True
        await self.protocol.handle(Closed())
        if self.outbox.waiting_bytes:
            self._tasks.start_soon(self._linger)  # not here: who closes many connections waits for none of them
        else:
            self._say_no_more()

    async def _linger(self) -> None:
        with trio.move_on_after(LINGER):
            await self.outbox.wait_empty()
        self._say_no_more()

    def _end_writing(self) -> None:
        with contextlib.suppress(OSError):
            self.stream.socket.shutdown(socket.SHUT_WR)

    def _say_no_more(self) -> None:
        if self._resting is not None:
            self._resting[1].set()
        self._end_writing()
        now = trio.current_time()
        goes_on = self.protocol.is_amid_body and not self.config.closing
        self._lingers_until = now + (self.config.settings.body_timeout if goes_on else LINGER)
        self.read_scope.deadline = now + LINGER

    def _report(self, error: Exception) -> None:
        self.config.statistics.connection_errors[type(error).__name__] += 1
        log.error("connection failed", client=self._client, exc_info=error)
