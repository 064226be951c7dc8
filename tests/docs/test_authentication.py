"""The code of docs/authentication.md, run: tokens that hold, and those that do not."""

import importlib.util
import re
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import trio
from quart import Blueprint, request, websocket

from service.platform.feature import Feature, Resources
from service.platform.identity import anyone
from service.platform.testing.booting import booted
from service.platform.testing.copies import BIN, ROOT
from service.platform.testing.fixtures import MakeSettings

PAGE = (ROOT / "docs" / "authentication.md").read_text()
MODULE, *ROUTES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
KEY = b"a key of this test"


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    path = tmp_path_factory.mktemp("identity") / "identity.py"
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("identity", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def feature(identity: ModuleType) -> Feature:
    @asynccontextmanager
    async def open_members_only(resources: Resources) -> AsyncIterator[Blueprint]:
        routes = Blueprint("members", __name__)
        names: dict[str, Any] = {
            "routes": routes,
            "request": request,
            "websocket": websocket,
            "key": KEY,
            "anyone": anyone,
        }
        for block in ROUTES:
            exec(block, names | {"identify": identity.identify})  # noqa: S102  the page's own code
        yield routes

    return Feature("members", open=open_members_only)


def test_a_token_holds_until_it_expires_and_only_as_it_was_signed(identity: ModuleType) -> None:
    token = identity.sign("ada: of Lovelace", key=KEY, expires=100)
    claim, _, mac = token.partition(".")
    forged = identity.sign("bob", key=b"another key", expires=100)

    assert identity.verify(token, key=KEY, now=99) == "ada: of Lovelace"
    for wrong in (forged, claim, f"{claim}.", f"x{claim}.{mac}", "", ".", "é.é", token + "0"):
        with pytest.raises(identity.Unauthenticated, match="did not sign"):
            identity.verify(wrong, key=KEY, now=99)
    with pytest.raises(identity.Unauthenticated, match="expired"):
        identity.verify(token, key=KEY, now=100)


async def upgrade(url: str, cookie: str) -> bytes:
    """Ask for a websocket, and return what comes until its first message, or until the connection ends."""
    host = urlsplit(url).netloc
    head = f"GET /feed HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nCookie: {cookie}\r\n"
    key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    received = b""
    with trio.fail_after(10):
        async with await trio.open_tcp_stream("127.0.0.1", int(host.rpartition(":")[2])) as stream:
            await stream.send_all((head + key).encode())
            while b"hello, ada" not in received and (data := await stream.receive_some()):
                received += data
    return received


async def test_endpoint_and_websocket_know_who_asks(
    identity: ModuleType, feature: Feature, make_settings: MakeSettings
) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    token = identity.sign("ada", key=KEY, expires=time.time() + 60)
    async with booted(settings, [feature]) as urls, httpx2.AsyncClient(base_url=urls.public) as client:
        nobody = await client.get("/api/me")
        bearer = await client.get("/api/me", headers={"Authorization": f"Bearer {token}"})
        cookie = await client.get("/api/me", headers={"Cookie": f"{identity.COOKIE}={token}"})
        refused, greeting = await upgrade(urls.public, ""), await upgrade(urls.public, f"{identity.COOKIE}={token}")

    assert (nobody.status_code, nobody.headers["www-authenticate"]) == (401, "Bearer")
    assert bearer.json() == cookie.json() == {"name": "ada"}
    assert refused.startswith(b"HTTP/1.1 401 ")
    assert b"hello, ada" in greeting


def test_the_code_is_clean(tmp_path: Path) -> None:
    (tmp_path / "identity.py").write_text(MODULE)
    for command in (("ruff", "check", "--no-cache"), ("ruff", "format", "--check", "--no-cache"), ("mypy", "--strict")):
        config = ("--config", str(ROOT / "pyproject.toml")) if command[0] == "ruff" else ()
        done = subprocess.run(
            [BIN / command[0], *command[1:], *config, tmp_path / "identity.py"],
            cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
