"""The structured mode, `chat.v1`: one websocket that joins rooms, sends, and is told what became of it.

The receive loop parses, hands over and answers; it never waits for the database. What must wait, a join and its
catch-up, runs in the connection's own nursery.
"""

import math
from collections import Counter

import trio

from service.chat.authors import Author
from service.chat.backlog import Answer
from service.chat.connection import Chat
from service.chat.frames import encode_burst, encode_server_frame
from service.chat.limits import Strikes
from service.chat.parsing import parse
from service.chat.protocol import (
    MAX_ROOMS,
    Bye,
    Close,
    Error,
    Hello,
    Join,
    Joined,
    Leave,
    Left,
    Ping,
    Pong,
    Presence,
    Rate,
    Send,
    ServerFrame,
)
from service.chat.room import Seat
from service.chat.settings import ChatSettings
from service.chat.store import Draft
from service.chat.tail import Burst
from service.chat.writer import unavailable
from service.platform.errors import Forbidden, Unavailable
from service.platform.http import Conversation, Ending
from service.platform.server import Websocket

LAST_ANSWERS = 1.0  # seconds that a goodbye waits for the answers to what was read
BURST = 16  # messages of a catch-up that are sent before the socket must have taken them
TOO_MANY_BAD = Ending(Close.POLICY, "too many bad frames")


class Membership:
    """One room of a connection: its seat, once there is one, and the task that opens it and catches up."""

    __slots__ = ("failed", "scope", "seat")

    def __init__(self) -> None:
        self.scope = trio.CancelScope()
        self.seat: Seat | None = None
        self.failed = False

    def end(self) -> None:
        self.scope.cancel()
        if self.seat is not None:
            self.seat.room.leave(self.seat)


class RoomsConversation:
    """A member of rooms, over one websocket."""

    def __init__(self, chat: Chat, socket: Websocket, author: Author, session: str) -> None:
        self._chat = chat
        self._author = author
        self._session = session
        self._connection = Conversation(chat.conversations, socket)
        self._socket = socket
        self._memberships: dict[str, Membership] = {}
        self._unanswered: Counter[str] = Counter()
        self._all_answered: trio.Event | None = None  # while a goodbye waits for it
        self._strikes = Strikes()
        self._others = chat.conversations.limits.connection()  # joins, pings, nonsense
        self._catching_up: trio.Lock | None = None  # made by the first that has missed something

    async def run(self) -> None:
        self._send(hello(self._chat, self._session))
        try:
            await self._connection.run(self._receive, self._say_goodbye)
        finally:
            for membership in self._memberships.values():
                membership.end()
            self._memberships.clear()  # each has us in it

    # a room's member

    def deliver(self, burst: Burst) -> None:
        self._connection.send_frame(burst.frame(encode_burst))

    def move(self, joined: Joined) -> None:
        self._send(joined)

    def count(self, presence: Presence) -> None:
        self._connection.send_frame(encode_server_frame(presence, droppable=True))

    # what clients send

    async def _receive(self, nursery: trio.Nursery) -> None:
        while True:
            self._take(await self._socket.receive(), nursery)

    def _take(self, data: str | bytes, nursery: trio.Nursery) -> None:
        frame = parse(data)
        if not self._within_rate(frame):
            return
        if isinstance(frame, Error):
            self._send(frame)
            if frame.code == "bad_frame" and self._strikes.miss():
                self._connection.end(TOO_MANY_BAD)
            return
        self._strikes.hit()
        match frame:
            case Send():
                self._submit(frame)
            case Join():
                self._join(frame, nursery)
            case Leave():
                self._leave(frame)
            case Ping():
                self._send(Pong(t=frame.t))
            case Pong():
                pass  # it was received: that is all it says

    def _within_rate(self, frame: object) -> bool:
        wait = self._connection.take() if isinstance(frame, Send) else self._connection.take(self._others)
        if wait:
            self._refuse_rate(frame, wait)
        return not wait

    def _refuse_rate(self, frame: object, wait: float) -> None:
        self._send(
            Error(
                code="rate_limited",
                message=f"more than {self._chat.conversations.limits.per_connection:g} frames a second",
                retryable=True,
                retry_after_ms=max(1, round(wait * 1000)),
                id=getattr(frame, "id", None),
                ref=getattr(frame, "ref", None),
            )
        )

    def _submit(self, frame: Send) -> None:
        membership = self._memberships.get(frame.room)
        if membership is None:
            self._send(Error(code="not_joined", message=f"room: {frame.room} is not joined", id=frame.id))
            return
        author = self._author
        try:
            self._chat.ask(author.caller, frame.room, "write")
        except Forbidden as error:
            self._send(Error(code="forbidden", message=str(error), id=frame.id))
            return
        draft = Draft(room=frame.room, id=frame.id, author=author.name, subject=author.subject, text=frame.text)
        if membership.failed:  # not its fault: it was written before the client could know
            self._send(unavailable(draft, f"room: {frame.room} must be joined again first"))
            return
        self._unanswered[frame.id] += 1
        self._chat.writer.submit(draft, owner=self, answer=self._answer)

    def _answer(self, answer: Answer) -> None:
        assert answer.id is not None  # noqa: S101  an answer to a send has the send's id
        self._unanswered[answer.id] -= 1
        if not self._unanswered[answer.id]:
            del self._unanswered[answer.id]
        if not self._unanswered and self._all_answered is not None:
            self._all_answered.set()
        self._send(answer)

    def _join(self, frame: Join, nursery: trio.Nursery) -> None:
        if frame.room not in self._memberships and len(self._memberships) >= MAX_ROOMS:
            self._send(Error(code="bad_frame", message=f"room: at most {MAX_ROOMS} are joined at once", ref=frame.ref))
            return
        try:
            self._chat.ask(self._author.caller, frame.room, "read")
        except Forbidden as error:
            self._send(Error(code="forbidden", message=str(error), ref=frame.ref))
            return
        if (before := self._memberships.get(frame.room)) is not None:
            before.end()
        membership = self._memberships[frame.room] = Membership()
        nursery.start_soon(self._follow, membership, frame)

    def _leave(self, frame: Leave) -> None:
        membership = self._memberships.pop(frame.room, None)
        if membership is None:
            self._send(Error(code="not_joined", message=f"room: {frame.room} is not joined", ref=frame.ref))
            return
        membership.end()
        self._send(Left(room=frame.room, ref=frame.ref))

    async def _follow(self, membership: Membership, frame: Join) -> None:
        with membership.scope:
            try:
                room = await self._chat.rooms.open_room(frame.room, frame.since)
            except Unavailable as error:
                self._fail_join(membership, frame, error)
                return
            if membership.scope.cancel_called:
                return  # left, or joined again, in the moment in which the room was opened
            membership.seat, joined = room.join(self, ref=frame.ref, since=frame.since)
            self._send(joined)
            if room.present is not None:
                self.count(room.present)
            await self._catch_up(membership.seat)

    def _fail_join(self, membership: Membership, frame: Join, error: Unavailable) -> None:
        membership.failed = True
        retry_after_ms = round((error.retry_after or 1) * 1000)
        self._send(
            Error(code="unavailable", message=str(error), retryable=True, retry_after_ms=retry_after_ms, ref=frame.ref)
        )

    async def _catch_up(self, seat: Seat) -> None:
        """Send what the seat has missed, no faster than the peer reads; live messages wait behind."""
        while not seat.live:
            entries = await self._chat.rooms.next_entries(seat)
            if self._catching_up is None:
                self._catching_up = trio.Lock()
            async with self._catching_up:  # one room at a time: together they could fill the outbox
                for number, entry in enumerate(entries, 1):
                    if not seat.advance(entry):
                        break
                    if number % BURST == 0:
                        await self._socket.ping()  # goes behind what waits, and returns when that has been taken

    # what the server says

    def _send(self, frame: ServerFrame) -> None:
        self._connection.send_frame(encode_server_frame(frame))

    async def _say_goodbye(self, ending: Ending) -> None:
        """Answer what was read, then say why, and when to come back."""
        if ending.code == Close.RESTART and self._unanswered:
            self._all_answered = trio.Event()
            with trio.move_on_after(LAST_ANSWERS):
                await self._all_answered.wait()
        for id_ in list(self._unanswered):
            self._send(Error(code="unavailable", message="the connection is closing", retryable=True, id=id_))
        self._send(Bye(reason=ending.reason, reconnect_after_ms=ending.reconnect_after))


def hello(chat: Chat, session: str) -> Hello:
    """Return the first frame: what a client must know of this server."""
    settings = chat.settings
    return Hello(
        server=chat.replica,
        session=session,
        heartbeat_ms=round(chat.conversations.heartbeat * 1000),
        max_bytes=settings.websocket_max_bytes,
        rate=rate_of(chat.conversations.limits.per_connection),
        retention_s=round(settings.of(ChatSettings).retention),
    )


def rate_of(per_second: float) -> Rate | None:
    """Return a limit in whole numbers that allow no more than it does: who keeps to them is never refused."""
    if not per_second:
        return None
    n = max(1, math.floor(per_second))
    return Rate(n=n, per_ms=math.ceil(1000 * n / per_second))
