"""A probe is a probe for GET and HEAD, whatever the query: monitors ask in either way."""

import pytest

from service.platform.server import Application
from tests.platform.server.conftest import running
from tests.platform.server.wire import Reader, get


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("target", ["/livez", "/livez?from=monitor", "/livez?"])
async def test_a_probe_answers_get_and_head_with_any_query(app: Application, target: str, version: str) -> None:
    async with running(app, probes={"/livez": lambda: (200, b"alive")}) as server:
        async with await server.connect() as client:
            await client.send_all(get(target, version=version))
            status, _, body = await Reader(client).response()
        async with await server.connect() as client:
            await client.send_all(b"HEAD" + get(target, version="1.0").removeprefix(b"GET"))
            answer = await Reader(client).rest()
        async with await server.connect() as client:
            question = b"HEAD" + get(target).removeprefix(b"GET")
            await client.send_all(question + get(target, headers=["Connection: close"]))
            kept = await Reader(client).rest()

    assert (status, body) == (200, b"alive")
    assert answer.startswith(b"HTTP/1.1 200 ")
    for header in (
        b"x-content-type-options: nosniff",
        b"referrer-policy: no-referrer",
        b"frame-ancestors",
        b"no-store",
    ):
        assert header in answer.lower()
    assert b"content-length: 5\r\n" in answer.lower()
    assert answer.endswith(b"\r\n\r\n")
    assert kept.count(b"HTTP/1.1 200 ") == 2
    assert kept.count(b"alive") == 1


@pytest.mark.parametrize("handshake", ["", "Upgrade: websocket\r\nConnection: Upgrade\r\n"], ids=["probe", "handshake"])
async def test_a_body_that_cannot_be_read_is_a_400_and_no_failure(app: Application, handshake: str) -> None:
    """What is answered ahead of every task looks for the end of the request, and may find nonsense there."""
    target = "/ws" if handshake else "/livez"
    head = f"GET {target} HTTP/1.1\r\nHost: x\r\n{handshake}Transfer-Encoding: chunked\r\n\r\n".encode()
    async with running(app, probes={"/livez": lambda: (200, b"alive")}) as server, await server.connect() as client:
        await client.send_all(head + b"[[[[no chunk\r\n")
        answer = await Reader(client).rest()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert server.statistics.connection_errors == {}
