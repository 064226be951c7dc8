"""Browsers that sign in: what the routes under /auth do, between the provider, its tokens and our sessions."""

import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

import structlog
import trio

from service.platform.errors import Invalid, Unavailable
from service.platform.identity.answer import Answer
from service.platform.identity.caller import Caller, Flaw, Unauthenticated
from service.platform.identity.gate import Gate
from service.platform.identity.keys import AWAY, PATIENCE, ProviderAway
from service.platform.identity.provider import CodeRefused, Provider
from service.platform.identity.sessions import Sessions
from service.platform.identity.sign_in import (
    Pending,
    add_pending,
    authorization_url,
    begin,
    check_target,
    drop_pending,
    read_pending,
    told,
)
from service.platform.identity.statistics import IdentityStatistics
from service.platform.identity.tokens import add_claims, refuse

log = structlog.get_logger(__name__)

CALLBACK = "/auth/callback"


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The end of a sign-in: the new session's id, where to go now, and the sign-ins that have not ended yet."""

    session: str
    target: str
    pending: str


class Browsers:
    """One for the process, where the service is a client of the provider."""

    def __init__(
        self,
        provider: Provider,
        gate: Gate,
        sessions: Sessions,
        statistics: IdentityStatistics,
        *,
        issuer: str,
        client: str,
        secret: str | None,
        scopes: str,
        lifetime: float,
    ) -> None:
        self._provider, self._gate, self._sessions = provider, gate, sessions
        self._statistics = statistics
        self._issuer, self._client, self._secret, self._scopes = issuer, client, secret, scopes
        self.lifetime = lifetime

    async def begin(self, target: str, *, pending: str, site: str) -> tuple[str, str]:
        """Return where a browser goes to sign in, and what it has to keep until it is back at `site`.

        `pending` is what it keeps already, as in another tab.
        """
        begun = begin(target)
        endpoint = await self._endpoint("authorization_endpoint")
        redirect_uri = site + CALLBACK
        url = authorization_url(endpoint, begun, client=self._client, redirect_uri=redirect_uri, scopes=self._scopes)
        return url, add_pending(pending, begun)

    def target(self, state: str, *, pending: str, to: str) -> str:
        """Return where a sign-in that was refused was to go: by its state, or by what is asked for, or nowhere else."""
        try:
            return read_pending(pending, state).target if state else check_target(to)
        except (Unauthenticated, Invalid):
            return "/"

    async def finish(self, answer: Answer, *, pending: str, site: str, before: str | None) -> SignedIn:
        """Return the session of whoever came back. Raises Unauthenticated for any that does not hold, Unavailable."""
        try:
            done = await self._finish(answer, pending=pending, site=site, before=before)
        except Unauthenticated as refused:
            self._statistics.sign_ins[str(refused.flaw)] += 1
            raise
        except Unavailable:
            self._statistics.sign_ins["away"] += 1
            raise
        self._statistics.sign_ins["signed in"] += 1
        return done

    async def _finish(self, answer: Answer, *, pending: str, site: str, before: str | None) -> SignedIn:
        begun = read_pending(pending, answer.state, secure=site.startswith("https://"))
        if answer.iss is not None and answer.iss != self._issuer:  # RFC 9207
            refuse("the answer is of another issuer", Flaw.ISSUER)
        if answer.error is not None or not answer.code:
            refuse(f"the identity provider did not sign anybody in{told(answer.error)}", Flaw.SIGN_IN)
        form = {"code": answer.code, "redirect_uri": site + CALLBACK, "code_verifier": begun.verifier}
        try:
            given = await self._provider.exchange(form, client=self._client, secret=self._secret)
        except CodeRefused as refused:
            refuse(str(refused), Flaw.SIGN_IN)
        except ProviderAway as away:
            raise Unavailable("the identity provider does not answer", retry_after=5, reason=AWAY) from away
        caller = await self._caller(given, begun)
        sid = caller.claims.get("sid")
        sid = sid if isinstance(sid, str) else None
        session = await self._sessions.begin(caller, lifetime=self.lifetime, sid=sid, before=before)
        log.info("signed in", subject=caller.label)
        return SignedIn(session, begun.target, drop_pending(pending, begun.state))

    async def _caller(self, given: dict[str, Any], pending: Pending) -> Caller:
        token, granted = given.get("id_token"), given.get("scope", self._scopes)
        if not isinstance(token, str):
            refuse("the identity provider gave no ID token", Flaw.SIGN_IN)
        caller = await self._gate.check_id_token(token, client=self._client, nonce=pending.nonce)
        if caller.name == caller.subject:  # many ID tokens hold no name (OpenID Connect Core 1.0, 5.4)
            caller = add_claims(caller, await self._userinfo(given.get("access_token")))
        scopes = filter(str.isprintable, granted.split() if isinstance(granted, str) else ())  # else none can be stored
        return replace(caller, scopes=caller.scopes.union(scopes), expires=time.time() + self.lifetime)

    async def _userinfo(self, token: object) -> dict[str, Any]:
        """Return what the provider tells of whoever signed in, nothing when it cannot: a name may be missing."""
        try:
            with trio.fail_after(PATIENCE):
                return await self._provider.userinfo(token) if isinstance(token, str) else {}
        except (ProviderAway, trio.TooSlowError) as error:
            log.warning("identity provider tells no name", error=str(error) or f"no answer within {PATIENCE:g} seconds")
            return {}

    async def sign_out(self, session: str, *, site: str) -> str:
        """End a session; return where the browser goes to end the provider's own, or back to the site's first page."""
        for subject in await self._sessions.end(session):
            log.info("signed out", subject=self._gate.label(subject))
        try:
            endpoint = await self._provider.endpoint("end_session_endpoint")
        except ProviderAway:
            return "/"
        query = urlencode({"client_id": self._client, "post_logout_redirect_uri": f"{site}/"})
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def logout(self, token: str) -> int:
        """End what the provider says in a logout token; return how many sessions. Raises Unauthenticated."""
        logout = await self._gate.check_logout(token, client=self._client)
        ended = await self._sessions.end_by_provider(subject=logout.subject, sid=logout.sid)
        for subject, sessions in Counter(ended).items():
            log.info("signed out by the provider", subject=self._gate.label(subject), sessions=sessions)
        return len(ended)

    async def _endpoint(self, name: str) -> str:
        try:
            return await self._provider.endpoint(name)
        except ProviderAway as away:
            raise Unavailable("the identity provider does not answer", retry_after=5, reason=AWAY) from away
