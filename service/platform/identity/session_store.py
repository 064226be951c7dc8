"""The sessions of browsers, in the database. Their ids are stored as hashes alone."""

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
_SESSION = Statement("read_session", "SELECT caller FROM identity_session WHERE hash = $1 AND expires > now()")
_LOCK_SUBJECT = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('sessions ' || :subject, 0))")


def insert_session(
    connection: Connection, *, digest: bytes, caller: Caller, sid: str | None, before: bytes | None
) -> tuple[int, int]:
    """Keep a session, in place of the one that the browser had before, and of the oldest beyond the limit.

    Returns how many of each kind have ended. One subject's come one after the other: each would count without those
    that are begun beside it.
    """
    connection.execute(_LOCK_SUBJECT, {"subject": caller.subject})
    replaced = 0 if before is None else end_sessions(connection, session_table.c.hash == before)
    expires = sa.func.to_timestamp(caller.expires)
    connection.execute(
        sa.insert(session_table).values(
            hash=digest, subject=caller.subject, sid=sid, caller=caller.to_json(), expires=expires
        )
    )
    of_subject = sa.select(session_table.c.hash).where(session_table.c.subject == caller.subject)
    newest = of_subject.order_by(session_table.c.made.desc(), session_table.c.hash).limit(MOST_SESSIONS)
    of_all = session_table.c.subject == caller.subject, session_table.c.hash.not_in(newest)
    return replaced, end_sessions(connection, *of_all)


async def read_session(database: Database, digest: bytes) -> Caller | None:
    """Return whose a session is; None for one that is not there, or is over."""
    rows = await database.fetch(_SESSION, digest)
    return Caller.from_json(rows[0][0]) if rows else None


def select_live(connection: Connection, *, digests: Collection[bytes]) -> set[bytes]:
    """Return those of some sessions that have not ended."""
    # As one array: a statement has 65,535 parameters at most, and a replica may have more websockets than that.
    some = sa.bindparam("some", list(digests), type_=postgresql.ARRAY(sa.LargeBinary))
    held = sa.select(session_table.c.hash).where(session_table.c.hash == sa.any_(some))
    return {bytes(digest) for digest in connection.execute(held).scalars()}


def end_session(connection: Connection, *, digest: bytes) -> int:
    return end_sessions(connection, session_table.c.hash == digest)


def end_by_provider(connection: Connection, *, subject: str | None, sid: str | None) -> int:
    """End the sessions that the provider names, by its own id for one or else by their subject; return how many."""
    which = [session_table.c.sid == sid] if sid else []
    return end_sessions(connection, *which, *([session_table.c.subject == subject] if subject else []))


def end_sessions(connection: Connection, *which: sa.ColumnElement[bool]) -> int:
    """Delete sessions, and tell every replica of each."""
    ended = connection.execute(sa.delete(session_table).where(*which).returning(session_table.c.hash)).scalars().all()
    for digest in ended:
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, bytes(digest).hex())))
    return len(ended)


def read_telling(payload: str) -> bytes | None:
    """Return which session a notification says has ended; None for nonsense: any role of the database may notify."""
    return bytes.fromhex(payload) if _TELLING.fullmatch(payload) else None


def delete_old_sessions(connection: Connection) -> int:
    """Delete the sessions that are over; their websockets have ended by themselves."""
    return connection.execute(sa.delete(session_table).where(session_table.c.expires <= sa.func.now())).rowcount
