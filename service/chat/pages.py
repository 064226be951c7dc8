"""What the chat reads: plain functions of a connection, each one statement, so that a page and its head agree."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.engine import Row

from service.chat.protocol import BIGGEST, Message, Page
from service.platform.errors import Unavailable

MOST = 200  # messages of a page

# A row for each room even when it has no message to give. LATERAL: the limit is for each room, and OFFSET 0 has the
# oldest looked up once for it and not once for each message. The limit that is a number lets PostgreSQL know how few
# messages a page has; with that, and without arrays, it keeps its plan (two thirds of what a page of one message costs
# is to plan it again). Of a million messages, a page of 50: 0.74 ms of PostgreSQL's time before, 0.17 ms now.
_PAGES = """
    SELECT asked.room, (SELECT epoch FROM chat_epoch) AS epoch, coalesce(room.seq, 0) AS head, kept.oldest,
        message.seq, message.id, message.author, message.text, message.at, message.subject
    FROM {asked}
    LEFT JOIN chat_room room ON room.name = asked.room
    CROSS JOIN LATERAL (
        SELECT coalesce((SELECT min(seq) FROM chat_message WHERE room = asked.room), room.seq + 1, 1) AS oldest OFFSET 0
    ) kept
    LEFT JOIN LATERAL (
        SELECT * FROM (
            SELECT * FROM chat_message WHERE room = asked.room AND {condition} ORDER BY seq {direction} LIMIT {most}
        ) page LIMIT :limit
    ) message ON true
    ORDER BY asked.room, message.seq"""
# OFFSET 0: planned for any bound, since what the statistics say of the latest messages is never true for long.
_ONE = "(SELECT CAST(:room AS text) AS room, CAST(:bound AS bigint) AS bound OFFSET 0) AS asked"
_SEVERAL = "unnest(CAST(:rooms AS text[]), CAST(:bounds AS bigint[])) AS asked(room, bound)"


def _statement(asked: str, condition: str, direction: str) -> sa.TextClause:
    return sa.text(_PAGES.format(asked=asked, condition=condition, direction=direction, most=MOST))


_AFTER_ONE, _AFTER_SEVERAL = (
    _statement(asked, "seq > asked.bound AND seq < :before", "ASC") for asked in (_ONE, _SEVERAL)
)
_BEFORE = _statement(_ONE, "seq < asked.bound", "DESC")
_AHEAD = sa.text("""
    SELECT epoch.epoch, room.name, room.seq FROM chat_epoch epoch
    LEFT JOIN (
        chat_room room JOIN unnest(CAST(:rooms AS text[]), CAST(:heads AS bigint[])) AS known(name, head)
        ON room.name = known.name AND room.seq > known.head
    ) ON true""")


def select_after(
    connection: Connection, cursors: Mapping[str, int], *, before: int = BIGGEST, limit: int
) -> list[Page]:
    """Return for each room the first messages after a seq, at most `limit` and MOST, in ascending order."""
    limits = {"before": before, "limit": limit}
    if len(cursors) == 1:
        ((room, bound),) = cursors.items()
        return _pages(connection.execute(_AFTER_ONE, {"room": room, "bound": bound, **limits}).all())
    bounds = {"rooms": list(cursors), "bounds": list(cursors.values())}
    return _pages(connection.execute(_AFTER_SEVERAL, bounds | limits).all())


def select_before(connection: Connection, *, room: str, before: int = BIGGEST, limit: int) -> Page:
    """Return the last messages before a seq, at most `limit` and MOST, in ascending order."""
    (page,) = _pages(connection.execute(_BEFORE, {"room": room, "bound": before, "limit": limit}).all())
    return page


def select_ahead(connection: Connection, heads: Mapping[str, int]) -> tuple[str, dict[str, int]]:
    """Return the epoch, and the head of each of these rooms that has gone beyond the given one."""
    rows = connection.execute(_AHEAD, {"rooms": list(heads), "heads": list(heads.values())}).all()
    return known_epoch(rows[0].epoch if rows else None), {row.name: row.seq for row in rows if row.name is not None}


def known_epoch(epoch: str | None) -> str:
    """Return the epoch. Raises Unavailable without one: a restore has made the tables and has not filled them yet."""
    if epoch is None:
        raise Unavailable("the database has no epoch: it is being restored")
    return epoch


def rfc3339(moment: datetime) -> str:
    """Return a moment as clients get it: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _pages(rows: Sequence[Row[Any]]) -> list[Page]:
    return [_page(list(of_room)) for _, of_room in groupby(rows, key=lambda row: row.room)]


def _page(rows: Sequence[Row[Any]]) -> Page:
    first = rows[0]
    epoch = known_epoch(first.epoch)
    messages = tuple(
        Message(
            room=row.room,
            epoch=epoch,
            seq=row.seq,
            id=row.id,
            author=row.author,
            text=row.text,
            at=rfc3339(row.at),
            subject=row.subject,
        )
        for row in rows
        if row.seq is not None
    )
    return Page(room=first.room, epoch=epoch, head=first.head, oldest=first.oldest, messages=messages)
