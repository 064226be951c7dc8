"""The sessions of browsers, in the database. Their ids are stored as hashes alone.

How long one lasts is measured by the database's clock alone: replicas differ, and each is told how much is left.
"""

import re
from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql

from service.platform.database import Database, Statement
from service.platform.identity.caller import Caller
from service.platform.identity.tables import session_table

CHANNEL = "identity"  # NOTIFY carries a hash in hexadecimal there: that session has ended
_TELLING = re.compile(r"[0-9a-f]{64}")
MOST_SESSIONS = 20  # of one subject; a new one ends the oldest
_SESSION = Statement(
    "read_session",
    "SELECT caller, CAST(EXTRACT(epoch FROM expires - now()) AS float8)"
    " FROM identity_session WHERE hash = $1 AND expires > now()",
)
_LOCK_SUBJECT = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('sessions ' || :subject, 0))")


def insert_session(
    connection: Connection,
    *,
    digest: bytes,
    caller: Caller,
    lifetime: float,
    sid: str | None,
    before: bytes | None,
) -> tuple[int, int]:
    """Keep a session for `lifetime` seconds, in place of the one that the browser had before, and of the oldest ones.

    Returns how many of each kind have ended, the latter as there may be MOST_SESSIONS. One subject's come one after the
    other: each would count without those that are begun beside it. The new one is never the oldest, though the clock
    was put back.
    """
    connection.execute(_LOCK_SUBJECT, {"subject": caller.subject})
    replaced = 0 if before is None else len(end_sessions(connection, session_table.c.hash == before))
    expires = sa.func.clock_timestamp() + sa.func.make_interval(0, 0, 0, 0, 0, 0, lifetime)
    connection.execute(
        postgresql.insert(session_table)
        .values(hash=digest, subject=caller.subject, sid=sid, caller=caller.to_json(), expires=expires)
        .on_conflict_do_nothing()
    )
    others = session_table.c.subject == caller.subject, session_table.c.hash != digest
    by_age = session_table.c.made.desc(), session_table.c.hash
    newest = sa.select(session_table.c.hash).where(*others).order_by(*by_age).limit(MOST_SESSIONS - 1)
    return replaced, len(end_sessions(connection, *others, session_table.c.hash.not_in(newest)))


async def read_session(database: Database, digest: bytes) -> tuple[Caller, float] | None:
    """Return whose a session is, and how many seconds are left of it; None for one that is not there, or is over."""
    rows = await database.fetch(_SESSION, digest)
    return (Caller.from_json(rows[0][0]), rows[0][1]) if rows else None


def select_live(connection: Connection, *, digests: Collection[bytes]) -> set[bytes]:
    """Return those of some sessions that have not ended."""
    # As one array: a statement has 65,535 parameters at most, and a replica may have more websockets than that.
    some = sa.bindparam("some", list(digests), type_=postgresql.ARRAY(sa.LargeBinary))
    held = sa.select(session_table.c.hash).where(session_table.c.hash == sa.any_(some))
    return {bytes(digest) for digest in connection.execute(held).scalars()}


def end_session(connection: Connection, *, digest: bytes) -> list[str]:
    """End a session; return whose it was, nobody where it has ended already."""
    return end_sessions(connection, session_table.c.hash == digest)


def end_by_provider(connection: Connection, *, subject: str | None, sid: str | None) -> list[str]:
    """End the sessions that the provider names, by its own id for one or else by their subject; return whose."""
    which = [session_table.c.sid == sid] if sid else []
    return end_sessions(connection, *which, *([session_table.c.subject == subject] if subject else []))


def end_sessions(connection: Connection, *which: sa.ColumnElement[bool]) -> list[str]:
    """Delete sessions, and tell every replica of each; return the subject of each."""
    ended = sa.delete(session_table).where(*which).returning(session_table.c.hash, session_table.c.subject)
    rows = connection.execute(ended).all()
    for digest, _ in rows:
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, bytes(digest).hex())))
    return [subject for _, subject in rows]


def read_telling(payload: str) -> bytes | None:
    """Return which session a notification says has ended; None for nonsense: any role of the database may notify."""
    return bytes.fromhex(payload) if _TELLING.fullmatch(payload) else None


def delete_old_sessions(connection: Connection) -> int:
    """Delete the sessions that are over; their websockets have ended by themselves."""
    return connection.execute(sa.delete(session_table).where(session_table.c.expires <= sa.func.now())).rowcount
