"""What the chat reads, by one statement each, so that a page and its head agree."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from service.chat.protocol import BIGGEST, Message, Page
from service.platform.database import Database, Statement
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
        ) page LIMIT {limit}
    ) message ON true
    ORDER BY asked.room, message.seq"""
# OFFSET 0: planned for any bound, since what the statistics say of the latest messages is never true for long.
_ONE = "(SELECT $1::text AS room, $2::bigint AS bound OFFSET 0) AS asked"
_SEVERAL = "unnest(CAST(:rooms AS text[]), CAST(:bounds AS bigint[])) AS asked(room, bound)"


def _text(asked: str, condition: str, direction: str, limit: str) -> str:
    return _PAGES.format(asked=asked, condition=condition, direction=direction, most=MOST, limit=limit)


_AFTER = Statement("read_after", _text(_ONE, "seq > asked.bound AND seq < $3::bigint", "ASC", "$4::bigint"))
_BEFORE = Statement("read_before", _text(_ONE, "seq < asked.bound", "DESC", "$3::bigint"))
_AFTER_SEVERAL = sa.text(_text(_SEVERAL, "seq > asked.bound", "ASC", ":limit"))
_AHEAD = Statement(
    "read_ahead",
    """
    SELECT epoch.epoch, room.name, room.seq FROM chat_epoch epoch
    LEFT JOIN (
        chat_room room JOIN unnest($1::text[], $2::bigint[]) AS known(name, head)
        ON room.name = known.name AND room.seq > known.head
    ) ON true""",
)

type Row = Sequence[Any]


async def read_after(database: Database, room: str, after: int, *, before: int = BIGGEST, limit: int) -> Page:
    """Return the first messages after a seq, at most `limit` and MOST, in ascending order."""
    return _page(await database.fetch(_AFTER, room, after, before, limit))


async def read_before(database: Database, room: str, before: int = BIGGEST, *, limit: int) -> Page:
    """Return the last messages before a seq, at most `limit` and MOST, in ascending order."""
    return _page(await database.fetch(_BEFORE, room, before, limit))


async def read_rooms(database: Database, cursors: Mapping[str, int], *, limit: int) -> list[Page]:
    """Return for each room what `read_after` does: for several on a thread, as they have many rows together."""
    if len(cursors) == 1:
        return [await read_after(database, *room, limit=limit) for room in cursors.items()]
    return await database.read(_select_after, cursors, limit=limit)


async def read_ahead(database: Database, heads: Mapping[str, int]) -> tuple[str, dict[str, int]]:
    """Return the epoch, and the head of each of these rooms that has gone beyond the given one."""
    rows = await database.fetch(_AHEAD, list(heads), list(heads.values()))
    return known_epoch(rows[0][0] if rows else None), {name: seq for _, name, seq in rows if name is not None}


def _select_after(connection: Connection, cursors: Mapping[str, int], *, limit: int) -> list[Page]:
    values = {"rooms": list(cursors), "bounds": list(cursors.values()), "limit": limit}
    rows = connection.execute(_AFTER_SEVERAL, values)
    return [_page(list(of_room)) for _, of_room in groupby(rows, key=itemgetter(0))]


def known_epoch(epoch: str | None) -> str:
    """Return the epoch. Raises Unavailable without one: a restore has made the tables and has not filled them yet."""
    if epoch is None:
        raise Unavailable("the database has no epoch: it is being restored")
    return epoch


def rfc3339(moment: datetime) -> str:
    """Return a moment as clients get it: UTC, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _page(rows: Sequence[Row]) -> Page:
    name, epoch, head, oldest, *_ = rows[0]
    epoch = known_epoch(epoch)
    messages = tuple(
        Message(room=name, epoch=epoch, seq=seq, id=id_, author=author, text=text, at=rfc3339(at), subject=subject)
        for *_, seq, id_, author, text, at, subject in rows
        if seq is not None
    )
    return Page(room=name, epoch=epoch, head=head, oldest=oldest, messages=messages)
