"""Single-use tickets: how a browser's page opens a websocket, as it can set no header there.

A ticket is random, good for 30 seconds and one upgrade at any replica, and is offered as a subprotocol beside the real
one: `feed.v1, ticket.<value>`. An address would end up in logs and histories, so none is ever taken from there.
"""

import re
import secrets
from hashlib import sha256

from service.platform.database import Database
from service.platform.identity import store
from service.platform.identity.caller import Caller

PREFIX = "ticket."
_FORM = re.compile(r"[A-Za-z0-9_-]{43}")


async def make_ticket(database: Database, caller: Caller, session: bytes | None) -> str:
    """Return a ticket for somebody; one that is made in a session holds no longer than it."""
    value = secrets.token_urlsafe(32)
    await database.run(store.insert_ticket, digest=_digest(value), caller=caller, session=session)
    return value


async def redeem(database: Database, value: str) -> tuple[Caller, bytes | None] | None:
    """Return for whom a ticket is, and of which session, once; None when it does not hold, or no more."""
    if not _FORM.fullmatch(value):
        return None
    return await database.run(store.redeem_ticket, digest=_digest(value))


def split_tickets(offered: list[str]) -> tuple[list[str], list[str]]:
    """Return the subprotocols that a client offers without the tickets among them, and the tickets."""
    tickets = [one.removeprefix(PREFIX) for one in offered if one.startswith(PREFIX)]
    return [one for one in offered if not one.startswith(PREFIX)], tickets


def _digest(value: str) -> bytes:
    return sha256(value.encode()).digest()
