"""NOTIFY after the commit: what a unit has to tell is sent when it is committed, together with what others have to.

Inside the unit's own transaction a NOTIFY takes a lock of the whole server at COMMIT, and 16 writers at once commit 3.6
to 10.6 times slower. So one task sends what has come up, in a transaction of its own. A process that dies in between
sends nothing: who listens looks at the tables from time to time anyway, and a notification is a hint and nothing more.
"""

from collections.abc import Awaitable, Callable, Set

import trio
from sqlalchemy import Connection, text

from service.platform.database.statement import Statement
from service.platform.database.unit import current_unit

MOST_BYTES, MOST_OF_CHANNEL = 7_999, 63  # of a payload, and of a channel's name: PostgreSQL's limits

type Notification = tuple[str, str]  # channel and payload

_SEND = Statement(
    "notify", "SELECT pg_notify(channel, payload) FROM unnest($1::text[], $2::text[]) AS sent(channel, payload)"
)

# A full queue gets room, once all have read it, by this question; a NOTIFY that finds none leaves it as full as it is.
_MAKE_ROOM = Statement("make_room", "SELECT pg_notification_queue_usage()")


def notify(connection: Connection, channel: str, payload: str = "") -> None:
    """Tell those who listen on a channel, once what this unit does is committed; each different payload once.

    Outside a unit of `database.run` it is part of the connection's transaction, as PostgreSQL has it. Raises ValueError
    for a payload that is longer than 7,999 bytes, a channel that is not 1 to 63, and for NUL in either: what cannot be
    sent later would take with it what others have to tell.
    """
    refuse_channel(channel)
    if "\0" in payload:
        raise ValueError("payload: must not hold NUL, which PostgreSQL does not take")
    if len(payload.encode()) > MOST_BYTES:
        raise ValueError(f"payload: must be {MOST_BYTES} bytes at most; notify a hint, and keep the rest in a table")
    unit = current_unit()
    if unit is None or not unit.transactional:
        connection.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": channel, "payload": payload})
    else:
        unit.notifications.add((channel, payload))


def refuse_channel(channel: str) -> None:
    """Raise ValueError for a name that PostgreSQL does not take; LISTEN would cut one that is too long."""
    if not 1 <= len(channel.encode()) <= MOST_OF_CHANNEL or "\0" in channel:
        raise ValueError(f"channel: must be 1 to {MOST_OF_CHANNEL} bytes, none of them NUL, not {channel!r}")


class Notifier:
    """What is to be sent, and the task that sends it."""

    def __init__(self) -> None:
        self._waiting: set[Notification] = set()
        self._any = trio.Event()
        self._full = False

    def note_full(self) -> None:
        """Take notice that PostgreSQL's queue was full: nobody else may ever ask it to look for room."""
        self._full = True
        self._any.set()

    def add(self, notifications: Set[Notification]) -> None:
        if notifications:
            self._waiting |= notifications
            self._any.set()

    async def send(self, execute: Callable[..., Awaitable[object]]) -> None:
        """Send for ever what is added. What the database does not take now is not sent later: it was a hint."""
        while True:
            await self._any.wait()
            sending, self._waiting, self._any = self._waiting, set(), trio.Event()
            if self._full:
                self._full = False
                await execute(_MAKE_ROOM)
            if not sending:
                continue
            channels, payloads = zip(*sorted(sending), strict=True)
            await execute(_SEND, list(channels), list(payloads))
