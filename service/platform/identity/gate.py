"""Who is asking: from what a request carries to a Caller, once a request.

A token that was verified is remembered until it expires, by its hash and within a bound: its signature costs a hundred
times what the rest does. When a key of the issuer's is gone, all that is remembered is forgotten.
"""

import hmac
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any

import trio

from service.platform.errors import Unavailable
from service.platform.identity.caller import GUEST, IN_SCOPE, IN_SESSION, STAY, TICKETS, Caller, Flaw, Unauthenticated
from service.platform.identity.cookies import SESSION
from service.platform.identity.ids import read_id
from service.platform.identity.keys import Keys
from service.platform.identity.public_keys import PublicKey
from service.platform.identity.sessions import Sessions
from service.platform.identity.sign_in import LOGOUT_TYPES, Logout, check_access_token, check_id_token, check_logout
from service.platform.identity.statistics import IdentityStatistics
from service.platform.identity.stay import Stay
from service.platform.identity.tokens import Rules, read_claims, read_header, refuse, verify
from service.platform.server import UNASKED

MOST_REMEMBERED = 2_000  # tokens; each takes some kilobytes
_ONE_LOOK, _REDEEMED = "one look", "redeemed"  # where a scope has the lock and the outcome of using up its ticket


async def _no_tickets(_: str) -> tuple[Caller, bytes | None] | None:
    return None


class Gate:
    """What the application asks before a handler runs; one for the process."""

    def __init__(
        self,
        rules: Rules,
        keys: Keys[PublicKey],
        log_key: bytes,
        statistics: IdentityStatistics,
        *,
        redeem: Callable[[str], Awaitable[tuple[Caller, bytes | None] | None]] = _no_tickets,
        sessions: Sessions | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._rules = rules
        self._keys = keys
        self._log_key = log_key
        self._statistics = statistics
        self._redeem = redeem
        self._sessions = sessions
        self._now = now
        self._remembered: OrderedDict[bytes, Caller] = OrderedDict()

    async def identify(self, scope: MutableMapping[str, Any]) -> Caller:
        """Return who asks, GUEST when the request carries nothing that says so.

        Raises Unauthenticated for what does not hold, Unavailable when the issuer's keys are not known yet.
        """
        known: Caller | None = scope.get(IN_SCOPE)
        if known is None:
            try:
                if (token := bearer(scope["headers"])) is not None:
                    digest = digest_of(token)
                    known = self._recall(digest) or await self._verify(token.decode("latin-1"), digest)
            except Unauthenticated as refused:
                self._statistics.tokens[str(refused.flaw)] += 1
                raise
            except Unavailable:
                self._statistics.tokens["no keys"] += 1
                raise
            known = scope[IN_SCOPE] = known or await self._find(scope)
            if known.subject and (stay := scope.get(STAY)) is not None:
                stay.limit(known.expires - self._now())
        return known

    def forget(self) -> None:
        """Forget what was verified: a key is gone."""
        self._remembered.clear()

    def label(self, subject: str) -> str:
        """Return what the log has in place of a subject: the same on all replicas, and no way back."""
        return hmac.new(self._log_key, subject.encode(), sha256).hexdigest()[:16]

    @property
    def remembered(self) -> int:
        return len(self._remembered)

    async def _find(self, scope: MutableMapping[str, Any]) -> Caller:
        """Return who asks without a token: by a ticket, or by a session's cookie."""
        if tickets := scope.get(TICKETS, ()):
            async with scope.setdefault(_ONE_LOOK, trio.Lock()):  # another task that asks would use it up
                return scope.get(IN_SCOPE) or await self._take_ticket(tickets, scope)
        if UNASKED not in scope and (value := session_cookie(scope["headers"])) and (session := read_id(value)):
            # A guest's, when it has ended: its browser is shown the way to sign in.
            return await self._find_session(session, scope) or GUEST
        return GUEST

    async def _take_ticket(self, tickets: Sequence[str], scope: MutableMapping[str, Any]) -> Caller:
        caller = await self._find_ticket(tickets[0], scope) if len(tickets) == 1 else None
        holds = caller is not None and self._now() < caller.expires
        self._statistics.tickets["taken" if holds else "refused"] += 1
        if caller is None or not holds:
            refuse("the ticket does not hold; each is good once, for 30 seconds", Flaw.TICKET)
        scope[IN_SCOPE] = caller
        return caller

    async def _find_ticket(self, ticket: str, scope: MutableMapping[str, Any]) -> Caller | None:
        """Return for whom a ticket is; None when it does not hold, or the session in which it was made has ended.

        Of one that was made in a session, it is the session that says until when, by whichever clock is here.
        """
        if _REDEEMED not in scope:  # by a look that ended before it knew of the session
            scope[_REDEEMED] = await self._redeem(ticket)
        caller, session = scope[_REDEEMED] or (None, None)
        return caller if session is None else await self._find_session(session, scope)

    async def _find_session(self, digest: bytes, scope: MutableMapping[str, Any]) -> Caller | None:
        """Return whose a session is, None when it has ended; a websocket on it ends with it from now on."""
        if (sessions := self._sessions) is None:  # no browser signs in here, or none any more
            return None
        stay: Stay | None = scope.get(STAY)
        if stay is not None:  # before the look: an end in between must reach it
            stay.on_gone = sessions.hold(digest, stay)
        caller = await sessions.find(digest)
        if caller is None:
            return None
        scope[IN_SESSION] = digest
        return caller

    async def check_id_token(self, token: str, *, client: str, nonce: str) -> Caller:
        """Return whoever an ID token says has signed in. Raises Unauthenticated, Unavailable."""
        rules = replace(self._rules, audience=client, audience_field="auth_client_id")
        header = read_header(token, rules)
        caller = verify(token, header, await self._key(header.kid), rules, now=self._now())
        check_id_token(caller.claims, nonce=nonce, client=client)
        return replace(caller, label=self.label(caller.subject))

    async def check_logout(self, token: str, *, client: str) -> Logout:
        """Return what a logout token ends. Raises Unauthenticated, Unavailable."""
        rules = replace(self._rules, audience=client, audience_field="auth_client_id")
        header = read_header(token, rules, LOGOUT_TYPES)
        return check_logout(read_claims(token, header, await self._key(header.kid)), rules, now=self._now())

    async def _key(self, kid: str | None) -> PublicKey:
        key = await self._keys.find(kid)
        if key is None and kid is None:  # whoever has several must name it (OpenID Connect Core 1.0, 10.1)
            refuse("the token does not name its key (kid), and the issuer does not have just one", Flaw.KEY)
        if key is None:
            refuse("the token is signed with a key that the issuer does not have", Flaw.KEY)
        return key

    def _recall(self, digest: bytes) -> Caller | None:
        """Return whose a token is that was verified before and holds still. Each request passes here: be quick."""
        if (caller := self._remembered.get(digest)) is None:
            return None
        if self._now() >= caller.expires:
            del self._remembered[digest]
            return None
        self._remembered.move_to_end(digest)
        self._statistics.remembered += 1
        return caller

    async def _verify(self, token: str, digest: bytes) -> Caller:
        header = read_header(token, self._rules)
        key = await self._key(header.kid)
        verified = verify(token, header, key, self._rules, now=self._now())
        check_access_token(verified.claims)
        caller = replace(verified, label=self.label(verified.subject))
        self._remember(digest, caller)
        self._statistics.tokens["accepted"] += 1
        return caller

    def _remember(self, digest: bytes, caller: Caller) -> None:
        self._remembered[digest] = caller
        if len(self._remembered) > MOST_REMEMBERED:
            self._remembered.popitem(last=False)


def digest_of(token: bytes) -> bytes:
    """Return what a token is remembered by: no way back. Not by BLAKE2, which a system in FIPS mode may refuse."""
    return sha256(token).digest()


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return the token in `Authorization: Bearer`, None without one. Raises Unauthenticated for more than one."""
    given = [value for name, value in headers if name == b"authorization"]  # ASGI has names in lower case
    tokens = [value[7:].strip() for value in given if value[:7].lower() == b"bearer "]
    if tokens and len(given) > 1:
        refuse("more than one Authorization", Flaw.FORM)
    return tokens[0] if tokens else None


def session_cookie(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the id in the session's cookie, None without one, or with two that differ."""
    wanted = f"{SESSION}=".encode()
    found = {
        part.strip()[len(wanted) :]
        for name, value in headers
        if name.lower() == b"cookie"
        for part in value.split(b";")
        if part.strip().startswith(wanted)
    }
    return found.pop().decode("latin-1") if len(found) == 1 else None
