"""Single-use tickets: how a browser's page opens a websocket, as it can set no header there.

A ticket is random, good for 30 seconds and one upgrade at any replica, and is offered as a subprotocol beside the real
one: `feed.v1, ticket.<value>`. An address would end up in logs and histories, so none is ever taken from there.
"""

from service.platform.database import Database
from service.platform.identity import store
from service.platform.identity.caller import Caller
from service.platform.identity.ids import make_id, read_id

PREFIX = "ticket."


async def make_ticket(database: Database, caller: Caller, session: bytes | None) -> str:
    """Return a ticket for somebody; one that is made in a session holds no longer than it."""
    value, digest = make_id()
    await database.run(store.insert_ticket, digest=digest, caller=caller, session=session)
    return value


async def redeem(database: Database, value: str) -> tuple[Caller, bytes | None] | None:
    """Return for whom a ticket is, and of which session, once; None when it does not hold, or no more."""
    digest = read_id(value)
    return None if digest is None else await database.run(store.redeem_ticket, digest=digest)


def split_tickets(offered: list[str]) -> tuple[list[str], list[str]]:
    """Return the subprotocols that a client offers without the tickets among them, and the tickets."""
    tickets = [one.removeprefix(PREFIX) for one in offered if one.startswith(PREFIX)]
    return [one for one in offered if not one.startswith(PREFIX)], tickets
