"""The routes of identity itself. They are there with and without an identity provider."""

import json
from typing import TYPE_CHECKING, Annotated, TypedDict
from urllib.parse import urlencode

from pydantic import Field
from pydantic.dataclasses import dataclass
from quart import Blueprint, Response, request
from quart_schema import validate_querystring

from service.platform.database import Database
from service.platform.errors import Conflict, Forbidden, Invalid
from service.platform.http.bodies import takes
from service.platform.http.callers import caller
from service.platform.http.limits import limited, unlimited
from service.platform.http.openapi import Media, refused_as, replies
from service.platform.http.refused_page import show_refusals
from service.platform.identity import (
    TICKET_SECONDS,
    Answer,
    Identity,
    Unauthenticated,
    anyone,
    cookies,
    make_ticket,
    session_of,
    signed_in,
)
from service.platform.server import UNASKED
from service.platform.settings import DEFAULT_PORTS, variable

if TYPE_CHECKING:
    from service.platform.identity.browsers import Browsers

SIGN_IN, CALLBACK, LOGOUT = "/auth/sign-in", "/auth/callback", "/auth/backchannel-logout"
MAX_TARGET = 2_000


class Ticket(TypedDict):
    """Offer `ticket.<ticket>` as a subprotocol beside the real one; good once, for so many seconds."""

    ticket: str
    expires_in: int


class Me(TypedDict):
    """Who is asking; `identity` says whether anybody is asked, `sign_in` whether a browser can sign in here."""

    identity: bool
    sign_in: bool
    signed_in: bool
    subject: str
    name: str


class SignedOut(TypedDict):
    """Where the browser goes now: to the provider, to end its session too, or to this site's first page."""

    to: str


@dataclass(frozen=True, kw_only=True)
class Target:
    to: Annotated[
        str, Field(max_length=MAX_TARGET, description=f"a path on this site, of at most {MAX_TARGET} characters")
    ] = "/"


def create_identity_routes(identity: Identity, database: Database) -> Blueprint:
    routes = Blueprint("identity", __name__)
    add_who(routes, identity, database)
    add_sign_in(routes, identity)
    return routes


def add_who(routes: Blueprint, identity: Identity, database: Database) -> None:
    @routes.post("/auth/ticket")
    @signed_in
    @limited(rate=50, body=1_024)
    @replies(Ticket, 201)
    @replies(Conflict)
    async def ticket() -> tuple[Ticket, int]:
        """Get a ticket that opens one websocket at any replica: for pages, which can set no header there."""
        if identity.gate is None:
            raise Conflict("no identity provider is set: everybody is a guest, and no ticket is needed")
        made = await make_ticket(database, await caller(), session_of(request.scope))
        identity.statistics.tickets["made"] += 1
        return {"ticket": made, "expires_in": TICKET_SECONDS}, 201

    @routes.get("/auth/me")
    @anyone
    @unlimited("sent from memory, and from a row now and then")
    @replies(Me)
    @replies(Unauthenticated)
    async def me() -> Me:
        """Say who is asking."""
        who = await caller()
        return {
            "identity": identity.gate is not None,
            "sign_in": identity.browsers is not None,
            "signed_in": who.signed_in,
            "subject": who.subject,
            "name": who.name,
        }


def add_sign_in(routes: Blueprint, identity: Identity) -> None:
    def again() -> str | None:
        """Return where the browser signs in anew, to where it was to go if that can be told and lies on this site."""
        if (here := identity.browsers) is None:
            return None
        target = here.target(
            request.args.get("state", ""),
            pending=request.cookies.get(cookies.PENDING, ""),
            to=request.args.get("to", "/"),
        )
        return f"{SIGN_IN}?{urlencode({'to': target if len(target) <= MAX_TARGET else '/'})}"

    show_refusals(routes, {SIGN_IN: again, CALLBACK: again})

    @routes.get(SIGN_IN)
    @anyone
    @limited(rate=10, concurrency=50)
    @validate_querystring(Target)
    @replies(Media(), 303)
    @replies(Conflict)
    @refused_as("text/html")
    async def sign_in(query_args: Target) -> Response:
        """Send a browser to the identity provider; it comes back signed in, to a path on this site."""
        earlier = request.cookies.get(cookies.PENDING, "")
        url, pending = await browsers(identity).begin(query_args.to, pending=earlier, site=site())
        return go(url, keep_pending(pending))

    @routes.get(CALLBACK)
    @anyone
    @limited(rate=10, concurrency=20)  # each asks the provider, and may begin a session
    @validate_querystring(Answer)
    @replies(Media(), 303)
    @replies(Unauthenticated)
    @replies(Conflict)
    @refused_as("text/html")
    async def callback(query_args: Answer) -> Response:
        """Take a browser back from the identity provider."""
        done = await browsers(identity).finish(
            query_args,
            pending=request.cookies.get(cookies.PENDING, ""),
            site=site(),
            before=request.cookies.get(cookies.SESSION),
        )
        session = cookie(cookies.SESSION, done.session, int(browsers(identity).lifetime))
        return go(done.target, session, keep_pending(done.pending))

    @routes.post("/auth/sign-out")
    @anyone
    @limited()
    @replies(SignedOut)
    @replies(Conflict)
    async def sign_out() -> Response:
        """End this browser's session, its websockets included."""
        if UNASKED in request.scope:
            raise Forbidden("a page of another origin signs nobody out here")
        to = await browsers(identity).sign_out(request.cookies.get(cookies.SESSION, ""), site=site())
        response = Response(json.dumps({"to": to}), content_type="application/json")
        response.headers.add("Set-Cookie", cookie(cookies.SESSION, "", 0))
        return response

    @routes.post(LOGOUT)
    @anyone
    @limited(rate=50, concurrency=10, body=16_384)  # the provider is one address; a token has 12 kB at most
    @takes("application/x-www-form-urlencoded")
    @replies(Media(), 200)
    @replies(Conflict)
    async def backchannel_logout() -> Response:
        """End the sessions that the identity provider names in a logout token, a field of a form."""
        token = (await request.form).get("logout_token", "")
        here = browsers(identity)
        if not token:
            raise Invalid("logout_token: is missing; must be a field of a form")
        try:
            await here.logout(token)
        except Unauthenticated as error:
            raise Invalid(f"logout_token: {error}") from error  # the status that the standard has
        return Response("", headers={"Cache-Control": "no-store"})


def browsers(identity: Identity) -> "Browsers":
    if identity.gate is None:
        unset = f"no identity provider is set ({variable('auth_issuer')})"
        raise Conflict(f"{unset}: everybody is a guest, and nobody signs in")
    if identity.browsers is None:
        raise Conflict(f"browsers cannot sign in here: {variable('auth_client_id')} is not set")
    return identity.browsers


def site() -> str:
    """Return the address of this site as the browser has it, without a slash at the end. Raises Invalid."""
    host = request.headers.get("Host", "")  # Werkzeug's own reading of it leaves out a name with an underscore
    if not host:
        raise Invalid("the Host is missing: it is where the browser comes back to")
    return f"{request.scheme}://{host.lower().removesuffix(f':{DEFAULT_PORTS[request.scheme]}')}"


def cookie(name: str, value: str, seconds: int) -> str:
    """Return a Set-Cookie that no script reads, no other host and no plain-text connection gets."""
    return f"{name}={value}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax"


def keep_pending(pending: str) -> str:
    return cookie(cookies.PENDING, pending, cookies.PENDING_SECONDS if pending else 0)


def go(url: str, *cookies: str) -> Response:
    response = Response("", 303, {"Location": url, "Cache-Control": "no-store"})
    for one in cookies:
        response.headers.add("Set-Cookie", one)
    return response
