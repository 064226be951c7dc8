"""The page as a browser gets it. What it does then is in tests/chat/browser."""

import re

import httpx2

from service.chat import CHAT
from service.hello import open_hello
from service.platform.feature import Feature
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings

FREE = {"bind": "127.0.0.1:0", "management_bind": "127.0.0.1:0"}


async def test_the_page_comes_under_a_policy_that_lets_nothing_else_in(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [CHAT]) as urls, Client(urls.public) as client:
        page = await client.get("/")
        parts = [await client.get(path) for path in re.findall(r'(?:href|src)="(/[^"]+)"', page.text)]
        again = await client.get("/", headers={"If-None-Match": page.headers["etag"]})

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert {part.headers["content-type"].split(";")[0] for part in parts} == {"text/css", "text/javascript"}
    for answer in (page, *parts):
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "require-trusted-types-for 'script'"} <= set(policy)
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (again.status_code, again.content) == (304, b"")
    assert not re.findall(r"<script(?! type=\"module\" src)|\son[a-z]+=|style=|javascript:", page.text)


async def test_of_two_features_that_serve_a_path_the_first_keeps_it(make_settings: MakeSettings) -> None:
    hello = Feature("hello", open=open_hello)
    for features, kind in (((CHAT, hello), "text/html; charset=utf-8"), ((hello,), "application/json")):
        async with booted(make_settings(**FREE), features) as urls, httpx2.AsyncClient() as client:
            answer = await client.get(urls.public)
            assert answer.headers["content-type"] == kind
