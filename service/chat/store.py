"""What the chat writes: plain functions of a connection, each one transaction.

A row per room holds its latest seq. Whoever writes locks that row until the commit, so the order of seqs is the order
of commits: who has read up to a seq never sees a lower one appear.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import psycopg
import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from service.chat.pages import known_epoch, rfc3339
from service.chat.protocol import Message
from service.chat.tables import CHANNEL, epoch_table, room_table


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


# Plans that PostgreSQL keeps (test_plans.py). An array out of a sub-select is one of unknown length, whatever is given,
# so that no plan for the given one looks cheaper; LATERAL and ON CONFLICT find rows by their index, whatever statistics
# say when the plan is made: it is kept until the next ANALYZE.
_LOCK = """
    SELECT room.name, room.seq, (SELECT epoch FROM chat_epoch)
    FROM unnest((SELECT %b::text[])) AS asked(name)
    CROSS JOIN LATERAL (SELECT name, seq FROM chat_room WHERE name = asked.name FOR UPDATE {wait}) room"""
_KNOWN = """
    SELECT draft.room, draft.id, message.seq, message.text
    FROM unnest((SELECT %b::text[]), (SELECT %b::text[])) AS draft(room, id)
    CROSS JOIN LATERAL (
        SELECT seq, text FROM chat_message WHERE room = draft.room AND id = draft.id LIMIT 1
    ) message"""
_EXISTING = "SELECT name FROM chat_room WHERE name = ANY(%b::text[])"
# One NOTIFY a room: it takes a lock over the whole server at commit, so there is not one for each message.
_INSERT = """
    WITH advanced AS (
        INSERT INTO chat_room (name, seq) SELECT * FROM unnest((SELECT %b::text[]), (SELECT %b::bigint[]))
        ON CONFLICT (name) DO UPDATE SET seq = excluded.seq
        RETURNING pg_notify(%b, name || ':' || seq)
    )
    INSERT INTO chat_message (room, seq, id, author, text, subject)
    SELECT * FROM unnest(
        (SELECT %b::text[]), (SELECT %b::bigint[]), (SELECT %b::text[]),
        (SELECT %b::text[]), (SELECT %b::text[]), (SELECT %b::text[])
    )
    RETURNING room, seq, at"""


def append(connection: Connection, drafts: Sequence[Draft]) -> Appended:
    """Store drafts in those rooms that can be locked at once: a locked room holds up no other."""
    return _append(connection, drafts, lock=_LOCK.format(wait="SKIP LOCKED"))


def append_waiting(connection: Connection, drafts: Sequence[Draft], *, lock_timeout: float) -> Appended:
    """Store drafts of one room, made when it is new.

    After `lock_timeout` seconds PostgreSQL refuses (LockNotAvailable), and the door raises DatabaseUnable.
    """
    connection.execute(sa.select(sa.func.set_config("lock_timeout", f"{lock_timeout * 1000:.0f}ms", True)))
    connection.execute(postgresql.insert(room_table).values(name=drafts[0].room, seq=0).on_conflict_do_nothing())
    return _append(connection, drafts, lock=_LOCK.format(wait=""))


def _append(connection: Connection, drafts: Sequence[Draft], *, lock: str) -> Appended:
    driver = _driver(connection)
    names = sorted({draft.room for draft in drafts})
    with driver.pipeline():  # one round trip for both
        locked = driver.execute(lock, (names,))
        # A statement sees what was committed before it began: this one all that was while the locks were waited for.
        known = driver.execute(_KNOWN, ([draft.room for draft in drafts], [draft.id for draft in drafts]))
    rows = locked.fetchall()
    existing = driver.execute(_EXISTING, (names,)) if len(rows) < len(names) else ()
    plan = _Plan({name: seq for name, seq, _ in rows}, {name for (name,) in existing})
    plan.taken = {(room, id_): (seq, text) for room, id_, seq, text in known}
    results = [plan.place(draft) for draft in drafts]
    epoch = known_epoch(rows[0][2]) if rows else ""
    return Appended(epoch, results, _insert(driver, epoch, plan) if plan.new else [])


class _Plan:
    """Which draft gets which seq; its numbers hold because the rooms in `heads` are locked."""

    def __init__(self, heads: dict[str, int], existing: set[str]) -> None:
        self.heads = heads
        self.existing = existing
        self.taken: dict[tuple[str, str], tuple[int, str]] = {}
        self.new: list[tuple[Draft, int]] = []

    def place(self, draft: Draft) -> Stored | Refusal:
        if draft.room not in self.heads:
            return Refusal.LOCKED if draft.room in self.existing else Refusal.NEW_ROOM
        key = draft.room, draft.id
        if key in self.taken:  # in the table, or earlier in this batch
            seq, text = self.taken[key]
            return Stored(seq, dup=True) if text == draft.text else Refusal.CONFLICT
        seq = self.heads[draft.room] = self.heads[draft.room] + 1
        self.taken[key] = seq, draft.text
        self.new.append((draft, seq))
        return Stored(seq, dup=False)

    @property
    def latest(self) -> Mapping[str, int]:
        return {draft.room: seq for draft, seq in self.new}


def _insert(driver: psycopg.Connection, epoch: str, plan: _Plan) -> list[Message]:
    rooms, ids, authors, texts, seqs, subjects = [], [], [], [], [], []
    for draft, seq in plan.new:
        rooms.append(draft.room)
        ids.append(draft.id)
        authors.append(draft.author)
        texts.append(draft.text)
        subjects.append(draft.subject)
        seqs.append(seq)
    latest = plan.latest
    inserted = driver.execute(
        _INSERT, (list(latest), list(latest.values()), CHANNEL, rooms, seqs, ids, authors, texts, subjects)
    )
    times: dict[tuple[str, int], datetime] = {(room, seq): at for room, seq, at in inserted}
    return [
        Message(
            room=draft.room, epoch=epoch, seq=seq, id=draft.id, author=draft.author, text=draft.text,
            at=rfc3339(times[draft.room, seq]), subject=draft.subject,
        )
        for draft, seq in plan.new
    ]  # fmt: skip


def _driver(connection: Connection) -> psycopg.Connection:
    """Return psycopg's connection below SQLAlchemy's, which knows no pipelines."""
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
    epoch: str = connection.execute(
        sa.update(epoch_table).values(epoch=fresh).returning(epoch_table.c.epoch)
    ).scalar_one()
    return epoch
