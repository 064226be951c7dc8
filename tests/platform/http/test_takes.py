"""Bodies that are no JSON: taken where a route says so, and nowhere else."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from quart import Blueprint, request
from quart_schema import validate_request

from service.platform.declarations import UndeclaredError
from service.platform.feature import Feature, Resources
from service.platform.http import caller, create_app, limited, takes, unlimited
from service.platform.identity import anyone, signed_in
from service.platform.testing.booting import booted
from service.platform.testing.contract import OPENAPI, Client
from service.platform.testing.fixtures import MakeSettings

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}
LARGE = b"\0" * (1 << 20)
PAGE_S = ("application/x-www-form-urlencoded", "multipart/form-data", "text/plain")  # what any page may send


@asynccontextmanager
async def open_files(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("files", __name__)

    @routes.put("/files/<int:id>")
    @anyone
    @limited(body=2 << 20)
    @takes("application/octet-stream", "Text/CSV")
    async def put(id: int) -> dict[str, int]:
        return {"id": id, "size": sum([len(part) async for part in request.body])}

    @routes.post("/hook")
    @anyone
    @limited(body=100)
    @takes(*PAGE_S)
    async def hook() -> dict[str, object]:
        body: bytes = await request.body  # as it was signed
        fields, files = await request.form, await request.files
        read = [fields.to_dict(), {name: file.read().decode() for name, file in files.items()}]
        return {"body": body.decode(), "read": read, "who": (await caller()).subject}

    @routes.put("/json")
    @anyone
    @unlimited("a test's")
    @takes("application/octet-stream")
    async def read() -> dict[str, object]:
        unasked = await request.get_json()
        return {"unasked": unasked, "forced": await request.get_json(force=True, silent=True)}

    @routes.put("/other")
    @anyone
    @unlimited("a test's")
    async def other() -> dict[str, int]:
        return {}

    yield routes


async def put(
    make_settings: MakeSettings, path: str, body: bytes = b"a", *, method: str = "PUT", **headers: str
) -> tuple[int, dict[str, Any]]:
    settings = make_settings(**FREE, max_body_bytes=4 << 20)
    with trio.fail_after(60):
        async with booted(settings, [Feature("files", open=open_files)]) as urls, Client(urls.public) as client:
            answer = await client.request(
                method, path, content=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
            )
    return answer.status_code, answer.json()


@pytest.mark.parametrize(
    "media", ["application/octet-stream", "text/csv; charset=utf-8", "APPLICATION/Octet-Stream", "application/json"]
)
async def test_a_route_takes_what_it_declares_and_json(make_settings: MakeSettings, media: str) -> None:
    assert await put(make_settings, "/files/7", LARGE, Content_Type=media) == (200, {"id": 7, "size": len(LARGE)})


@pytest.mark.parametrize(("body", "read"), [(b'{"a": 1}', {"a": 1}), (b'{"a": 1', None)])
async def test_json_that_is_called_something_else_is_read_where_a_view_insists(
    make_settings: MakeSettings, body: bytes, read: object
) -> None:
    answer = await put(make_settings, "/json", body, Content_Type="application/octet-stream")

    assert answer == (200, {"unasked": None, "forced": read})


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
    assert paths["/hook"]["post"]["requestBody"]["content"].keys() == set(PAGE_S)


PART = b'--x\r\nContent-Disposition: form-data; name="a"%b\r\n\r\nb\r\n--x--\r\n'
FORMS: list[tuple[str, bytes, list[dict[str, str]]]] = [
    (PAGE_S[0], b"a=b&c=%26", [{"a": "b", "c": "&"}, {}]),
    (f"{PAGE_S[1]}; boundary=x", PART % b"", [{"a": "b"}, {}]),
    (f"{PAGE_S[1]}; boundary=x", PART % b'; filename="f"', [{}, {"a": "b"}]),
    ("Text/Plain; charset=UTF-8", b'{"Type": "Notification"}', [{}, {}]),
]


@pytest.mark.parametrize(("media", "body", "read"), FORMS, ids=["form", "fields", "file", "text"])
async def test_a_webhook_s_form_is_taken_as_it_was_signed(
    make_settings: MakeSettings, media: str, body: bytes, read: list[dict[str, str]]
) -> None:
    status, answer = await put(make_settings, "/hook", body, method="POST", Content_Type=media)

    assert (status, answer) == (200, {"body": body.decode(), "read": read, "who": ""})


@pytest.mark.parametrize(
    ("media", "body"),
    [
        (PAGE_S[0], b"a=caf\xe9"),
        (PAGE_S[1], PART % b""),
        (f"{PAGE_S[1]}; boundary=x", b"--x\r\nContent-Type: text/plain\r\n\r\nb\r\n--x--\r\n"),
    ],
    ids=["latin", "no boundary", "no name"],
)
async def test_what_is_no_form_is_refused_and_not_read_as_an_empty_one(
    make_settings: MakeSettings, media: str, body: bytes
) -> None:
    status, problem = await put(make_settings, "/hook", body, method="POST", Content_Type=media)

    assert (status, problem["detail"]) == (400, f"body: must be {media.partition(';')[0]}, and cannot be read as that")


@pytest.mark.parametrize("media", PAGE_S)
async def test_a_page_s_form_is_refused_also_where_a_webhook_s_is_taken(
    make_settings: MakeSettings, media: str
) -> None:
    own = {"Host": "localhost", "Origin": "http://localhost"}
    sent = [
        await put(make_settings, "/hook", b"a=b", method="POST", Content_Type=media, **origin)
        for origin in (own, {"Origin": "null"}, {"Origin": "https://elsewhere.example"})
    ]
    elsewhere = await put(make_settings, "/files/7", b"a=b", Content_Type=media)
    large = await put(make_settings, "/hook", b"a" * 101, method="POST", Content_Type=media)

    assert [status for status, _ in (*sent, elsewhere, large)] == [415, 403, 403, 415, 413]
    assert sent[0][1]["detail"] == f"a body is application/json; this one is '{media}'"


@pytest.mark.parametrize("media", PAGE_S)
def test_a_form_at_a_route_that_asks_who_it_is_stops_the_start(make_settings: MakeSettings, media: str) -> None:
    routes = Blueprint("closed", __name__)

    @routes.post("/closed")
    @signed_in
    @unlimited("a test's")
    @takes("application/pdf", media.title())
    async def closed() -> str:
        return ""

    why = f"POST /closed (closed.closed): takes {media}, which a page of any origin may send unasked"
    with pytest.raises(UndeclaredError, match=re.escape(f"{why}: declare @anyone, and have a signature")):
        create_app([routes], make_settings())


@pytest.mark.parametrize(
    ("media", "why"),
    [
        ("csv", "must be a media type such as application/pdf"),
        ("text/csv; charset=utf-8", "must be a media type such as application/pdf"),
        ("image/*", "must be a media type such as application/pdf"),
    ],
)
def test_a_route_cannot_take_what_is_no_media_type(media: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        takes(media)


def test_a_route_takes_something() -> None:
    with pytest.raises(ValueError, match="say which"):
        takes()


@pytest.mark.parametrize("media", ["application/pdf", "text/plain", ""])
async def test_a_body_for_a_method_that_is_not_there_is_told_of_the_method(
    make_settings: MakeSettings, media: str
) -> None:
    status, problem = await put(make_settings, "/files/7", method="POST", Content_Type=media)

    assert (status, problem["detail"]) == (405, "the method must be one of OPTIONS, PUT, not 'POST'")


@dataclass(frozen=True)
class Change:
    name: str = ""


@asynccontextmanager
async def open_patched(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("patched", __name__)

    @routes.patch("/patched")
    @anyone
    @unlimited("a test's")
    @takes("application/merge-patch+json", "text/csv")
    @validate_request(Change)
    async def patched(data: Change) -> dict[str, str]:
        return {"name": data.name}

    yield routes


async def test_what_is_json_by_another_name_is_held_to_the_declared_body_and_described_as_it(
    make_settings: MakeSettings,
) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    with trio.fail_after(60):
        async with (
            booted(make_settings(**FREE), [Feature("patched", open=open_patched)]) as urls,
            Client(urls.public) as client,
        ):
            taken = await client.patch("/patched", content='{"name": "a"}', headers=headers)
            refused = await client.patch("/patched", content='{"name": 1}', headers=headers)
            document = (await client.get(OPENAPI)).json()

    assert (taken.json(), refused.status_code) == ({"name": "a"}, 400)
    content = document["paths"]["/patched"]["patch"]["requestBody"]["content"]
    assert content["application/merge-patch+json"] == content["application/json"] != {}
    assert content["text/csv"] == {}
