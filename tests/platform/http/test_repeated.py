"""What a caller sends comes back cut: an answer, or a line of the log, is never as long as somebody else decides."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

import pytest
import structlog.testing
import trio
from pydantic import Field
from pydantic.dataclasses import dataclass
from quart import Blueprint, request
from quart_schema import validate_querystring, validate_request

from service.platform.feature import Feature, Resources
from service.platform.http.limits import unlimited
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings

LONG = "x" * 12_000  # below what headers may have together
VERY_LONG = "x" * 300_000
MOST = 3_000  # bytes of an answer, its head included, and of a line


@dataclass(frozen=True)
class First:
    kind: Literal["first"]


@dataclass(frozen=True)
class Second:
    kind: Literal["second"]


@dataclass(frozen=True, kw_only=True)
class Told:
    sizes: dict[str, int] | None = None
    one: Annotated[First | Second, Field(discriminator="kind")] | None = None


@dataclass(frozen=True, kw_only=True)
class Query:
    size: Annotated[int, Field(le=5)] = 0


@asynccontextmanager
async def open_repeating(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("repeating", __name__)

    @routes.post("/declared")
    @anyone
    @unlimited("a test's")
    @validate_request(Told)
    async def declared(data: Told) -> dict[str, Any]:
        return {}

    @routes.post("/plain")
    @anyone
    @unlimited("a test's")
    async def plain() -> dict[str, Any]:
        await request.get_json()
        return {}

    @routes.get("/query")
    @anyone
    @unlimited("a test's")
    @validate_querystring(Query)
    async def query(query_args: Query) -> dict[str, Any]:
        return {}

    @routes.get("/part/<part>")
    @anyone
    @unlimited("a test's")
    async def part(part: Annotated[str, Field(pattern="^[0-9]+$")]) -> dict[str, Any]:
        return {}

    @routes.get("/number/<int:number>")
    @anyone
    @unlimited("a test's")
    async def number(number: int) -> dict[str, Any]:
        return {}

    yield routes


REPEATING = Feature("repeating", open=open_repeating)


def ask(
    target: str = "/plain", *, method: str = "POST", host: str = "localhost", body: str = "{}", **headers: str
) -> bytes:
    given = {"content_type": "application/json"} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in given.items()]
    head = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Connection: close", *lines]
    return "\r\n".join([*head, f"Content-Length: {len(body)}", "", body]).encode()


UPGRADE = {"upgrade": "websocket", "connection": "Upgrade", "sec_websocket_version": "13",
           "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ=="}  # fmt: skip
CASES = {
    "path": (404, ask(f"/{LONG}", method="GET")),
    "path outside ASCII": (404, ask("/" + "%C3%A4" * 2_000, method="GET")),
    "path of a refusal": (403, ask(f"/{LONG}", origin="http://else.example")),
    "path of a websocket": (404, ask(f"/{LONG}", method="GET", body="", **UPGRADE)),
    "query": (400, ask(f"/query?size={LONG}", method="GET")),
    "part": (400, ask(f"/part/{LONG}", method="GET")),
    "number of more digits than Python reads": (404, ask(f"/number/{'9' * 5_000}", method="GET")),
    "host": (421, ask(host="x." * 6_000 + "example")),
    "host that is none": (400, ask(host=f"{LONG}.example")),
    "origin": (403, ask(origin=f"http://{LONG}")),
    "origin of a websocket": (403, ask(method="GET", body="", origin=f"http://{LONG}", **UPGRADE)),
    "content type": (415, ask(content_type=f"text/{LONG}")),
    "method": (404, ask("/nowhere", method=LONG.upper())),
    "request id": (404, ask("/nowhere", method="GET", x_request_id=LONG)),
    "name given twice": (400, ask(body=f'{{"{VERY_LONG}": 1, "{VERY_LONG}": 1}}')),
    "names in each other": (400, ask(body="".join(f'{{"{LONG}":' for _ in range(50)) + "NaN" + 50 * "}")),
    "name of a declared mapping": (400, ask("/declared", body=f'{{"sizes": {{"{VERY_LONG}": "a"}}}}')),
    "value of a declared mapping": (400, ask("/declared", body=f'{{"sizes": {{"a": "{VERY_LONG}"}}}}')),
    "tag of a union": (400, ask("/declared", body=f'{{"one": {{"kind": "{VERY_LONG}"}}}}')),
    "client behind a proxy": (404, ask("/nowhere", method="GET", x_forwarded_for=f"fe80::1%{LONG}")),
}


async def answer_to(url: str, sent: bytes) -> bytes:
    async with await trio.open_tcp_stream("127.0.0.1", int(url.rpartition(":")[2])) as stream:
        await stream.send_all(sent)
        return b"".join([part async for part in stream])


@pytest.mark.parametrize("case", CASES)
async def test_an_answer_and_its_lines_are_short_whatever_was_sent(make_settings: MakeSettings, case: str) -> None:
    status, sent = CASES[case]
    free = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    settings = make_settings(**free, allowed_hosts="localhost", trusted_proxies="127.0.0.1")
    async with booted(settings, [REPEATING]) as urls:
        with structlog.testing.capture_logs() as logged:
            answer = await answer_to(urls.public, sent)

    assert int(answer.split()[1]) == status
    assert len(answer) < MOST
    assert [line for line in logged if len(repr(line)) >= MOST] == []
    assert logged, "the request's own line"
