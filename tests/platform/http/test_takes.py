"""Bodies that are no JSON: taken where a route says so, and nowhere else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from quart import Blueprint, request

from service.platform.feature import Feature, Resources
from service.platform.http import limited, takes, unlimited
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
LARGE = b"\0" * (1 << 20)


@asynccontextmanager
async def open_files(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("files", __name__)

    @routes.put("/files/<int:id>")
    @anyone
    @limited(body=2 << 20)
    @takes("application/octet-stream", "Text/CSV")
    async def put(id: int) -> dict[str, int]:
        return {"id": id, "size": sum([len(part) async for part in request.body])}

    @routes.put("/other")
    @anyone
    @unlimited("a test's")
    async def other() -> dict[str, int]:
        return {}

    yield routes


async def put(
    make_settings: MakeSettings, path: str, body: bytes = b"a", **headers: str
) -> tuple[int, dict[str, object]]:
    settings = make_settings(**FREE, max_body_bytes=4 << 20)
    with trio.fail_after(60):
        async with booted(settings, [Feature("files", open=open_files)]) as urls, Client(urls.public) as client:
            answer = await client.put(
                path, content=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
            )
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    "media", ["application/octet-stream", "text/csv; charset=utf-8", "APPLICATION/Octet-Stream", "application/json"]
)
async def test_a_route_takes_what_it_declares_and_json(make_settings: MakeSettings, media: str) -> None:
    assert await put(make_settings, "/files/7", LARGE, Content_Type=media) == (200, {"id": 7, "size": len(LARGE)})


@pytest.mark.parametrize(
    ("path", "media", "detail"),
    [
        (
            "/files/7",
            "application/pdf",
            "application/json, application/octet-stream or text/csv; this one is 'application/pdf'",
        ),
        ("/files/7", "", "application/json, application/octet-stream or text/csv; this one is ''"),
        ("/other", "application/octet-stream", "application/json; this one is 'application/octet-stream'"),
        ("/nowhere", "application/octet-stream", "application/json; this one is 'application/octet-stream'"),
    ],
)
async def test_what_a_route_does_not_declare_is_refused(
    make_settings: MakeSettings, path: str, media: str, detail: str
) -> None:
    status, problem = await put(make_settings, path, Content_Type=media)

    assert (status, problem["detail"]) == (415, f"a body is {detail}")


async def test_what_else_is_looked_at_is_looked_at(make_settings: MakeSettings) -> None:
    octets = "application/octet-stream"
    foreign = await put(make_settings, "/files/7", Content_Type=octets, Origin="https://elsewhere.example")
    large = await put(make_settings, "/files/7", b"\0" * (3 << 20), Content_Type=octets)

    assert (foreign[0], large[0]) == (403, 413)


async def test_the_document_says_what_is_taken(make_settings: MakeSettings) -> None:
    async with (
        booted(make_settings(**FREE), [Feature("files", open=open_files)]) as urls,
        Client(urls.public) as client,
    ):
        paths = (await client.get("/openapi.json")).json()["paths"]

    body = paths["/files/{id}"]["put"]["requestBody"]
    assert body == {"content": {"application/octet-stream": {}, "text/csv": {}}}
    assert "requestBody" not in paths["/other"]["put"]


@pytest.mark.parametrize(
    ("media", "why"),
    [
        ("text/plain", "a page of any origin may send it unasked"),
        ("multipart/form-data", "a page of any origin may send it unasked"),
        ("Application/X-WWW-Form-Urlencoded", "a page of any origin may send it unasked"),
        ("csv", "must be a media type such as application/pdf"),
        ("text/csv; charset=utf-8", "must be a media type such as application/pdf"),
        ("image/*", "must be a media type such as application/pdf"),
    ],
)
def test_a_route_cannot_take_what_a_form_sends(media: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        takes(media)


def test_a_route_takes_something() -> None:
    with pytest.raises(ValueError, match="say which"):
        takes()
