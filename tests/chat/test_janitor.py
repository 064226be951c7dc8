"""Retention as it runs in a replica: old messages go a few at a time, while writers write to the same rooms."""

from functools import partial

import sqlalchemy as sa
import trio
from sqlalchemy import Connection

from service.chat import janitor, pages, store
from service.chat.protocol import Message
from service.chat.store import Stored
from service.platform.database import Database
from service.platform.jobs import JobContext
from service.platform.testing.fixtures import MakeSettings
from tests.chat.worlds import note

LIMIT = 60
OLD = 600  # messages of each room
ROOMS = ("one", "two", "three")
DAY, ROUND = 86_400.0, 60.0


def fill(connection: Connection) -> None:
    """Write messages that are older than a day, as if they had come in the usual way."""
    for room in ROOMS:
        values = {"room": room, "count": OLD}
        connection.execute(sa.text("INSERT INTO chat_room (name, seq) VALUES (:room, :count)"), values)
        connection.execute(
            sa.text("""
                INSERT INTO chat_message (room, seq, id, author, text, at)
                SELECT :room, seq, 'old-' || seq, 'ann', 'text', now() - interval '25 hours'
                FROM generate_series(1, :count) seq"""),
            values,
        )
    connection.commit()


def left(connection: Connection) -> int:
    count: int = connection.execute(sa.text("SELECT count(*) FROM chat_message WHERE id LIKE 'old-%'")).scalar_one()
    connection.rollback()
    return count


async def test_writers_commit_while_old_messages_go(database: Database, outside: Connection) -> None:
    with trio.fail_after(LIMIT):
        fill(outside)
        beside: list[int] = []  # old messages that were there after each commit
        slowest = 0.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(janitor.sweep_once, database, retention=DAY))
            number = 0
            while not beside or beside[-1]:
                number += 1
                begun = trio.current_time()
                appended = await database.run(store.append, [note(f"new-{number}", room=room) for room in ROOMS])
                slowest = max(slowest, trio.current_time() - begun)
                assert appended.results == [Stored(OLD + number, dup=False)] * len(ROOMS)
                beside.append(left(outside))
            nursery.cancel_scope.cancel()
        found = {room: await everything(database, room) for room in ROOMS}

    assert len([count for count in beside if 0 < count < OLD * len(ROOMS)]) > 3  # they took turns
    assert slowest < 5
    for messages in found.values():
        assert [message.id for message in messages] == [f"new-{each}" for each in range(1, number + 1)]
        assert (messages[0].seq, messages[-1].seq) == (OLD + 1, OLD + number)


async def everything(database: Database, room: str) -> list[Message]:
    """Return all that is kept of a room, page by page."""
    found: list[Message] = []
    while True:
        after = found[-1].seq if found else 0
        page = await pages.read_after(database, room, after, limit=pages.MOST)
        assert page.oldest == (found or page.messages)[0].seq
        if not page.messages:
            return found
        found += page.messages


async def test_it_is_a_job_that_reads_the_setting(
    database: Database, outside: Connection, make_settings: MakeSettings
) -> None:
    with trio.fail_after(LIMIT):
        fill(outside)
        settings = make_settings(chat_retention=DAY)
        await janitor.sweep_old_messages(JobContext("key", 1, database, settings))

        assert left(outside) == 0
