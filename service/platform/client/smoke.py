"""`service smoke`, for `helm test`: every replica behind a name answers.

A client of its own, small enough to read: it checks the service by what is on the wire, not by the service's code.
"""

import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from urllib.parse import SplitResult, urlsplit

import trio

from service.platform.client.http import FAILURES, HttpClient

PATHS = ("/livez", "/readyz", "/healthz", "/openapi.json")  # the last goes the whole way, past SERVICE_ALLOWED_HOSTS
PATIENCE = 10  # seconds for one answer
DISCOVERY = 15  # seconds until as many replicas as promised have an address


type Address = tuple[str, int]


class SmokeError(Exception):
    """What did not work, with the address of the replica that it did not work on."""


async def smoke(
    urls: Sequence[str], *, replicas: int, host: str = "", checks: Iterable[str] = ()
) -> AsyncIterator[str]:
    """Yield a line for each thing that works; raises SmokeError for the first that does not.

    Behind the platform's own look come the checks of features: the module that a feature names as `smoke` has an
    asynchronous generator `smoke(addresses, host)` that does the same (`connect`, of `service.platform.client`, gives
    it a line to a replica).

    `urls` lead to the replicas one by one, as the name of a headless Service does. `host` is sent as Host.
    """
    host = host or urlsplit(urls[0]).netloc
    addresses = await find(urls, replicas)
    for address in addresses:
        for path in PATHS:
            await _get(address, host, path)
        yield f"ok    {address[0]}:{address[1]} answers {' '.join(PATHS)}"
    for check in checks:
        async for line in import_module(check).smoke(addresses, host):
            yield line


async def find(urls: Sequence[str], replicas: int) -> list[Address]:
    """Return the addresses behind the names, once there are at least as many as wanted."""
    places = [urlsplit(url) for url in urls]
    names = ", ".join(place.netloc for place in places)
    found: list[Address] = []
    reason = ""
    with trio.move_on_after(DISCOVERY):
        while True:
            try:
                found = sorted({address for place in places for address in await _resolve(place)})
            except OSError as error:
                reason = f": {error}"
            if len(found) >= replicas:
                return found
            await trio.sleep(1)
    raise SmokeError(f"{names} leads to {len(found)} replicas, and {replicas} were promised{reason}")


async def _resolve(place: SplitResult) -> list[Address]:
    infos = await trio.socket.getaddrinfo(place.hostname, place.port or 80, type=socket.SOCK_STREAM)
    return [(str(info[4][0]), int(info[4][1])) for info in infos]


@asynccontextmanager
async def connect(address: Address) -> AsyncIterator[trio.SocketStream]:
    """Yield a line to a replica; whatever fails on it becomes a SmokeError that names the replica."""
    try:
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream(*address)
    except (OSError, trio.TooSlowError) as error:
        raise SmokeError(f"{address[0]}:{address[1]} takes no connection: {str(error) or 'too slow'}") from error
    async with stream:
        try:
            yield stream
        except FAILURES as error:
            raise SmokeError(f"{address[0]}:{address[1]} did not answer within {PATIENCE} s, or hung up") from error


async def _get(address: Address, host: str, path: str) -> None:
    async with connect(address) as stream:
        with trio.fail_after(PATIENCE):
            answer = await HttpClient(stream, host).ask(path)
    if answer.status != 200:
        said = answer.body[:200].decode(errors="replace")
        raise SmokeError(f"{address[0]}:{address[1]}{path} says {answer.status}: {said}")
