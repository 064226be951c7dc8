"""docs/add-a-feature.md: a file that is sent again, as the first try was cut, is stored as it was sent."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, TypedDict
from urllib.parse import urlsplit

import psycopg
import trio
from pydantic import Field
from quart import Blueprint, request
from sqlalchemy import Connection, text

from service.platform.feature import Feature, Resources
from service.platform.http import limited, no_deadline, takes
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings

PAGE = Path(__file__).parents[2] / "docs" / "add-a-feature.md"
PDF = {"Content-Type": "application/pdf"}
TABLES = """
    CREATE TABLE scan (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, of bigint);
    CREATE TABLE part (scan bigint, number bigint, content bytea, PRIMARY KEY (scan, number));
    CREATE TABLE scanned (of bigint PRIMARY KEY, scan bigint)"""


class Stored(TypedDict):
    parts: int


def insert_scan(connection: Connection, *, order: int) -> int:
    new = text("INSERT INTO scan (of) VALUES (:order) RETURNING id")
    number: int = connection.execute(new, {"order": order}).scalar_one()
    return number


def insert_part(connection: Connection, *, scan: int, number: int, content: bytes) -> None:
    new = text("INSERT INTO part VALUES (:scan, :number, :content)")
    connection.execute(new, {"scan": scan, "number": number, "content": content})


def finish_scan(connection: Connection, *, order: int, scan: int) -> None:
    whole = text("INSERT INTO scanned VALUES (:order, :scan) ON CONFLICT (of) DO UPDATE SET scan = :scan")
    connection.execute(whole, {"order": order, "scan": scan})


@asynccontextmanager
async def open_scans(resources: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("scans", __name__)
    known: dict[str, Any] = {
        "routes": routes, "database": resources.database, "request": request, "Stored": Stored, "anyone": anyone,
        "Id": Annotated[int, Field(ge=1, le=2**63 - 1)], "limited": limited, "takes": takes, "no_deadline": no_deadline,
        "insert_scan": insert_scan, "insert_part": insert_part, "finish_scan": finish_scan,
    }  # fmt: skip
    view = re.findall(
        r'^@routes\.put\("/api/orders/<int:id>/scan"\)$.*?(?=^$)', PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    exec(view[0], known)  # noqa: S102  the page's own
    yield routes


async def test_a_file_whose_first_try_was_cut_is_the_one_that_was_sent_again(
    make_settings: MakeSettings, writable_database_url: str
) -> None:
    free = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
    settings = make_settings(**free, max_body_bytes=32 << 20, database_url=writable_database_url)
    first, again = b"%PDF-1" * 10_000, b"%PDF-2" * 20_000
    with psycopg.connect(writable_database_url.replace("+psycopg", ""), autocommit=True) as look, trio.fail_after(60):
        look.execute(TABLES)
        async with booted(settings, [Feature("scans", open=open_scans)]) as urls, Client(urls.public) as client:
            where = urlsplit(urls.public)
            async with await trio.open_tcp_stream(where.hostname or "", where.port or 80) as cut:
                head = f"PUT /api/orders/7/scan HTTP/1.1\r\nHost: {where.netloc}\r\nContent-Type: application/pdf\r\n"
                await cut.send_all(f"{head}Content-Length: {len(first)}\r\n\r\n".encode() + first[:30_000])
                while look.execute("SELECT count(*) FROM part").fetchone() == (0,):
                    await trio.sleep(0.01)
            answer = await client.put("/api/orders/7/scan", content=again, headers=PDF)
        stored = look.execute(
            "SELECT content FROM part JOIN scanned ON part.scan = scanned.scan WHERE of = 7 ORDER BY number"
        )
        parts = [bytes(content) for [content] in stored]

    assert (answer.status_code, answer.json()) == (200, {"parts": len(parts)})
    assert b"".join(parts) == again
