"""The chat with an identity provider: nobody can claim a name, and a conversation ends and goes on with its token."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from service.chat.authors import name_of
from service.chat.client.chat import Member, converse
from service.chat.connection import Chat
from service.chat.rules import Action
from service.platform.errors import Forbidden
from service.platform.identity import Caller
from service.platform.testing import wire
from service.platform.testing.contract import Client
from service.platform.testing.issuer import AUDIENCE, Issuer, open_issuer
from service.platform.testing.wire import Closed, UpgradeRefused
from tests.chat.conftest import Start
from tests.chat.wire import open_raw
from tests.platform.identity.world import VALID, end_in_time

PATH = "/api/rooms/lobby/messages"


def settings(issuer: Issuer) -> dict[str, Any]:
    return {"auth_issuer": issuer.url, "auth_audience": AUDIENCE}


def bearer(issuer: Issuer, **claims: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {issuer.token(**claims)}"}


def lines(headers: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


async def test_an_author_is_who_signed_in_whatever_is_claimed(start: Start) -> None:
    async with open_issuer() as issuer:
        service = await start(**settings(issuer))
        ada = bearer(issuer, sub="u-1", name="Ada")
        async with (
            Client(service.url) as client,
            open_raw(service.url, "/ws?name=eve", headers=lines(ada)) as member,
            wire.open_raw(service.url, "/ws?name=eve", headers=lines(bearer(issuer, sub="u-2", name="Bob"))) as simple,
        ):
            await member.send({"type": "join", "room": "lobby", "ref": "r"})
            await member.expect("joined")
            await member.send({"type": "send", "room": "lobby", "id": "i1", "text": "by frame"})
            seen = [await member.expect("message")]
            await client.post(PATH, json={"text": "by HTTP", "from": "eve"}, headers=ada)
            seen.append(await member.expect("message"))
            await simple.receive()
            await simple.receive()
            await simple.send("plainly")
            seen.append(await member.expect("message"))
            page = (await client.get(PATH, headers=ada)).json()["messages"]

    assert [(one["from"], one["subject"]) for one in seen] == [("Ada", "u-1"), ("Ada", "u-1"), ("Bob", "u-2")]
    assert [(one["from"], one["subject"]) for one in page] == [("Ada", "u-1"), ("Ada", "u-1"), ("Bob", "u-2")]


async def test_who_has_not_signed_in_neither_reads_nor_writes(start: Start) -> None:
    async with open_issuer() as issuer:
        service = await start(**settings(issuer))
        async with Client(service.url) as client:
            read, written = await client.get(PATH), await client.post(PATH, json={"text": "hi"})
            document = (await client.get("/asyncapi.json")).json()
        for protocol in ("chat.v1", None):
            with pytest.raises(UpgradeRefused, match="401"):
                async with wire.open_raw(service.url, "/ws?name=ada", protocol=protocol):
                    pass

    assert (read.status_code, written.status_code) == (401, 401)
    assert document["operations"]["receive"]["security"] == [{"$ref": "#/components/securitySchemes/identity"}]


async def test_a_guest_s_message_says_that_its_name_is_a_claim(start: Start) -> None:
    service = await start()
    async with Client(service.url) as client, open_raw(service.url) as member:
        await member.send({"type": "join", "room": "lobby", "ref": "r"})
        await member.expect("joined")
        await client.post(PATH, json={"text": "hi", "from": "ada"})
        frame = await member.expect("message")
        (by_http,) = (await client.get(PATH)).json()["messages"]

    assert "subject" not in frame
    assert by_http["subject"] is None


@pytest.mark.parametrize("protocol", ["chat.v1", None])
async def test_a_conversation_ends_with_its_token_and_says_why(
    start: Start, mock_clock: MockClock, protocol: str | None
) -> None:
    async with open_issuer() as issuer:
        service = await start(heartbeat=2 * VALID, **settings(issuer))
        begun = time.time()
        headers = lines(bearer(issuer, exp=begun + VALID - 60))
        async with wire.open_raw(service.url, "/ws", protocol=protocol, headers=headers) as member:
            texts, closed = await end_in_time(mock_clock, member, begun)

    said = [(frame["type"], frame.get("reason")) for frame in map(json.loads, texts)]
    assert said == ([("hello", None), ("bye", "the token has expired")] if protocol else [])
    assert (closed.code, closed.reason) == (4401, "the token has expired")


async def test_the_verb_comes_back_with_the_file_s_next_token_and_loses_nothing(start: Start, tmp_path: Path) -> None:
    shown: list[str] = []
    file = tmp_path / "token"
    async with open_issuer() as issuer:
        service = await start(**settings(issuer))
        file.write_text(issuer.token(exp=time.time() - 58) + "\n")
        member = Member(service.url, room="lobby", name="eve", show=shown.append, token_file=file)

        async def typed() -> AsyncIterator[str]:
            yield "before"
            while not any("the token has expired" in line for line in shown):
                await trio.sleep(0.05)
            yield "after"
            new = file.with_suffix(".new")
            new.write_text(issuer.token())
            new.replace(file)

        with trio.fail_after(60):
            unstored = await converse(member, typed())
        async with Client(service.url) as client:
            page = (await client.get(PATH, headers=bearer(issuer))).json()["messages"]

    assert unstored == 0
    assert [(one["text"], one["from"]) for one in page] == [("before", "Ada"), ("after", "Ada")]
    assert any("4401" in line for line in shown)


async def test_a_room_s_rule_holds_for_frames_and_http(start: Start) -> None:
    def staff_only(caller: Caller, room: str, action: Action) -> None:
        if room == "staff" or (room == "news" and action == "write"):
            raise Forbidden(f"{room} is not for you")

    service = await start(rule=staff_only)
    async with Client(service.url) as client, open_raw(service.url) as member:
        await member.expect("hello")
        await member.send({"type": "join", "room": "staff", "ref": "r"})
        refused = await member.expect("error")
        await member.send({"type": "join", "room": "news", "ref": "n"})
        await member.expect("joined")
        await member.send({"type": "send", "room": "news", "id": "i1", "text": "hi"})
        unwritten = await member.expect("error")
        statuses = [
            (await client.get("/api/rooms/staff/messages")).status_code,
            (await client.get("/api/rooms/news/messages")).status_code,
            (await client.post("/api/rooms/news/messages", json={"text": "hi"})).status_code,
        ]

    assert (refused["code"], refused["ref"], refused["message"]) == ("forbidden", "r", "staff is not for you")
    assert (unwritten["code"], unwritten["id"]) == ("forbidden", "i1")
    assert statuses == [403, 200, 403]


async def test_a_room_s_rule_that_answers_instead_of_raising_lets_nobody_in(start: Start) -> None:
    def answer(caller: Caller, room: str, action: Action) -> Any:
        return room == "lobby"

    service = await start(rule=answer)
    async with Client(service.url) as client, open_raw(service.url) as member:
        statuses = [
            (await client.get("/api/rooms/lobby/messages")).status_code,
            (await client.get("/api/rooms/staff/messages")).status_code,
            (await client.post("/api/rooms/staff/messages", json={"text": "hi"})).status_code,
        ]
        await member.expect("hello")
        await member.send({"type": "join", "room": "staff", "ref": "r"})
        with pytest.raises(Closed) as closed:
            await member.expect("joined")

    assert statuses == [500, 500, 500]
    assert closed.value.code == 1011


def test_a_room_s_rule_that_waits_is_refused_as_it_would_let_everybody_in() -> None:
    async def wait(caller: Caller, room: str, action: Action) -> None:
        raise Forbidden("nobody")

    unused: Any = None
    look_up: Any = wait
    with pytest.raises(ValueError, match="a rule does not wait"):
        Chat(settings=unused, rooms=unused, writer=unused, conversations=unused, replica="", rule=look_up)


@pytest.mark.parametrize(
    ("caller", "name"),
    [
        (Caller(subject="u-1", name="Ada"), "Ada"),
        (Caller(subject="u-1", name="x" * 65), "u-1"),
        (Caller(subject="u-1", name="a\x00b"), "u-1"),
        (Caller(subject="x" * 99, name="", label="0123456789abcdef"), "member-01234567"),
    ],
)
def test_a_name_that_the_chat_cannot_show_is_another(caller: Caller, name: str) -> None:
    assert name_of(caller) == name
