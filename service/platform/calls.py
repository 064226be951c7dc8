"""Calls to other services over HTTP: a client that opens without holding the event loop, and what a missing answer is.

Deadlines go around calls, as around all else; each scope says whom it waits for.
"""

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from http.cookiejar import DefaultCookiePolicy

import httpx2
import trio

from service.platform.errors import PeerAway, leaves
from service.platform.settings import SettingsError
from service.platform.telemetry.tracing import current_traceparent

# What httpx2 raises for a proxy of the environment. Its own words may hold a part of a password.
_UNUSABLE: Mapping[type[Exception], str] = {
    ImportError: "a SOCKS proxy",
    ValueError: "one of another scheme",
    httpx2.InvalidURL: "what is no URL",
}
_NO_ANSWER = (httpx2.RequestError, OSError)  # HTTPStatusError, of `raise_for_status`, is about an answer
SILENCE = 5.0  # seconds without a byte, or for a place among the client's connections, while no deadline is nearer


class _OfNoAnswer(DefaultCookiePolicy):
    """Cookies that the service has given itself are sent, and none kept of answers."""

    def set_ok(self, *_: object) -> bool:
        return False


@asynccontextmanager
async def open_client(base_url: str = "") -> AsyncIterator[httpx2.AsyncClient]:
    """Yield a client that trusts what the machine trusts (SSL_CERT_FILE), and takes HTTPS_PROXY into account.

    Open one for as long as a feature lives: it keeps its connections, and reading the certificates takes some 30 to
    100 ms, which a thread does. Redirects are not followed, and cookies of answers not kept: what is set for one caller
    would go with the calls of all. The trace that a call is made in goes with it. Raises SettingsError for a proxy that
    cannot be used, or an SSLKEYLOGFILE.
    """
    try:
        context = await trio.to_thread.run_sync(ssl.create_default_context)
    except OSError as error:
        raise SettingsError([f"SSLKEYLOGFILE: must be a file that can be written: {error.strerror}"]) from None
    base = httpx2.URL(base_url)
    try:
        client = httpx2.AsyncClient(
            base_url=base,
            verify=context,
            timeout=httpx2.Timeout(SILENCE),
            follow_redirects=False,
            event_hooks={"request": [_add_trace]},
        )
    except tuple(_UNUSABLE) as error:
        given = next(words for kind, words in _UNUSABLE.items() if isinstance(error, kind))
        wanted = "must be such as http://proxy.example.org:3128"
        raise SettingsError([f"HTTPS_PROXY, HTTP_PROXY or ALL_PROXY: {wanted}, not {given}"]) from None
    client.cookies.jar.set_policy(_OfNoAnswer())
    async with client:
        yield client


async def _add_trace(request: httpx2.Request) -> None:
    if (traceparent := current_traceparent()) is not None:
        request.headers.setdefault("traceparent", traceparent)


@contextmanager
def answered_by(name: str, *, within: float) -> Iterator[None]:
    """Give the calls inside so many seconds together; raises PeerAway, by that name, when there is no whole answer.

    A status is an answer. Without one nobody knows whether the other did what was asked: a call that changes something
    carries a key by which the other knows it again.
    """
    try:
        with trio.fail_after(within):
            yield
    except trio.TooSlowError as error:
        raise PeerAway(f"{name} has not answered within {within:g} s") from error
    except _NO_ANSWER as error:
        raise _away(name, error) from error
    except BaseExceptionGroup as group:  # of calls that were made at once
        if group.split(_NO_ANSWER)[1] is not None:
            raise
        raise _away(name, next(leaves(group))) from group


def _away(name: str, error: BaseException) -> PeerAway:
    return PeerAway(f"{name} cannot be reached ({type(error).__name__})")
