"""The page as a browser gets it. What it does then is in tests/chat/browser."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from quart import Blueprint

from service.chat import CHAT
from service.platform.feature import Feature, Resources
from service.platform.http import unlimited
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}


@asynccontextmanager
async def open_other(_: Resources) -> AsyncIterator[Blueprint]:
    routes = Blueprint("other", __name__)

    @routes.get("/")
    @anyone
    @unlimited("a constant")
    async def index() -> dict[str, str]:
        return {"message": "other"}

    yield routes


OTHER = Feature("other", open=open_other)


async def test_the_page_comes_under_a_policy_that_lets_nothing_else_in(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [CHAT]) as urls, Client(urls.public) as client:
        page = await client.get("/")
        parts = [await client.get(f"/{name}") for name in re.findall(r'(?:href|src)="(\w+\.\w+)"', page.text)]
        again = await client.get("/", headers={"If-None-Match": page.headers["etag"]})

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert len(parts) == 2
    assert {part.headers["content-type"].split(";")[0] for part in parts} == {"text/css", "text/javascript"}
    for answer in (page, *parts):
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"} <= set(policy)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (again.status_code, again.content) == (304, b"")
    assert not re.findall(r"<script(?! type=\"module\" src)|\son[a-z]+=|style=|javascript:", page.text)


async def test_of_two_features_that_serve_a_path_the_first_keeps_it(make_settings: MakeSettings) -> None:
    for features, kind in (((CHAT, OTHER), "text/html; charset=utf-8"), ((OTHER,), "application/json")):
        async with booted(make_settings(**FREE), features) as urls, httpx2.AsyncClient() as client:
            answer = await client.get(urls.public)
            assert answer.headers["content-type"] == kind
