"""The operator's listener: what anybody may know, and what only loopback may."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from pydantic import Field, SecretStr
from quart import Blueprint

from service.platform.errors import Invalid
from service.platform.feature import Feature, Resources, catalogue
from service.platform.inside.management import may_inspect, parse_level
from service.platform.settings import FeatureSettings, PlatformSettings
from service.platform.testing.booting import booted
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.settings import settings_of


async def test_info_and_settings(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0", drain_delay=1)
    async with booted(settings, []) as urls, httpx2.AsyncClient() as client:
        info = (await client.get(urls.management + "/info")).json()
        effective = (await client.get(urls.management + "/settings")).json()

    assert info["phase"] == "ready"
    assert info["schema"]["state"] == "at"
    assert info["versions"]["hypercorn"] == "0.18.0"
    assert effective["SERVICE_DRAIN_DELAY"]["value"] == "1"


class KeyedSettings(FeatureSettings):
    """Settings of a feature: secrets, which are no addresses, and lists."""

    api_key: SecretStr = Field(SecretStr(""), description="a key")
    spare_key: SecretStr | None = Field(None, description="another key")
    old_keys: tuple[SecretStr, ...] = Field((), description="keys")
    ports: tuple[int, ...] = Field((), description="ports")


@asynccontextmanager
async def open_keyed(resources: Resources) -> AsyncIterator[Blueprint]:
    yield Blueprint("keyed", __name__)


KEYED = Feature("keyed", open=open_keyed, settings=KeyedSettings)


async def test_settings_and_tasks_tell_no_secret(database_url: str) -> None:
    settings = settings_of(
        catalogue(PlatformSettings, [KEYED]),
        database_url=database_url,
        bind="127.0.0.1:0",
        management_bind="127.0.0.1:0",
        keyed_api_key="hunter2",
        keyed_old_keys=("hunter2", "hunter2"),
        keyed_ports=(80, 81),
    )
    async with booted(settings, [KEYED]) as urls, httpx2.AsyncClient(base_url=urls.management) as client:
        effective, tasks = await client.get("/settings"), await client.get("/tasks")

    told = {name.removeprefix("SERVICE_KEYED_"): one["value"] for name, one in effective.json().items()}
    assert (effective.status_code, tasks.status_code) == (200, 200)
    assert (told["API_KEY"], told["SPARE_KEY"], told["OLD_KEYS"], told["PORTS"]) == ("***", "", "***,***", "80,81")
    assert "hunter2" not in effective.text + tasks.text


@pytest.mark.parametrize(
    ("peer", "host", "allowed"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "localhost:9000", True),
        ("127.9.9.9", "127.0.0.1:9000", True),
        ("::1", "[::1]:9000", True),
        ("::ffff:127.0.0.1", "10.1.2.3", True),
        ("10.1.2.3", "localhost", False),
        ("::ffff:10.1.2.3", "localhost", False),
        ("2001:db8::1", "[::1]", False),
        ("127.0.0.1", "evil.example:9000", False),  # a page's own name, pointed at 127.0.0.1
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "", False),
        ("", "localhost", False),
    ],
)
def test_only_somebody_on_this_machine_may_inspect(peer: str, host: str, allowed: bool) -> None:
    assert may_inspect(peer, host) is allowed


async def test_who_may_not_inspect_is_told_how_to(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, []) as urls, httpx2.AsyncClient(headers={"Host": "evil.example"}) as client:
        refused = await client.get(urls.management + "/settings")
        open_to_all = [await client.get(urls.management + path) for path in ("/info", "/readyz", "/healthz")]

    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert "port-forward" in refused.json()["detail"]
    assert [answer.status_code for answer in open_to_all] == [200, 200, 200]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Origin": "http://evil.example"}, b'{"level": "debug"}', 403),
        ({"Origin": "null"}, b'{"level": "debug"}', 403),
        ({"Origin": "https://app.example"}, b'{"level": "debug"}', 403),  # where it is allowed is the public listener
        ({"Content-Type": "text/plain"}, b'{"level": "debug"}', 415),
        ({}, b'{"level": "debug"', 400),
        ({}, b'{"level": "loud"}', 400),
        ({}, b'{"level": "debug"}', 200),
    ],
)
async def test_what_changes_something_is_held_to_the_rules_of_the_public_listener(
    make_settings: MakeSettings, headers: dict[str, str], body: bytes, status: int
) -> None:
    settings = make_settings(
        bind="127.0.0.1:0",
        management_bind="127.0.0.1:0",
        allowed_origins="https://app.example",
        allowed_hosts="app.example",
    )
    async with booted(settings, []) as urls, httpx2.AsyncClient(base_url=urls.management) as client:
        usual = (await client.get("/loglevel")).json()["level"]
        answer = await client.put("/loglevel", content=body, headers={"Content-Type": "application/json", **headers})
        level = (await client.get("/loglevel")).json()["level"]
        back = await client.put("/loglevel", json={"level": usual}, headers={"Origin": urls.management})

    assert (answer.status_code, level) == (status, "debug" if status == 200 else usual)
    assert back.status_code == 200


@pytest.mark.parametrize("seconds", [0, 0.5, -1, 86_401, float("nan"), float("inf"), True, "60", None])
def test_a_log_level_is_for_a_second_to_a_day(seconds: object) -> None:
    assert [parse_level({"level": "debug", "seconds": most})[1] for most in (1, 86_400)] == [1, 86_400]
    with pytest.raises(Invalid, match="seconds: must be a number from 1 to 86400"):
        parse_level({"level": "debug", "seconds": seconds})


@pytest.mark.parametrize(
    ("accepted", "kind"),
    [
        ("*/*", "text/plain; charset=utf-8"),
        ("text/plain, application/json", "text/plain; charset=utf-8"),
        ("application/json", "application/json"),
    ],
)
async def test_tasks_are_text_for_people_and_json_for_who_asks_for_nothing_else(
    make_settings: MakeSettings, accepted: str, kind: str
) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    async with booted(settings, []) as urls, httpx2.AsyncClient(base_url=urls.management) as client:
        answer = await client.get("/tasks", headers={"Accept": accepted})

    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


async def test_a_wrong_question_is_not_repeated_at_length(make_settings: MakeSettings) -> None:
    settings = make_settings(bind="127.0.0.1:0", management_bind="127.0.0.1:0")
    long = "x" * 12_000
    async with booted(settings, []) as urls, httpx2.AsyncClient(base_url=urls.management) as client:
        answers = [
            await client.get("/jobs/list", params={"state": long}),
            await client.get("/jobs/list", params={"limit": long}),
            await client.get("/jobs/list", params={"limit": "9" * 12_000}),
            await client.put("/loglevel", json={"level": long}),
            await client.put("/loglevel", json={"level": "debug", "seconds": long}),
        ]

    assert [answer.status_code for answer in answers] == [400] * 5
    assert max(len(answer.content) for answer in answers) < 1_000
