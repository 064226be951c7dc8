"""chat.v1 as clients see it: real sockets, a real database, every rule of the protocol's table."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
import trio
from sqlalchemy import Connection, NullPool, create_engine, make_url
from trio.testing import MockClock, wait_all_tasks_blocked

from service.chat import store
from service.platform.database import Database
from service.platform.database.migrate import migrate
from service.platform.settings import PlatformSettings
from service.platform.testing.own_server import OwnServer
from service.platform.testing.wire import CLOSE, PING, Closed, RawWebsocket, UpgradeRefused
from tests.chat.conftest import Start
from tests.chat.frames import open_raw
from tests.platform.database.proxy import Proxy, open_proxy

LIMIT = 60


async def join(line: RawWebsocket, room: str = "lobby", *, ref: str = "r", **since: Any) -> dict[str, Any]:
    await line.send({"type": "join", "room": room, "ref": ref, **since})
    return await line.expect("joined")


async def say(line: RawWebsocket, id_: str, text: str = "hi", room: str = "lobby") -> None:
    await line.send({"type": "send", "room": room, "id": id_, "text": text})


async def test_hello_comes_first_and_says_what_a_client_must_know(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start(rate_per_connection=0.5, chat_retention=3600)
        async with open_raw(service.url) as line:
            hello = await line.frame()

        assert "sec-websocket-protocol: chat.v1" in line.head.lower()
        assert {key: hello[key] for key in hello if key not in {"server", "session"}} == {
            "type": "hello", "protocol": "chat.v1", "heartbeat_ms": 20_000, "max_bytes": 65_536,
            "rate": {"n": 1, "per_ms": 2000}, "retention_s": 3600,
        }  # fmt: skip


BAD_OFFERS = [
    ("/ws", "chat.v2"), ("/ws?name=", "chat.v1"), ("/ws?name=%00", None), ("/ws?name=a%0A", None),
    ("/ws?name=a&name=b", "chat.v1"), ("/ws?name=a&name=a", None),
]  # fmt: skip


async def test_a_bad_offer_or_name_is_refused_before_the_upgrade(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        for path, protocol in BAD_OFFERS:
            with pytest.raises(UpgradeRefused) as refused:
                async with open_raw(service.url, path, protocol=protocol):
                    pass

            assert refused.value.status == 400
            assert json.loads(refused.value.body)["detail"].startswith(("subprotocol: ", "name: "))


async def test_a_message_reaches_all_members_on_all_replicas_the_sender_too(start: Start) -> None:
    with trio.fail_after(LIMIT):
        one, two = await start(), await start()
        async with (
            open_raw(one.url, "/ws?name=e%CC%81va") as eva,
            open_raw(one.url) as ben,
            open_raw(two.url) as kim,
        ):
            for line in (eva, ben, kim):
                joined = await join(line)
                assert (joined["from"], joined["head"], joined["gap"], joined["ref"]) == (0, 0, False, "r")
            await say(eva, "i1", "wörld\n𝄞")

            seen: dict[str, Any] = {}
            while not seen.keys() >= {"ack", "message"}:  # which come in either order
                frame = await eva.frame()
                seen[frame["type"]] = frame
            ack = seen["ack"]
            for message in (seen["message"], await ben.expect("message"), await kim.expect("message")):
                assert (message["seq"], message["id"], message["from"], message["text"]) == (1, "i1", "éva", "wörld\n𝄞")
                assert message["epoch"] == ack["epoch"] == joined["epoch"]
            assert (ack["seq"], ack["dup"]) == (1, False)


async def test_a_repeat_is_acked_with_the_first_seq_and_another_text_is_a_conflict(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            await join(line)
            await say(line, "i1")
            first = await line.expect("ack")
            await say(line, "i1")
            repeat = await line.expect("ack")
            await say(line, "i1", "other")
            conflict = await line.expect("error")

        assert (first["seq"], first["dup"], repeat["seq"], repeat["dup"]) == (1, False, 1, True)
        assert (conflict["code"], conflict["id"], conflict["retryable"]) == ("conflict", "i1", False)
        assert "hello" not in conflict["message"]


async def test_a_resume_gets_exactly_what_was_missed_and_then_what_comes(start: Start) -> None:
    with trio.fail_after(LIMIT):
        one, two = await start(rate_per_connection=0, rate_per_address=0), await start(rate_per_connection=0)
        async with open_raw(one.url) as writer:
            epoch = (await join(writer))["epoch"]
            for number in range(1, 301):
                await say(writer, f"i{number}")
                if number % 50 == 0:
                    while (await writer.expect("ack"))["seq"] < number:
                        pass
            async with open_raw(two.url) as reader:
                joined = await join(reader, since={"epoch": epoch, "seq": 7})
                await say(writer, "live")
                seqs = [(await reader.expect("message"))["seq"] for _ in range(294)]
                joined_now = await join(reader, ref="again")
                all_kept = await join(reader, ref="all", since={"seq": 0})
                first = await reader.expect("message")

        assert (joined["from"], joined["gap"]) == (7, False)
        assert joined["head"] >= 300
        assert seqs == list(range(8, 302))
        assert (joined_now["from"], joined_now["ref"]) == (301, "again")
        assert (all_kept["from"], all_kept["gap"], first["seq"]) == (0, False, 1)


async def test_a_gap_is_declared_and_where_all_is_there_none_is(
    start: Start, database: Database, outside: Connection
) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            epoch = (await join(line))["epoch"]
            for number in range(1, 6):
                await say(line, f"i{number}")
                await line.expect("ack")
            outside.execute(sa.text("DELETE FROM chat_message WHERE seq <= 2"))
            outside.commit()
        other = await start()  # the first one has all of them in memory
        async with open_raw(other.url) as line:
            answers = [
                await join(line, since={"epoch": epoch, "seq": 1}),
                await join(line, since={"epoch": epoch, "seq": 2}),
                await join(line, since={"epoch": epoch, "seq": 6}),
                await join(line, since={"epoch": "old", "seq": 4}),
                await join(line, since={"seq": 0}),
                await join(line, "unknown"),
            ]

        assert [(answer["from"], answer["gap"]) for answer in answers] == [
            (5, True), (2, False), (5, True), (5, True), (2, False), (0, False),
        ]  # fmt: skip


async def read_to_the_end(line: RawWebsocket) -> tuple[list[dict[str, Any]], int]:
    """Return every frame until the connection ends, and the close code."""
    frames = []
    try:
        while True:
            frames.append(await line.frame())
    except Closed as closed:
        return frames, closed.code


@contextmanager
def away(server_url: str, database_url: str) -> Iterator[None]:
    """Let nobody connect to a database, and end all who are."""
    name = make_url(database_url).database
    engine = create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false"))
        terminate = sa.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")
        connection.execute(terminate, {"name": name})
        yield
        connection.execute(sa.text(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true"))


async def test_nothing_comes_after_left_and_joining_makes_no_room(start: Start, database: Database) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as ann, open_raw(service.url) as ben:
            await join(ann)
            await join(ben)
            await ben.send({"type": "leave", "room": "lobby", "ref": "bye"})
            assert (await ben.expect("left"))["ref"] == "bye"
            await say(ann, "i1")
            await ann.expect("ack")
            await ben.send({"type": "ping", "t": 7.5})
            after = await ben.frame()
            await say(ben, "i2")
            refused = await ben.expect("error")
            await ben.send({"type": "leave", "room": "lobby", "ref": "again"})
            refused_leave = await ben.expect("error")
            await join(ben, "empty")
        rooms = await database.read(lambda connection: connection.execute(sa.text("SELECT name FROM chat_room")).all())

        assert after == {"type": "pong", "t": 7.5}
        assert (refused["code"], refused["id"]) == ("not_joined", "i2")
        assert (refused_leave["code"], refused_leave["ref"]) == ("not_joined", "again")
        assert [tuple(row) for row in rooms] == [("lobby",)]


async def test_a_send_may_follow_its_join_at_once(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            await line.send({"type": "join", "room": "new", "ref": "r"})
            await say(line, "i1", room="new")

            assert (await line.expect("ack"))["seq"] == 1


async def test_a_send_behind_a_join_that_failed_may_be_repeated(
    start: Start, server_url: str, database_url: str
) -> None:
    """Clients send without waiting for `joined`: an error that is final would lose what they wrote."""
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            with away(server_url, database_url):
                await line.send({"type": "join", "room": "lobby", "ref": "r"})
                assert (await line.expect("error"))["ref"] == "r"
                await say(line, "i1")
                refused = await line.expect("error")
            while True:
                await line.send({"type": "join", "room": "lobby", "ref": "r"})
                if (await line.frame())["type"] == "joined":
                    break
                await trio.sleep(0.1)
            await say(line, "i1")
            while (frame := await line.frame())["type"] != "ack":
                await trio.sleep(0.1)
                await say(line, "i1")

        assert (refused["code"], refused["id"], refused["retryable"]) == ("unavailable", "i1", True)
        assert refused["message"].startswith("room: lobby must be joined again first")
        assert (frame["id"], frame["seq"]) == ("i1", 1)


async def test_a_room_that_is_joined_twice_says_each_message_once(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            await join(line)
            await join(line, ref="again")
            for id_ in ("i1", "i2"):
                await say(line, id_)

                assert (await line.expect("message"))["id"] == id_


async def test_at_most_32_rooms(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start(rate_per_connection=0, rate_per_address=0)
        async with open_raw(service.url) as line:
            for number in range(32):
                await join(line, f"room-{number}")
            await line.send({"type": "join", "room": "one-more", "ref": "x"})
            refused = await line.expect("error")
            again = await join(line, "room-0", ref="again")

        assert (refused["code"], refused["ref"]) == ("bad_frame", "x")
        assert again["ref"] == "again"


async def test_bad_frames_are_answered_and_ten_in_a_row_close_1008(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            await join(line)
            for data in [
                "nonsense",
                '{"type":"shout"}',
                "[" * 60_000,
                '{"type":"send","room":"lobby","id":"i","text":"\\ud800"}',
            ] * 2:
                await line.send(data)
                assert (await line.expect("error"))["code"] in {"bad_frame", "unknown_type"}
            await say(line, "long", "x" * 4_001)
            assert (await line.expect("error"))["code"] == "too_large"
            await say(line, "i1")
            await line.expect("ack")
            for _ in range(10):
                await line.send_frame(2, b"binary")
            frames, closed = await read_to_the_end(line)

        assert closed == 1008
        assert frames[-1]["type"] == "bye"


async def test_a_frame_beyond_the_limit_closes_1009(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            await line.send("x" * 65_537)
            with pytest.raises(Closed) as closed:
                await line.expect("error")

        assert closed.value.code == 1009


@pytest.mark.drill
async def test_beyond_the_rate_sends_are_refused_and_a_flood_is_closed(start: Start) -> None:
    with trio.fail_after(30):
        service = await start(rate_per_connection=5)
        async with open_raw(service.url) as line:
            await join(line)
            begun = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, line)
                frames, closed = await read_to_the_end(line)
                nursery.cancel_scope.cancel()
            refused = [frame for frame in frames if frame.get("code") == "rate_limited"]

        assert closed == 4429
        assert 9 < trio.current_time() - begun < 15
        assert 10 <= len([frame for frame in frames if frame["type"] == "ack"]) <= 5 * 12 + 10 + 5
        assert refused[0]["retryable"]
        assert 0 < refused[0]["retry_after_ms"] <= 200
        assert refused[0]["id"].startswith("f")


async def flood(line: RawWebsocket) -> None:
    number = 0
    while True:
        number += 1
        await say(line, f"f{number}")
        await trio.sleep(0.02)


async def test_a_silent_peer_is_closed_4408_and_a_ponging_one_stays(start: Start, mock_clock: MockClock) -> None:
    """The clock goes on when all that there is to do is done: nobody is silent because a machine is busy."""
    service = await start(heartbeat=4)
    async with open_raw(service.url) as awake, open_raw(service.url) as asleep, trio.open_nursery() as nursery:
        nursery.start_soon(awake.expect, "bye")  # reading answers the pings
        for _ in range(20):
            mock_clock.jump(1)
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        opcodes = []
        while (received := await asleep._receive_frame())[0] != CLOSE:
            opcodes.append(received[0])
        await awake.send({"type": "ping", "t": 1})

        assert (await awake.expect("pong"))["t"] == 1
        assert int.from_bytes(received[1][:2]) == 4408
        assert PING in opcodes


async def test_a_drain_answers_what_was_read_then_says_bye_and_closes_1012(start: Start, outside: Connection) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            await join(line)
            await say(line, "i0")
            await line.expect("ack")
            outside.execute(sa.text("SELECT * FROM chat_room FOR UPDATE"))
            await say(line, "i1")
            waits = sa.text("SELECT FROM pg_locks WHERE transactionid = pg_current_xact_id()::xid AND NOT granted")
            while not outside.execute(waits).all():
                await trio.sleep(0.02)
            service.lifecycle.start_draining()
            frames, closed = await read_to_the_end(line)
            outside.rollback()

        assert closed == 1012
        error, bye = frames[-2:]
        assert (error["code"], error["id"], error["retryable"]) == ("unavailable", "i1", True)
        assert bye["type"] == "bye"
        assert 0 <= bye["reconnect_after_ms"][0] < bye["reconnect_after_ms"][1]


async def test_a_new_epoch_is_taken_up_within_a_tick_and_said(start: Start, database: Database) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            old = await join(line, ref="mine")
            await say(line, "i1")
            await line.expect("ack")
            begun = trio.current_time()
            epoch = await database.run(store.renew_epoch)
            moved = await line.expect("joined")
            took = trio.current_time() - begun
            await say(line, "i2")
            message = await line.expect("message")

        assert old["epoch"] != epoch
        assert (moved["epoch"], moved["ref"], moved["from"], moved["gap"]) == (epoch, "mine", 1, True)
        assert (message["epoch"], message["seq"]) == (epoch, 2)
        assert took < 6


async def test_simple_mode_shows_the_texts_of_others_and_nothing_else(start: Start) -> None:
    with trio.fail_after(LIMIT):
        one, two = await start(), await start()
        async with (
            open_raw(one.url, protocol=None) as ann,
            open_raw(one.url, protocol=None) as ben,
            open_raw(two.url, protocol=None) as kim,
            open_raw(two.url) as structured,
        ):
            await join(structured)
            await ann.send("from ann")
            await ben.receive()
            await kim.receive()
            await ben.send('{"type":"send"} is only a text here')
            await say(structured, "s1", "from the other mode")

            assert {await ann.receive(), await ann.receive()} == {
                '{"type":"send"} is only a text here',
                "from the other mode",
            }
            with trio.move_on_after(0.2) as quiet:
                await ann.receive()
            assert quiet.cancelled_caught
            assert (await structured.expect("message"))["text"] == "from ann"


async def test_simple_mode_closes_1008_for_what_is_no_message(start: Start) -> None:
    with trio.fail_after(LIMIT):
        service = await start()
        for text in ("", "x" * 4_001, "a\0b"):
            async with open_raw(service.url, protocol=None) as line:
                await line.send(text)
                with pytest.raises(Closed) as closed:
                    await line.receive()

            assert closed.value.code == 1008


async def test_simple_mode_does_not_say_that_a_text_is_not_stored_which_may_be(
    start: Start, one_server: OwnServer
) -> None:
    migrate(PlatformSettings(database_url=one_server.tcp_url))
    with trio.fail_after(LIMIT):
        async with open_proxy(one_server.port) as proxy:
            service = await start(database_url=proxy.url())
            async with open_raw(service.url, protocol=None) as line:
                with pytest.raises(Closed, match="1013 the last message may be stored or not; try again later"):
                    await send_until_closed(line, proxy)


async def send_until_closed(line: RawWebsocket, proxy: Proxy) -> None:
    while True:  # the first COMMIT may be another's
        proxy.break_at(b"COMMIT\0", forward=True)
        await line.send("hi")
        with trio.move_on_after(0.2):
            await line.receive()


async def test_simple_mode_ends_both_loops_whichever_ends_first(start: Start) -> None:
    """The peer is silent, and the receive loop ends with the heartbeat."""
    with trio.fail_after(LIMIT):
        service = await start(heartbeat=0.2)
        async with open_raw(service.url, protocol=None) as silent:
            opcode = PING
            while opcode != CLOSE:
                opcode, payload = await silent._receive_frame()

        assert int.from_bytes(payload[:2]) == 4408


async def test_while_the_database_is_away_nothing_is_acked(start: Start, server_url: str, database_url: str) -> None:
    """Each send is answered within 3 s; afterwards the same id succeeds, and members get it, without a hand."""
    with trio.fail_after(LIMIT):
        service = await start()
        async with open_raw(service.url) as line:
            await join(line)
            await say(line, "i0")
            await line.expect("message")
            with away(server_url, database_url):
                begun = trio.current_time()
                await say(line, "i1")
                refused = await line.expect("error")
                took = trio.current_time() - begun
            await say(line, "i1")
            while (frame := await line.frame())["type"] != "message":
                await trio.sleep(0.1)
                await say(line, "i1")

        assert (refused["code"], refused["id"], refused["retryable"]) == ("unavailable", "i1", True)
        assert took < 6
        assert (frame["seq"], frame["id"]) == (2, "i1")
