"""What the chat writes: plain functions of a connection, each one transaction.

A row per room holds its latest seq. Whoever writes locks that row until the commit, so the order of seqs is the order
of commits: who has read up to a seq never sees a lower one appear.
"""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from json import dumps
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from service.chat.pages import known_epoch, rfc3339
from service.chat.protocol import Message
from service.chat.tables import CHANNEL, epoch_table, room_table
from service.platform.database import Database, Statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A message that is not stored yet."""

    room: str
    id: str
    author: str
    text: str
    subject: str | None = None  # whose it is, where an identity provider says so


class Refusal(enum.Enum):
    """Why a draft was not stored. The first may be tried again as it is, the second by `append_waiting`."""

    LOCKED = enum.auto()  # another transaction holds the room
    NEW_ROOM = enum.auto()
    NOT_HELD = enum.auto()  # one of the two; `append` finds out which
    CONFLICT = enum.auto()  # the id belongs to another text


@dataclass(frozen=True, slots=True)
class Stored:
    seq: int
    dup: bool


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of each draft, in their order; and the messages that are new, in the order of their seqs."""

    epoch: str
    results: list[Stored | Refusal]
    messages: list[Message]


# One statement, and one text for all that is given: so PostgreSQL keeps its plan, which with arrays, whose lengths it
# looks at, it would not, and the driver has one value to adapt. A plan that is kept must never scan all messages:
# ON CONFLICT finds them by their index whatever was counted when the plan was made. It also sees every id that is
# stored, whatever this statement's snapshot shows, as a room that was waited for is read as it is then. With a repeat
# among the drafts the rooms stay where they were. One NOTIFY a room: at COMMIT it takes a lock of the whole server, and
# whoever has that keeps it until its own COMMIT is on the disk, and at the standby: the wait is another from there on.
_STORING = """
    WITH draft AS MATERIALIZED (
        SELECT draft.* FROM set_config('lock_timeout', %b, true), json_to_recordset(%b::json)
        AS draft(place int, room text, id text, author text, text text, subject text)
    ), held AS MATERIALIZED (
        SELECT room.name, room.seq FROM (SELECT room FROM draft GROUP BY room ORDER BY room) asked
        CROSS JOIN LATERAL (SELECT name, seq FROM chat_room WHERE name = asked.room FOR UPDATE {wait}) room
    ), placed AS MATERIALIZED (
        SELECT draft.*, held.seq + row_number() OVER (PARTITION BY held.name ORDER BY draft.place) AS seq
        FROM held JOIN draft ON draft.room = held.name
    ), stored AS (
        INSERT INTO chat_message (room, seq, id, author, text, subject)
        SELECT room, seq, id, author, text, subject FROM placed
        ON CONFLICT (room, id) DO NOTHING RETURNING room, seq, at
    ), advanced AS (
        INSERT INTO chat_room (name, seq) SELECT room, max(seq) FROM placed
        WHERE (SELECT count(*) FROM stored) = (SELECT count(*) FROM placed) GROUP BY room
        ON CONFLICT (name) DO UPDATE SET seq = excluded.seq
        RETURNING pg_notify(%b, name || ':' || seq), set_config('lock_timeout', '{commit_wait}', true)
    )
    SELECT placed.place, placed.seq, stored.at, (SELECT epoch FROM chat_epoch)
    FROM placed LEFT JOIN stored ON stored.room = placed.room AND stored.seq = placed.seq ORDER BY placed.place"""
COMMIT_WAIT = "1s"  # for the commits of others; less than a sender waits, so that it is told that nothing is stored
_STORE = _STORING.format(wait="SKIP LOCKED", commit_wait=COMMIT_WAIT)
_STORE_WAITING = _STORING.format(wait="", commit_wait=COMMIT_WAIT)
_STORE_BY_STATEMENT = Statement("append_by_statement", _STORE.replace("%b", "${}").format(1, 2, 3))
_TAKE_BACK = "DELETE FROM chat_message WHERE (room, seq) IN (SELECT * FROM unnest(%b::text[], %b::bigint[]))"
_KNOWN = """
    SELECT room, id, seq, text FROM chat_message
    WHERE (room, id) IN (SELECT * FROM unnest(%b::text[], %b::text[]))"""
_EXISTING = "SELECT name FROM chat_room WHERE name = ANY(%b::text[])"
RETENTION_WAIT = 0.1  # seconds for the end of a transaction that deletes what a draft repeats


class Repeats(Exception):
    """Among the drafts are some that repeat a message, of their own or a stored one."""


async def append_by_statement(database: Database, drafts: Sequence[Draft]) -> Appended:
    """Store drafts by a statement alone, on no thread. Those whose room is locked or new are not told apart: NOT_HELD.

    Raises Repeats, and stores nothing, where that would need a second statement, which `append` has.
    """
    if len({(draft.room, draft.id) for draft in drafts}) < len(drafts):
        raise Repeats
    given = _milliseconds(RETENTION_WAIT), _given(drafts), CHANNEL
    return await database.execute(_STORE_BY_STATEMENT, *given, before_commit=partial(_all_new, drafts))


def _all_new(drafts: Sequence[Draft], rows: Sequence[tuple[Any, ...]]) -> Appended:
    epoch, messages, repeats = _placed(drafts, rows)
    if repeats:
        raise Repeats
    seqs = {(message.room, message.id): message.seq for message in messages}
    results = [
        Refusal.NOT_HELD if (seq := seqs.get((draft.room, draft.id))) is None else Stored(seq, dup=False)
        for draft in drafts
    ]
    return Appended(epoch, results, messages)


def append(connection: Connection, drafts: Sequence[Draft]) -> Appended:
    """Store drafts in those rooms that can be locked at once: a locked room holds up no other.

    A draft that repeats a message which retention is deleting just now is refused with all others (LockNotAvailable).
    """
    return _append(connection, drafts, _STORE, _milliseconds(RETENTION_WAIT))


def append_waiting(connection: Connection, drafts: Sequence[Draft], *, lock_timeout: float) -> Appended:
    """Store drafts of one room, made when it is new.

    After `lock_timeout` seconds PostgreSQL refuses (LockNotAvailable), and the door raises DatabaseUnable.
    """
    connection.execute(sa.select(sa.func.set_config("lock_timeout", _milliseconds(lock_timeout), True)))
    connection.execute(postgresql.insert(room_table).values(name=drafts[0].room, seq=0).on_conflict_do_nothing())
    return _append(connection, drafts, _STORE_WAITING, _milliseconds(lock_timeout))


def _append(connection: Connection, drafts: Sequence[Draft], statement: str, lock_timeout: str) -> Appended:
    driver = _driver(connection)
    store = partial(_store, driver, statement, lock_timeout)
    first = {(draft.room, draft.id): draft for draft in reversed(drafts)}  # of repeats within the batch, the first
    new = [draft for draft in drafts if first[draft.room, draft.id] is draft]
    epoch, messages, repeats = store(new)
    held = {message.room for message in messages} | {draft.room for draft in repeats}
    taken: dict[tuple[str, str], tuple[int, str]] = {}
    while repeats:  # while there are any, no room has gone on
        taken |= _take_back(driver, messages, repeats)
        # A room that was locked is not to come in now: its repeats are not known.
        new = [draft for draft in new if draft.room in held and (draft.room, draft.id) not in taken]
        _, messages, repeats = store(new) if new else ("", [], [])
    fresh = {(message.room, message.id): message.seq for message in messages}
    existing = _existing(driver, {draft.room for draft in drafts} - held)
    results: list[Stored | Refusal] = []
    for draft in drafts:
        key = draft.room, draft.id
        if key in taken:
            seq, text = taken[key]
            results.append(Stored(seq, dup=True) if text == draft.text else Refusal.CONFLICT)
        elif key in fresh:
            results.append(Stored(fresh[key], dup=False))
            taken[key] = fresh[key], draft.text
        else:
            results.append(Refusal.LOCKED if draft.room in existing else Refusal.NEW_ROOM)
    return Appended(epoch, results, messages)


def _store(
    driver: psycopg.Connection, statement: str, lock_timeout: str, drafts: Sequence[Draft]
) -> tuple[str, list[Message], list[Draft]]:
    """Store drafts of different ids. Returns the epoch, what is stored, and repeats; if any, it is to be taken back."""
    return _placed(drafts, driver.execute(statement, (lock_timeout, _given(drafts), CHANNEL)).fetchall())


def _given(drafts: Sequence[Draft]) -> str:
    given = [
        {
            "place": place, "room": draft.room, "id": draft.id, "author": draft.author, "text": draft.text,
            "subject": draft.subject,
        }
        for place, draft in enumerate(drafts)
    ]  # fmt: skip
    return dumps(given)


def _placed(drafts: Sequence[Draft], rows: Sequence[tuple[Any, ...]]) -> tuple[str, list[Message], list[Draft]]:
    epoch = known_epoch(rows[0][3]) if rows else ""
    messages = [
        Message(
            room=draft.room, epoch=epoch, seq=seq, id=draft.id, author=draft.author, text=draft.text,
            at=rfc3339(at), subject=draft.subject,
        )
        for draft, seq, at in ((drafts[place], seq, at) for place, seq, at, _ in rows)
        if at is not None
    ]  # fmt: skip
    return epoch, messages, [drafts[place] for place, _, at, _ in rows if at is None]


def _take_back(
    driver: psycopg.Connection, messages: Sequence[Message], repeats: Sequence[Draft]
) -> dict[tuple[str, str], tuple[int, str]]:
    """Remove what was stored beside repeats; return what those repeat, by room and id: seq and text."""
    stored = [message.room for message in messages], [message.seq for message in messages]
    driver.execute(_TAKE_BACK, stored, prepare=False)  # neither plan is kept: it would be one for a few messages
    known = driver.execute(_KNOWN, ([draft.room for draft in repeats], [draft.id for draft in repeats]), prepare=False)
    return {(room, id_): (seq, text) for room, id_, seq, text in known}


def _existing(driver: psycopg.Connection, names: set[str]) -> set[str]:
    return {name for (name,) in driver.execute(_EXISTING, (sorted(names),))} if names else set()


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f}ms"


def _driver(connection: Connection) -> psycopg.Connection:
    """Return psycopg's connection below SQLAlchemy's, whose own statements cost three times as much."""
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101  the door knows no other driver
    return driver


_DELETE = sa.text("""
    DELETE FROM chat_message message USING (
        SELECT room.name, old.seq
        FROM (SELECT name FROM chat_room WHERE name > :after ORDER BY name LIMIT :rooms) room
        CROSS JOIN LATERAL (
            SELECT seq, bool_and(at < now() - make_interval(secs => :age)) OVER (ORDER BY seq) AS is_old
            FROM (SELECT seq, at FROM chat_message WHERE room = room.name ORDER BY seq LIMIT :each) first
        ) old WHERE old.is_old
    ) gone
    WHERE message.room = gone.name AND message.seq = gone.seq""")
_LAST_NAME = sa.text("""
    SELECT max(name) FROM (SELECT name FROM chat_room WHERE name > :after ORDER BY name LIMIT :rooms) room""")


def delete_old(connection: Connection, *, age: float, after: str, rooms: int, each: int) -> tuple[str | None, int]:
    """Delete the first messages of the next rooms by name, as far as they are older than `age` seconds.

    Only ever the first ones, whatever the clocks said: what is kept of a room has no hole. Returns the last name looked
    at, None when there was none, and the number deleted. Locks no room, and few rows for a short time: no writer waits.
    """
    last = connection.execute(_LAST_NAME, {"after": after, "rooms": rooms}).scalar_one()
    deleted = connection.execute(_DELETE, {"after": after, "rooms": rooms, "each": each, "age": age}).rowcount
    return last, deleted


def notify(connection: Connection, payloads: Sequence[str]) -> None:
    """Send notifications that stand for nothing stored."""
    connection.execute(
        sa.text("SELECT pg_notify(:channel, payload) FROM unnest(CAST(:payloads AS text[])) AS payload"),
        {"channel": CHANNEL, "payloads": list(payloads)},
    )


def renew_epoch(connection: Connection) -> str:
    """Make a new epoch, after a restore or a failover that lost commits. Running replicas see it at their next tick."""
    fresh = sa.func.replace(sa.cast(sa.func.gen_random_uuid(), sa.Text), "-", "")
    renewed = connection.execute(sa.update(epoch_table).values(epoch=fresh).returning(epoch_table.c.epoch))
    return known_epoch(renewed.scalar_one_or_none())
