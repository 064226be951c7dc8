"""Messages by HTTP: pages of a room, posts, and what is refused."""

import json
import statistics
import sys
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import trio
from sqlalchemy import Connection

from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.contract import Client
from service.platform.testing.own_server import OwnServer
from tests.chat.conftest import Start
from tests.chat.frames import open_raw
from tests.platform.database.observer import conninfo
from tests.platform.database.proxy import open_proxy

LIMIT = 60
PATH = "/api/rooms/lobby/messages"
WINDOW = 0.5


async def test_a_post_is_stored_and_a_repeat_is_the_same(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with Client(service.url) as client, open_raw(service.url) as member:
            await member.send({"type": "join", "room": "lobby", "ref": "r"})
            await member.expect("joined")
            first = await client.post(PATH, json={"text": "hi", "id": "i1", "from": "e\u0301va"})
            repeat = await client.post(PATH, json={"text": "hi", "id": "i1"})
            conflict = await client.post(PATH, json={"text": "other", "id": "i1"})
            without = await client.post(PATH, json={"text": "no id"})
            delivered = await member.expect("message")

        assert (first.status_code, first.json()["seq"], first.json()["dup"]) == (201, 1, False)
        assert (repeat.status_code, repeat.json()["seq"], repeat.json()["dup"]) == (200, 1, True)
        assert (conflict.status_code, conflict.headers["content-type"]) == (409, "application/problem+json")
        assert "hi" not in conflict.json()["detail"].split()
        assert (without.status_code, without.json()["seq"]) == (201, 2)
        assert (delivered["id"], delivered["from"], delivered["text"]) == ("i1", "éva", "hi")


async def test_a_post_that_the_database_will_never_take_is_told_no_time_to_come_back_at(
    start: Start, database_url: str
) -> None:
    with psycopg.connect(conninfo(database_url), autocommit=True) as connection:
        connection.execute("ALTER TABLE chat_message ADD CONSTRAINT ours CHECK (text <> 'poison')")
    with trio.fail_after(LIMIT):
        service = await start()
        async with Client(service.url) as client:
            never = await client.post(PATH, json={"text": "poison"})
            other = await client.post(PATH, json={"text": "hi"})

    assert (never.status_code, never.json()["detail"]) == (500, "the message cannot be stored")
    assert "retry-after" not in never.headers
    assert other.status_code == 201


async def test_a_post_without_an_id_whose_commit_has_no_answer_is_told_the_id_to_send_it_again_with(
    start: Start, one_server: OwnServer
) -> None:
    migrate(PlatformSettings(database_url=one_server.tcp_url))
    with trio.fail_after(LIMIT):
        async with open_proxy(one_server.port) as proxy:
            service = await start(database_url=proxy.url(), rate_per_address=0)
            async with Client(service.url) as client:
                status = 0
                while status != 503:  # the first COMMIT may be another's
                    proxy.break_at(b"COMMIT\0", forward=True)
                    refused = await client.post(PATH, json={"text": "hi"})
                    status = refused.status_code
                id_ = refused.json()["detail"].partition("it may be sent again with the same id: ")[2]
                again = await client.post(PATH, json={"text": "hi", "id": id_})
                page = (await client.get(PATH)).json()

    assert again.status_code in {200, 201}
    assert [one["id"] for one in page["messages"]].count(id_) == 1


async def test_pages_of_a_room(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start(rate_per_address=0)
        async with Client(service.url) as client:
            for number in range(1, 61):
                await client.post(PATH, json={"text": f"t{number}"})

            async def seqs(query: str) -> list[int]:
                page = (await client.get(PATH + query)).raise_for_status().json()
                assert (page["room"], page["head"], page["oldest"]) == ("lobby", 60, 1)
                return [message["seq"] for message in page["messages"]]

            assert await seqs("") == list(range(11, 61))
            assert await seqs("?limit=2") == [59, 60]
            assert await seqs("?after=57") == [58, 59, 60]
            assert await seqs("?after=0&limit=200") == list(range(1, 61))
            assert await seqs("?before=4&limit=2") == [2, 3]
            assert await seqs("?before=1") == []
            assert await seqs("?after=2&before=6") == [3, 4, 5]
            assert await seqs("?after=2&before=6&limit=2") == [3, 4]
            assert await seqs("?after=60") == []


async def test_an_unknown_room_is_empty(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with Client(service.url) as client:
            answer = await client.get("/api/rooms/nobody-was-here/messages")

        page = answer.json()
        assert answer.status_code == 200
        assert (page["room"], page["head"], page["oldest"], page["messages"]) == ("nobody-was-here", 0, 1, [])
        assert len(page["epoch"]) == 32


BAD_BODIES: list[tuple[bytes, str]] = [
    (b"", "body"), (b"nonsense", "body"), (b"\xff\xfe", "body"), (b"[" * 100_000, "body"), (b"[]", "body"),
    (b'{"text":' + b"9" * 5_000 + b"}", "text"), (b"{}", "text"), (b'{"text":5}', "text"), (b'{"text":""}', "text"),
    (b'{"text":"\\ud800"}', "text"), (b'{"text":"a\\u0000"}', "text"), (b'{"text":"t","id":7}', "id"),
    (json.dumps({"text": "x" * 4_001}).encode(), "text"), (b'{"text":"t","from":"\\n"}', "from"),
]  # fmt: skip


async def test_bad_bodies_are_400_with_the_field_named(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with Client(service.url) as client:
            for body, field in BAD_BODIES:
                answer = await client.post(PATH, content=body, headers={"content-type": "application/json"})
                assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (400, field), body[:40]


BAD_QUESTIONS = [
    ("/api/rooms/Lobby/messages", "room"), (f"/api/rooms/{'a' * 65}/messages", "room"), (PATH + "?limit=0", "limit"),
    (PATH + "?limit=201", "limit"), (PATH + "?after=-1", "after"), (PATH + "?after=1.5", "after"),
    (PATH + "?after=%D9%A1", "after"), (PATH + f"?before={2**63}", "before"), (PATH + "?limit=", "limit"),
    (PATH + f"?after={'9' * 5_000}", "after"), (PATH + "?after=1_0", "after"), (PATH + "?after=%2B5", "after"),
]  # fmt: skip


async def test_bad_questions_are_400_with_the_field_named(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with Client(service.url) as client:
            for path, field in BAD_QUESTIONS:
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["detail"].split(":")[0]) == (400, field), path


async def post(client: Client, room: str) -> tuple[int, float, dict[str, Any]]:
    begun = trio.current_time()
    answer = await client.post(f"/api/rooms/{room}/messages", json={"text": "hi"})
    return answer.status_code, trio.current_time() - begun, dict(answer.headers)


async def measure_open_rooms(client: Client, seconds: float) -> float:
    """Post to four rooms for a while, and until each was acked twice.

    Returns the p99 of the time to the ack, the median over spans of WINDOW seconds.

    What the lock costs would show in each of them, a moment in which the machine does something else in one.
    """
    windows: dict[int, list[float]] = {}
    end = trio.current_time() + seconds

    async def keep_posting(room: str) -> None:
        number = 0
        while number < 2 or trio.current_time() < end:
            number += 1
            status, took, _ = await post(client, room)
            assert status == 201
            windows.setdefault(int(trio.current_time() / WINDOW), []).append(took)
            await trio.sleep(0.02)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(keep_posting, f"open-{number}")
    return statistics.median(statistics.quantiles([0.0, *times], n=100)[98] for times in windows.values())


@pytest.mark.parametrize("seconds", [2.7, pytest.param(5.0, marks=pytest.mark.drill)])
async def test_a_locked_room_is_503_within_three_seconds_and_other_rooms_do_not_notice(
    start: Start, outside: Connection, seconds: float
) -> None:
    with trio.fail_after(LIMIT):
        service = await start(rate_per_address=0)
        async with Client(service.url) as client, trio.open_nursery() as nursery:
            assert (await post(client, "locked"))[0] == 201
            before = await measure_open_rooms(client, 1)
            outside.execute(sa.text("SELECT * FROM chat_room WHERE name = 'locked' FOR UPDATE"))
            refused: list[tuple[int, float, dict[str, Any]]] = []

            async def try_locked() -> None:
                refused.append(await post(client, "locked"))

            for _ in range(5):
                nursery.start_soon(try_locked)
            meanwhile = await measure_open_rooms(client, seconds)
        outside.rollback()

        sys.stdout.write(f"acks of other rooms, p99: {before * 1000:.0f} ms free, {meanwhile * 1000:.0f} ms locked\n")
        assert [status for status, _, _ in refused] == [503] * 5
        assert all(took < 5 and headers["retry-after"] for _, took, headers in refused)
        assert meanwhile < max(1, 4 * before)  # who waited for the lock would wait for all of the time
