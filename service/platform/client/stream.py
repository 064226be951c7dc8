"""The connection below each client here: to where a URL leads, within a bound, with TLS where the URL says so."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import trio

CONNECT_LIMIT = 8.0  # seconds; TCP alone would try for two minutes, long after the network is back


@asynccontextmanager
async def open_stream(url: str) -> AsyncIterator[trio.abc.Stream]:
    """Connect to where an http or https URL leads, within CONNECT_LIMIT. Raises OSError and trio.TooSlowError.

    A certificate that is not trusted is an ssl.SSLError, which is an OSError and says why.
    """
    where = urlsplit(url)
    secure = where.scheme in {"https", "wss"}
    port = where.port or (443 if secure else 80)
    host = where.hostname or "127.0.0.1"
    with trio.fail_after(CONNECT_LIMIT):
        if not secure:
            stream: trio.abc.Stream = await trio.open_tcp_stream(host, port)
        else:
            stream = await _open_secure(host, port)
    try:
        yield stream
    finally:
        await trio.aclose_forcefully(stream)  # nobody waits for a peer that may be gone


async def _open_secure(host: str, port: int) -> trio.abc.Stream:
    context = ssl.create_default_context()
    stream = await trio.open_ssl_over_tcp_stream(host, port, ssl_context=context, https_compatible=True)
    try:
        await stream.do_handshake()  # not with what is sent first: there it would be a line that ended without a word
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        if isinstance(error.__cause__, OSError):  # of TLS, too
            raise error.__cause__ from None
        raise
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream
