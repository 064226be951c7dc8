"""The routes of identity itself: a ticket for a websocket. They are there with and without an identity provider."""

from typing import TypedDict

from quart import Blueprint

from service.platform.database import Database
from service.platform.errors import Conflict
from service.platform.http.callers import caller
from service.platform.http.openapi import replies
from service.platform.identity import TICKET_SECONDS, Identity, make_ticket, signed_in


class Ticket(TypedDict):
    """Offer `ticket.<ticket>` as a subprotocol beside the real one; good once, for so many seconds."""

    ticket: str
    expires_in: int


def create_identity_routes(identity: Identity, database: Database) -> Blueprint:
    routes = Blueprint("identity", __name__)

    @routes.post("/auth/ticket")
    @signed_in
    @replies(Ticket, 201)
    @replies(Conflict)
    async def ticket() -> tuple[Ticket, int]:
        """Get a ticket that opens one websocket at any replica: for pages, which can set no header there."""
        if identity.gate is None:
            raise Conflict("no identity provider is set: everybody is a guest, and no ticket is needed")
        made = await make_ticket(database, await caller())
        return {"ticket": made, "expires_in": TICKET_SECONDS}, 201

    return routes
