"""Every route of the service, on both listeners, asked by nobody, by somebody, and by who should not be let in."""

import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx2
import pytest
from quart import Blueprint, request
from trio.testing import MockClock

from service.features import FEATURES
from service.platform.feature import Feature, Resources
from service.platform.http.identity_routes import LOGOUT
from service.platform.http.limits import unlimited
from service.platform.identity import anyone, signed_in
from service.platform.testing.booting import booted
from service.platform.testing.contract import Client
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.issuer import CLIENT, open_issuer
from service.platform.testing.processes import ready
from tests.platform.identity.test_tokens import ATTACKS
from tests.platform.identity.world import DOORS, FREE, World, auth, upgrade, world

FORM = "application/x-www-form-urlencoded"
OPEN = {"get /me", "get /auth/me", "post /hook"}  # to anyone, and yet a token is looked at


async def statuses(client: httpx2.AsyncClient, token: str | None) -> dict[str, int]:
    """Return how each operation of the document answers who asks with a token, without a body."""
    document = (await client.get("/openapi.json")).json()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    found = {}
    for path, operations in document["paths"].items():
        for method in operations:
            concrete = re.sub(r"{\w+}", "7", path)
            response = await client.request(method.upper(), concrete, headers=headers)
            found[f"{method} {path}"] = response.status_code
    return found


def closed(document: dict[str, dict[str, dict[str, dict[str, object]]]]) -> set[str]:
    """Return the operations that the document says a token is needed for."""
    return {
        f"{method} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if "security" in operation
    }


async def test_every_route_is_closed_to_whom_it_says(make_settings: MakeSettings) -> None:
    async with open_issuer() as issuer, open_issuer() as foreign:
        settings = make_settings(**FREE, **auth(issuer))
        async with booted(settings, [*FEATURES, DOORS]) as urls, Client(urls.public) as client:
            document = (await client.get("/openapi.json")).json()
            needed = closed(document)
            nobody = await statuses(client, None)
            expired = await statuses(client, issuer.token(exp=time.time() - 61))
            theirs = await statuses(client, foreign.token())
            ada = await statuses(client, issuer.token())
            bob = await statuses(client, issuer.token(sub="bob", scope="orders:write"))
            here = World(issuer, urls, client)
            upgrades = [
                await upgrade(here, token=token)
                for token in (None, issuer.token(exp=time.time() - 61), foreign.token(), issuer.token())
            ]

    assert {"get /members", "post /orders/{number}", "get /not-ada"} <= needed
    for answers in (nobody, expired, theirs):
        assert {route for route, status in answers.items() if status == 401} - OPEN == needed
    assert {route for route, status in ada.items() if status in {401, 403}} == {"post /orders/{number}", "get /not-ada"}
    assert not {route for route, status in bob.items() if status in {401, 403}}
    assert upgrades == [401, 401, 401, 101]
    assert document["paths"]["/orders/{number}"]["post"]["security"] == [{"identity": ["orders:write"]}]
    assert document["components"]["securitySchemes"]["identity"]["openIdConnectUrl"].startswith(issuer.url)
    responses = document["components"]["responses"]
    required = {
        kind: responses[kind]["headers"]["WWW-Authenticate"]["required"] for kind in ("Unauthenticated", "Forbidden")
    }
    assert required == {"Unauthenticated": True, "Forbidden": False}  # a 403 has one where the token lacks a scope


async def test_every_route_holds_the_limit_that_it_says(make_settings: MakeSettings, mock_clock: MockClock) -> None:
    """One without numbers counts by address, where it changes something, or says why it needs none: else no start.

    Time passes a hundred times slower while it is asked, so that a busy machine goes beyond each rate as well.
    """
    mock_clock.rate = 1
    async with open_issuer() as issuer:
        settings = make_settings(
            **FREE | {"rate_per_address": 100_000}, **auth(issuer), auth_client_id=CLIENT, log_level="error"
        )
        async with booted(settings, [*FEATURES, DOORS]) as urls, httpx2.AsyncClient(base_url=urls.public) as client:
            paths = (await client.get("/openapi.json")).json()["paths"]
            operations = {(path, method): one for path in paths for method, one in paths[path].items()}
            found = {route: one["x-limits"] for route, one in operations.items() if "x-limits" in one}
            held: dict[tuple[str, str], set[str]] = {}
            mock_clock.rate = 0.01
            for (path, method), limits in found.items():
                ask = partial(
                    client.request,
                    method.upper(),
                    path,
                    headers={"Content-Type": FORM if path == LOGOUT else "application/json"},
                )
                held[path, method] = {"concurrency"} & limits.keys()
                if "body" in limits and (await ask(content=b"x" * (limits["body"] + 1))).status_code == 413:
                    held[path, method].add("body")
                for _ in range(int(4 * limits.get("rate", 0)) + 20):
                    if (await ask()).status_code == 429:
                        held[path, method].add("rate")
                        break
            mock_clock.rate = 1

    assert {"/auth/sign-in", "/auth/callback", "/auth/ticket", LOGOUT} <= {path for path, _ in found}
    assert held == {route: set(limits) for route, limits in found.items()}


async def test_without_an_issuer_every_route_answers_and_everybody_is_a_guest(make_settings: MakeSettings) -> None:
    async with booted(make_settings(**FREE), [*FEATURES, DOORS]) as urls, Client(urls.public) as client:
        document = (await client.get("/openapi.json")).json()
        for token in (None, "anything"):
            assert not {status for status in (await statuses(client, token)).values() if status in {401, 403}}
        assert (await client.get("/members")).json() == {"subject": ""}
        async with httpx2.AsyncClient() as other:
            checks = (await other.get(urls.management + "/healthz")).json()["checks"]

    assert closed(document) == set()
    assert "securitySchemes" not in document["components"]
    assert "identity" not in checks


async def test_the_operators_listener_asks_for_no_token_and_minds_none(make_settings: MakeSettings) -> None:
    """Whatever is sent, it answers as it does to nobody: 200 from this machine, and 403 by another name."""
    here_only = ("/settings", "/tasks", "/loglevel", "/jobs", "/jobs/list")
    unwell = {"/healthz": 503, "/readyz": 503}  # a busy machine's, to anybody
    paths = ("/livez", "/readyz", "/startupz", "/healthz", "/metrics", "/info", *here_only)
    async with (
        open_issuer() as foreign,
        world(make_settings) as here,
        httpx2.AsyncClient(base_url=here.urls.management) as client,
    ):
        tokens = {attack: make(here.issuer) for attack, make in ATTACKS.items()}
        tokens |= {"foreign": foreign.token(), "good": here.issuer.token()}
        strange = set()
        for name, token in tokens.items():
            headers = {"Authorization": f"Bearer {token}"}
            for path in paths:
                status = (await client.get(path, headers=headers)).status_code
                if status not in (200, unwell.get(path)):
                    strange.add((name, path, status))
        others = {"Authorization": f"Bearer {here.issuer.token()}", "Host": "service.example"}
        from_elsewhere = {path: (await client.get(path, headers=others)).status_code for path in here_only}

    assert strange == set()
    assert from_elsewhere == dict.fromkeys(here_only, 403)


async def test_a_refusal_says_how_to_sign_in_and_what_is_missing(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        nobody = await here.client.get("/members")
        headers = {"Authorization": f"Bearer {here.issuer.token(exp=1)}"}
        expired = await here.client.get("/members", headers=headers)
        lazily = await here.client.get("/me", headers=headers)
        headers = {"Authorization": f"Bearer {here.issuer.token()}"}
        scopeless = await here.client.post("/orders/7", headers=headers)
        other = await here.client.get("/not-ada", headers=headers)
        basic = await here.client.get("/me", headers={"Authorization": "Basic YTpi"})

    assert (nobody.status_code, nobody.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert expired.headers["WWW-Authenticate"] == (
        'Bearer error="invalid_token", error_description="the token has expired"'
    )
    assert (lazily.status_code, lazily.json()["detail"]) == (401, "the token has expired")
    assert (scopeless.status_code, scopeless.json()["detail"]) == (403, "the token lacks the scope orders:write")
    assert (other.status_code, other.json()["detail"]) == (403, "anybody but Ada")
    assert (basic.status_code, basic.json()) == (200, {"subject": ""})
    assert {nobody.headers["Content-Type"], scopeless.headers["Content-Type"]} == {"application/problem+json"}


def test_without_an_issuer_its_packages_are_not_loaded() -> None:
    code = (
        "import sys, service.__main__, service.features, service.platform.feature, service.platform.process.main\n"
        "service.platform.feature.import_all(service.features.FEATURES); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()

    assert "service.platform.identity.opening" in loaded
    assert not {"joserfc", "httpx2", "cryptography"} & set(loaded)


async def test_two_authorizations_are_none(make_settings: MakeSettings) -> None:
    async with world(make_settings) as here:
        token = f"Bearer {here.issuer.token()}"
        for second in (token, "Basic YTpi"):
            headers = [("Authorization", token), ("Authorization", second)]
            assert (await here.client.get("/members", headers=headers)).status_code == 401


async def test_who_may_not_reaches_no_hook_of_a_feature(make_settings: MakeSettings) -> None:
    reached: list[str] = []

    @asynccontextmanager
    async def open_hooked(_: Resources) -> AsyncIterator[Blueprint]:
        routes = Blueprint("hooked", __name__)

        @routes.before_request
        async def note() -> None:
            reached.append(request.path)

        @routes.get("/closed")
        @signed_in
        @unlimited("a test's")
        async def shut() -> str:
            return ""

        @routes.get("/open")
        @anyone
        @unlimited("a test's")
        async def unlocked() -> str:
            return ""

        yield routes

    async with open_issuer() as issuer:
        settings = make_settings(**FREE, **auth(issuer))
        async with booted(settings, [Feature("hooked", open=open_hooked)]) as urls, Client(urls.public) as client:
            for path in ("/closed", "/open"):
                await client.get(path)

    assert reached == ["/open"]


async def test_a_verified_token_is_remembered_until_its_key_is_gone(make_settings: MakeSettings) -> None:
    """The same token is let in while the provider is away; what it signs with a key that is gone is not."""
    async with world(make_settings) as here:
        token = here.issuer.token()
        assert await here.ask(token) == 200
        here.issuer.away = True
        assert await here.ask(token) == 200
        assert await here.ask(here.issuer.token(sub="bob")) == 200


async def test_the_log_knows_a_caller_by_a_hash_alone(
    make_settings: MakeSettings, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    said, labels = [], []
    async with open_issuer() as issuer:
        ada: dict[str, Any] = {"email": "ada@example.org", "sub": "ada-7", "name": "Ada Byron"}
        secrets = [issuer.token(**ada), issuer.token(**ada, exp=1)]
        for replica in range(2):
            directory = tmp_path_factory.mktemp(f"replica{replica}")
            settings = auth(issuer) | {"log_level": "debug"}
            async with ready(directory, "serve", database_url=database_url, **settings) as service:
                async with httpx2.AsyncClient() as client:
                    for token in secrets:
                        headers = {"Authorization": f"Bearer {token}"}
                        await client.post(service.public + "/auth/ticket", headers=headers)
                await service.wait_event("request")
                lines = service.events("request")
                labels += [line["subject"] for line in lines if "subject" in line]
                said.append(service.log.read_text())

    assert len(labels) == 2
    assert len(set(labels)) == 1, "all replicas call her the same"
    for secret in ("ada-7", "Ada Byron", "ada@example.org", *secrets, secrets[0].split(".")[2]):
        assert secret not in "".join(said)
