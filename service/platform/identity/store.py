"""What identity reads and writes: plain functions of a connection."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from service.platform.identity.caller import IN_SESSION, Caller
from service.platform.identity.tables import secret_table, ticket_table


def select_log_key(connection: Connection) -> bytes:
    """Return the key of the hashes that the log has in place of subjects."""
    value: str = connection.execute(sa.select(secret_table.c.value).where(secret_table.c.name == "log")).scalar_one()
    return value.encode()


TICKET_SECONDS = 30
_HOLDS = sa.func.make_interval(0, 0, 0, 0, 0, 0, TICKET_SECONDS)
# One that is yet to be made is of before the clock was put back, and would hold until it has caught up.
_YOUNG = ticket_table.c.made.between(sa.func.now() - _HOLDS, sa.func.now() + _HOLDS)


def insert_ticket(connection: Connection, *, digest: bytes, caller: Caller, session: bytes | None) -> None:
    """Keep a ticket's hash, for whom it is, and in which session it was made."""
    known = caller.to_json()
    if session is not None:
        known[IN_SESSION] = session.hex()
    connection.execute(sa.insert(ticket_table).values(hash=digest, caller=known))


def redeem_ticket(connection: Connection, *, digest: bytes) -> tuple[Caller, bytes | None] | None:
    """Take a ticket away; return for whom it was, and of which session. None if it is not there, or too old."""
    taken = sa.delete(ticket_table).where(ticket_table.c.hash == digest).returning(ticket_table.c.caller, _YOUNG)
    row = connection.execute(taken).one_or_none()
    if row is None or not row[1]:
        return None
    known: dict[str, Any] = row[0]
    session: str | None = known.pop(IN_SESSION, None)
    return Caller.from_json(known), None if session is None else bytes.fromhex(session)


def delete_old_tickets(connection: Connection) -> int:
    """Delete the tickets that nobody can use any more."""
    return connection.execute(sa.delete(ticket_table).where(~_YOUNG)).rowcount
