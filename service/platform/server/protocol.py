"""HTTP/1.1 on one connection: Hypercorn's, without HTTP/2, with limits, and with one write for a response.

Probes are answered here, ahead of every task and every framework: they must answer when nothing else does.

Theory of operation. h11 keeps the states of both sides; this class only decides what to do in them. A request of the
plainest kind is read at a glance (glance.py), and while its answer is plain as well h11 never hears of the two. As soon
as anything else is to happen, more bytes or an answer of another kind, h11 reads the same bytes (`_catch_up`) and is
where it would have been. The connection is

    idle        no stream. What comes in is parsed until a request's headers are whole
    responding  a stream exists (http_stream.py or websocket_stream.py). Its application runs in a task of its own
    ending      the response said `Connection: close`, a refusal was sent, or h11 found a fault: h11 is in MUST_CLOSE
                or ERROR. What still comes in is dropped
    closed      `Closed` was sent; connection.py lingers for the peer, and then the socket goes

Who may change them: the reading task (`handle`) goes from idle to responding, and to ending for what is no request. The
application's task ends the response, by `answer` (a whole plain response as bytes, without h11) or event by event
through h11 (`stream_send`); both lead back to idle, and h11's own cycle is started anew. Only one of the two can be
for one response: `answer` is taken only while h11 has seen nothing of it, and leaves no stream behind.

What cannot happen, and why:

- Two responses interleaved: the next request is parsed only when the stream is gone (`can_read`), so pipelined requests
  wait in h11's buffer.
- A request read by both, or by neither: what was taken at a glance is kept (`_taken`) until it is answered or h11 has
  read it, and h11 has read nothing yet of a packet that is looked at.
- A head without a body that follows it: the head is held (`_held`) and written together with the first body, or by
  `flush`; every way out of a response flushes.
- `answer` on a connection that must not be kept: `is_plain` asks h11 (the request has been read whole), the headers (no
  `Connection`), the drain and the number of requests. In doubt the answer is no, and h11 does it.
- Bytes behind a last request taken for an error: in MUST_CLOSE h11 is not asked for more (H11Connection).
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import h11
import h11._readers
import structlog
import trio
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.events import EndBody, Response, StreamClosed
from hypercorn.protocol.events import Event as StreamEvent
from hypercorn.protocol.events import Request as StreamRequest
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.typing import H11SendableEvent

from service.platform.server.address import client_of
from service.platform.server.config import MAX_HEADER_BYTES, ServerConfig
from service.platform.server.glance import Glance, read_at_a_glance
from service.platform.server.http_stream import HttpStream
from service.platform.server.responses import ALWAYS, encode_head
from service.platform.server.targets import HeaderList, is_upgrade, join_lists, origin_form, refused_handshake
from service.platform.server.websocket_stream import WebsocketStream

if TYPE_CHECKING:
    from service.platform.server.connection import ServerConnection  # it makes us

log = structlog.get_logger(__name__)

# Up to here a copy costs less than a second write.
JOIN_LIMIT = 65_536
# A monitor asks by either of them, often with a query: a probe takes no notice of which.
PROBE_METHODS = frozenset({b"GET", b"HEAD"})
PROBE_FIELDS = [(b"content-type", b"application/json"), *ALWAYS]
CLOSE = (b"connection", b"close")
EMPTY_LINE = b"\r\n"
LINE_BYTES = len(b"  HTTP/1.1\r\n")  # of a request line, beside method and target
VERSION = b"1.1"  # a higher one is read as this (RFC 9110, 2.5); Hypercorn takes a handshake of it for HTTP/2's

_HEAD_END = re.compile(rb"\n\r?\n")  # as h11 has it
# h11's gives the blanks ahead of a value back one by one: a line of 16 KiB of them with a NUL behind held the event
# loop for two thirds of a second. What it takes is the same, as no value begins with a blank.
with suppress(AttributeError):  # then the start says which name is missing
    _FIELD = h11._readers.header_field_re.pattern
    h11._readers.header_field_re = re.compile(_FIELD.replace(rb"[ \t]*(", rb"[ \t]*+(", 1))


class H11Connection(h11.Connection):
    """h11's, to which bytes behind a last request are not an error that takes the place of its answer.

    Nor is one empty line ahead of a request, with which some clients end a body (RFC 9112, 2.2).
    """

    _had_empty_line = False

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        if self.their_state is h11.MUST_CLOSE:
            return h11.NEED_DATA
        if self.their_state is not h11.IDLE:
            self._had_empty_line = False
        elif not self._had_empty_line:
            waiting, ended = self.trailing_data
            if waiting == EMPTY_LINE[:1] and not ended:
                return h11.NEED_DATA
            if waiting.startswith(EMPTY_LINE):
                self._receive_buffer.maybe_extract_at_most(len(EMPTY_LINE))
                self._had_empty_line = True
                waiting = waiting[len(EMPTY_LINE) :]
            self._refuse_long(waiting)
        return super().next_event()

    def _refuse_long(self, waiting: bytes) -> None:
        """Raise what h11 does for a head that is too long, also for one in one packet: ahead of taking it apart."""
        most = MAX_HEADER_BYTES + len(EMPTY_LINE)
        if len(waiting) > most and _HEAD_END.search(waiting, 0, most) is None:
            self._process_error(self.their_role)
            raise h11.RemoteProtocolError("the head is too long", error_status_hint=431)

    @property
    def they_are_waiting_for_100_continue(self) -> bool:
        """Never, to Hypercorn, which would say 100 before anybody has looked at the request; see `Protocol.invite`."""
        return False


class Protocol(H11Protocol):
    """See README.md: A5, B5, C5."""

    config: ServerConfig
    connection: h11.Connection | H11WSConnection
    stream: HttpStream | WebsocketStream | None
    _held: bytes = b""
    _taken: bytes = b""

    def __init__(self, *args: Any, transport: "ServerConnection", **more: Any) -> None:
        super().__init__(*args, **more)
        self.transport = transport

    async def initiate(self) -> None:
        self.connection = H11Connection(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData):
            if self.connection.their_state is h11.MUST_CLOSE:
                return
            if self._is_between_requests and (request := read_at_a_glance(event.data)) is not None:
                self._taken = event.data
                await self._take(request)
                return
            self._catch_up()
        await super().handle(event)

    @property
    def _is_between_requests(self) -> bool:
        return (
            self.stream is None
            and not self._taken
            and self.connection.their_state is h11.IDLE
            and not self.connection.trailing_data[0]
        )

    async def _take(self, request: Glance) -> None:
        """Begin what `_create_stream` would, without h11."""
        probe = self.config.probes.get(request.target.partition(b"?")[0])
        if probe is not None and request.method in PROBE_METHODS:
            await self._answer_at_once(request, *probe(), PROBE_FIELDS)
            return
        await self.send(Updated(idle=False))
        self.keep_alive_requests += 1
        self.stream = stream = self._make_stream(HttpStream)
        stream.begin(request.method.decode(), request.target, request.headers, "1.1", self.connection_state)
        await stream.app_put({"type": "http.request", "body": b"", "more_body": False})

    def _catch_up(self) -> None:
        """Let h11 read what was taken at a glance: it is needed for this exchange after all."""
        taken, self._taken = self._taken, b""
        if taken:
            self.connection.receive_data(taken)
            self.connection.next_event()  # the request
            self.connection.next_event()  # and its end

    @property
    def has_partial_request(self) -> bool:
        """Whether the beginning of a request is here, and not the end of its headers, or not yet looked for."""
        return self.stream is None and bool(self.connection.trailing_data[0])

    @property
    def is_amid_body(self) -> bool:
        """Whether the end of a request's body is still to come, or not yet looked for."""
        return self.connection.their_state is h11.SEND_BODY

    @property
    def client_address(self) -> str:
        """The address that asks, as the log has it: behind a proxy that is known with its request."""
        return client_of(getattr(self.stream, "scope", {"client": self.client})) or "unknown"

    @property
    def asked(self) -> dict[str, str]:
        """The ids of the request that is being answered, as its lines in the log have them; none before it has any."""
        scope = getattr(self.stream, "scope", {})
        return {name: scope[name] for name in ("request_id", "trace_id") if name in scope}

    async def refuse(self, status: int) -> None:
        """Answer what could not become a request with a bare status, and close."""
        if self.stream is None and self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._send_error_response(status)
        await self.send(Closed())

    def abandon(self) -> None:
        """The server is ending under this connection: tell a websocket so, without waiting."""
        if isinstance(self.stream, WebsocketStream):
            self.stream.abandon()

    def forget(self) -> None:
        """Let a websocket that nothing has ended go: this connection failed, or was cancelled with the server."""
        if isinstance(self.stream, WebsocketStream):
            self.stream.forget()

    async def flush(self) -> None:
        """Write what is held back."""
        held, self._held = self._held, b""
        if held:
            await self.send(RawData(held))

    def is_plain(self, version: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the connection is kept after this exchange, all of whose request has been read."""
        if self._must_close or self.keep_alive_requests >= self.config.keep_alive_max_requests:
            return False
        return bool(self._taken) or (  # whoever takes a request at a glance has looked at all of this
            self.connection.their_state is h11.DONE
            and version == b"1.1"
            and not any(name == b"connection" and value.lower() != b"keep-alive" for name, value in headers)
        )

    async def answer(self, head: bytes, body: bytes) -> None:
        """Write a whole response and be ready for the next request, without h11 having to parse what we write."""
        if len(body) <= JOIN_LIMIT:
            await self.send(RawData(head + body))
        else:
            await self.send(RawData(head))
            await self.send(RawData(body))
        await self._close_stream()
        if self._taken:
            self._taken = b""
            await self.send(Updated(idle=True))
            return
        await self._begin_next()

    async def _begin_next(self) -> None:
        """Be ready for the next request, some of which may have come."""
        rest, ended = self.connection.trailing_data
        await self.initiate()
        if rest:
            self.connection.receive_data(rest)
        if ended:
            self.connection.receive_data(b"")
        await self.can_read.set()
        await self.send(Updated(idle=True))

    async def stream_send(self, event: StreamEvent) -> None:
        if isinstance(event, StreamClosed) and self._is_kept:
            await self._close_stream()
            await self._begin_next()
            return
        if isinstance(event, Response) and self._is_last(event) and CLOSE not in event.headers:
            event.headers.append(CLOSE)
        await super().stream_send(event)
        if isinstance(event, Response) and event.status_code == 101 and isinstance(self.connection, H11WSConnection):
            self.connection.h11_connection = None  # type: ignore[assignment]  # HTTP is over, and frames are not its own
        if isinstance(event, EndBody):
            await self.flush()

    @property
    def _must_close(self) -> bool:
        return self.config.lifecycle.draining or self.config.closing or isinstance(self.stream, WebsocketStream)

    @property
    def _is_kept(self) -> bool:
        """Whether both sides are done and neither has said that the connection ends: also once the server ends."""
        return self.connection.our_state is h11.DONE and self.connection.their_state is h11.DONE

    def _is_last(self, response: Response) -> bool:
        """Whether the connection ends with a response, as with one that comes ahead of its request's end."""
        return response.status_code >= 200 and (self._must_close or self.connection.their_state is h11.SEND_BODY)

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """Hold back the head of a response until its first body, so that both are one write."""
        self._catch_up()
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.InformationalResponse):
            await self.send(RawData(data))
        elif len(self._held) + len(data) <= JOIN_LIMIT:
            self._held += data
        else:
            await self.flush()
            await self.send(RawData(data))

    async def _send_error_response(self, status_code: int) -> None:
        self._tell_refused(status_code)
        await super()._send_error_response(status_code)
        await self.flush()

    def _tell_refused(self, status: int) -> None:
        """Log a request that could not be read, and so mostly has no line of its own."""
        log.info("request refused", status=status, client=self.client_address)

    async def _check_protocol(self, event: h11.Request) -> None:
        """Never change over to HTTP/2: `h2c` and `PRI` are requests like others."""

    async def _create_stream(self, request: h11.Request) -> None:
        headers = list(request.headers)  # h11's own sequence is slow to go through
        line = len(request.method) + len(request.target) + LINE_BYTES
        if line + sum(len(name) + len(value) + 4 for name, value in headers) > MAX_HEADER_BYTES:
            # Whoever writes no blank behind a colon has sent less than is counted.
            await self.refuse(431)
            return
        found = origin_form(request.method, request.target)
        if found is None:
            await self.refuse(400)
            return
        target, authority = found
        if authority is not None:  # it counts, and the Host does not (RFC 9112, 3.2.2)
            headers = [(name, value) for name, value in headers if name != b"host"] + [(b"host", authority)]
        probe = self.config.probes.get(target.partition(b"?")[0])
        if probe and request.method in PROBE_METHODS:
            await self._answer_at_once(request, *probe(), PROBE_FIELDS)
            return
        kind: type[HttpStream | WebsocketStream] = HttpStream
        if request.method == b"GET" and is_upgrade(headers):
            headers = join_lists(headers)
            if (refused := refused_handshake(headers)) is not None:
                self._tell_refused(refused[0])
                await self._answer_at_once(request, refused[0], b"", refused[1], kept=False)
                return
            headers = [(name, b"websocket" if name == b"upgrade" else value) for name, value in headers]
            kind = WebsocketStream
            self.connection = H11WSConnection(cast(h11.Connection, self.connection))
        self.stream = stream = self._make_stream(kind)
        self.keep_alive_requests += 1
        await self.stream.handle(
            StreamRequest(
                stream_id=STREAM_ID,
                headers=headers,
                http_version=min(request.http_version, VERSION).decode(),
                method=request.method.decode("ascii"),
                raw_path=target,
                state=self.connection_state,
            )
        )
        if isinstance(stream, HttpStream) and self._they_wait:
            stream.app_put.invite = self.invite

    @property
    def _they_wait(self) -> bool:
        """Whether the client waits for a 100 before it sends its body (RFC 9110, 10.1.1)."""
        return isinstance(self.connection, H11Connection) and self.connection.client_is_waiting_for_100_continue

    async def invite(self) -> None:
        """Say 100, as somebody wants the body: who is refused by his headers alone is not asked for it first."""
        if self._they_wait:
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=[]))

    def _make_stream[S: HttpStream | WebsocketStream](self, kind: type[S]) -> S:
        return kind(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
            transport=self.transport,
        )

    async def _answer_at_once(
        self, request: h11.Request | Glance, status: int, body: bytes, fields: HeaderList, *, kept: bool = True
    ) -> None:
        """Answer a request here, ahead of every task; without `kept` the connection ends with it."""
        headers = [*fields, (b"content-length", b"%d" % len(body)), *self.config.response_headers("h11")]
        sent = b"" if request.method == b"HEAD" else body
        if not self._taken:
            try:
                self.connection.next_event()  # the end of the request, unless it has a body that nobody expects
            except h11.RemoteProtocolError:
                await self.refuse(400)
                return
        plain = kept and self.is_plain(request.http_version, request.headers)
        if plain and (head := encode_head(status, headers, body)):
            await self.answer(head, sent)
            if self.has_partial_request:  # a packet may hold two thousand, and this is the task that reads them
                await trio.lowlevel.cancel_shielded_checkpoint()
            return
        headers += [CLOSE]
        await self._send_h11_event(h11.Response(status_code=status, headers=headers))
        await self._send_h11_event(h11.Data(data=sent))
        await self._send_h11_event(h11.EndOfMessage())
        await self.flush()
        await self.send(Closed())
