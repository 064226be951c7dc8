"""What identity reads and writes: plain functions of a connection."""

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from service.platform.identity.caller import Caller
from service.platform.identity.tables import secret_table, ticket_table


def select_log_key(connection: Connection) -> bytes:
    """Return the key of the hashes that the log has in place of subjects."""
    value: str = connection.execute(sa.select(secret_table.c.value).where(secret_table.c.name == "log")).scalar_one()
    return value.encode()


TICKET_SECONDS = 30


def insert_ticket(connection: Connection, *, digest: bytes, caller: Caller) -> None:
    """Keep a ticket's hash, and for whom it is."""
    known = asdict(caller) | {"scopes": sorted(caller.scopes)}
    connection.execute(sa.insert(ticket_table).values(hash=digest, caller=known))


def redeem_ticket(connection: Connection, *, digest: bytes) -> Caller | None:
    """Take a ticket away, and return for whom it was; None for one that is not there, or was made too long ago."""
    young = ticket_table.c.made > sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, TICKET_SECONDS)
    taken = sa.delete(ticket_table).where(ticket_table.c.hash == digest).returning(ticket_table.c.caller, young)
    row = connection.execute(taken).one_or_none()
    if row is None or not row[1]:
        return None
    known: dict[str, Any] = row[0]
    return Caller(**known | {"scopes": frozenset(known["scopes"])})


def delete_old_tickets(connection: Connection) -> int:
    """Delete the tickets that nobody can use any more."""
    old = ticket_table.c.made <= sa.func.now() - sa.func.make_interval(0, 0, 0, 0, 0, 0, TICKET_SECONDS)
    return connection.execute(sa.delete(ticket_table).where(old)).rowcount
