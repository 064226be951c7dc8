"""What is stored, on a real PostgreSQL: dense seqs, repeats, locks that are not waited for, retention."""

import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
import sqlalchemy as sa
import trio
from sqlalchemy import Connection

from service.chat import pages, store
from service.chat.protocol import Page
from service.chat.store import Appended, Draft, Refusal, Repeats, Stored
from service.chat.tables import CHANNEL
from service.chat.writer import LOCK_NOT_AVAILABLE
from service.platform.database import Database
from service.platform.errors import DatabaseUnable, Unavailable
from tests.chat.worlds import note

AT_ONCE = {"rooms": 100, "each": 100}
LIMIT = 60


def texts(page: Page) -> list[str]:
    return [message.text for message in page.messages]


async def write(database: Database, *drafts: Draft) -> Appended:
    """Store drafts whose rooms may be new."""
    for room in {draft.room for draft in drafts}:
        await database.run(store.append_waiting, [draft for draft in drafts if draft.room == room], lock_timeout=1)
    return await database.run(store.append, drafts)  # all of them repeats now


async def page_of(database: Database, room: str, *, after: int = 0, limit: int = 100) -> Page:
    return await pages.read_after(database, room, after, limit=limit)


def age(connection: Connection, room: str, seq: int, *, days: float) -> None:
    connection.execute(
        sa.text("UPDATE chat_message SET at = now() - :age WHERE room = :room AND seq <= :seq"),
        {"age": timedelta(days=days), "room": room, "seq": seq},
    )
    connection.commit()


async def test_seqs_are_dense_from_1_in_each_room(database: Database) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a", room="one"), note("b", room="two"))

        appended = await database.run(
            store.append, [note("c", room="one"), note("d", room="two"), note("e", room="one")]
        )

        assert appended.results == [Stored(2, dup=False), Stored(2, dup=False), Stored(3, dup=False)]
        assert texts(await page_of(database, "one")) == ["text of a", "text of c", "text of e"]
        assert [message.seq for message in (await page_of(database, "one")).messages] == [1, 2, 3]


async def test_what_is_returned_to_be_delivered_is_what_the_table_holds(database: Database) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a"))

        appended = await database.run(store.append, [note("b"), note("c", text="é\u2028𝄞\t\\ '\"%s")])

        page = await page_of(database, "lobby", after=1)
        assert tuple(appended.messages) == page.messages
        assert (page.epoch, page.head, page.oldest) == (appended.epoch, 3, 1)


async def test_those_that_a_statement_stores_are_stored_as_any_others(database: Database) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a"), note("x", room="other"))

        drafts = [note("b", text="é\u2028𝄞\t\\ '\"%s"), note("y", room="other"), note("a", room="new"), note("c")]
        appended = await store.append_by_statement(database, drafts)

        page, other = await page_of(database, "lobby", after=1), await page_of(database, "other", after=1)
        assert tuple(appended.messages) == (page.messages[0], *other.messages, page.messages[1])
        assert (page.epoch, page.head, other.head) == (appended.epoch, 3, 2)
        stored = Stored(2, dup=False), Stored(2, dup=False), Refusal.NOT_HELD, Stored(3, dup=False)
        assert appended.results == list(stored)


@pytest.mark.parametrize("beside", [(), (note("c"), note("d"))], ids=["alone", "beside others"])
@pytest.mark.parametrize("which", ["a repeat", "another text", "a locked room", "a new room", "no epoch"])
async def test_one_that_needs_more_than_a_statement_leaves_nothing_behind(
    database: Database, outside: Connection, which: str, beside: tuple[Draft, ...]
) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a"))
        draft = {"a repeat": note("a"), "another text": note("a", text="another"), "a new room": note("b", room="new")}
        expected = {"a locked room": [Refusal.NOT_HELD] * (1 + len(beside)), "no epoch": Unavailable}
        if which == "a locked room":
            outside.execute(sa.text("SELECT * FROM chat_room FOR UPDATE"))
        if which == "no epoch":
            outside.execute(sa.text("DELETE FROM chat_epoch"))
            outside.commit()

        found: object = None
        try:
            found = (await store.append_by_statement(database, [draft.get(which, note("b")), *beside])).results
        except (Repeats, Unavailable) as error:
            found = type(error)

        outside.rollback()
        more = [Stored(2 + number, dup=False) for number in range(len(beside))]
        assert found == expected.get(which, [Refusal.NOT_HELD, *more] if which == "a new room" else Repeats)
        stored = [(1, "a"), *((2 + number, one.id) for number, one in enumerate(beside) if which == "a new room")]
        assert outside.execute(sa.text("SELECT seq, id FROM chat_message ORDER BY seq")).all() == stored
        assert outside.execute(sa.text("SELECT name, seq FROM chat_room")).all() == [("lobby", len(stored))]


async def test_one_that_repeats_another_of_its_batch_is_not_left_to_a_statement(database: Database) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a"))
        with pytest.raises(Repeats):
            await store.append_by_statement(database, [note("b"), note("b")])

        assert (await page_of(database, "lobby")).head == 1


async def test_a_repeated_id_is_the_same_message(database: Database) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a"))

        appended = await database.run(store.append, [note("a"), note("b"), note("b", author="somebody else")])

        assert appended.results == [Stored(1, dup=True), Stored(2, dup=False), Stored(2, dup=True)]
        assert len(appended.messages) == 1


async def test_an_id_belongs_to_one_text_and_to_one_room(database: Database) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a"), note("x", room="other"))

        appended = await database.run(
            store.append,
            [
                note("a", text="another"),
                note("b"),
                note("b", text="another"),
                note("a", room="other"),
            ],
        )

        assert appended.results == [Refusal.CONFLICT, Stored(2, dup=False), Refusal.CONFLICT, Stored(2, dup=False)]


async def test_a_new_room_is_made_only_by_who_may_wait(database: Database) -> None:
    with trio.fail_after(LIMIT):
        refused = await database.run(store.append, [note("a", room="new")])
        unknown = await page_of(database, "new")
        made = await database.run(store.append_waiting, [note("a", room="new")], lock_timeout=1)

        assert refused.results == [Refusal.NEW_ROOM]
        assert (unknown.head, unknown.oldest, unknown.messages) == (0, 1, ())
        assert made.results == [Stored(1, dup=False)]


async def test_without_an_epoch_nothing_is_read_or_acked(database: Database, outside: Connection) -> None:
    """A restore makes the tables first and fills them later."""
    with trio.fail_after(LIMIT):
        await write(database, note("a"))
        outside.execute(sa.text("DELETE FROM chat_epoch"))
        outside.commit()

        with pytest.raises(Unavailable, match="being restored"):
            await database.run(store.append, [note("b")])
        with pytest.raises(Unavailable, match="being restored"):
            await page_of(database, "lobby")
        with pytest.raises(Unavailable, match="being restored"):
            await pages.read_ahead(database, {"lobby": 0})


async def test_a_locked_room_holds_up_no_other(database: Database, outside: Connection) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a", room="locked"), note("a", room="open"))
        outside.execute(sa.text("SELECT * FROM chat_room WHERE name = 'locked' FOR UPDATE"))
        started = time.perf_counter()

        appended = await database.run(store.append, [note("b", room="locked"), note("b", room="open")])

        assert appended.results == [Refusal.LOCKED, Stored(2, dup=False)]
        assert time.perf_counter() - started < 2


async def test_waiting_for_a_locked_room_has_an_end(database: Database, outside: Connection) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a"))
        outside.execute(sa.text("SELECT * FROM chat_room FOR UPDATE"))

        with pytest.raises(DatabaseUnable) as caught:
            await database.run(store.append_waiting, [note("b")], lock_timeout=0.1)

        assert caught.value.sqlstate == LOCK_NOT_AVAILABLE
        outside.rollback()
        assert (await page_of(database, "lobby")).head == 1


@pytest.mark.parametrize("unit", [store.append, partial(store.append_waiting, lock_timeout=0.3)])
async def test_a_commit_waits_longer_than_for_a_room(database: Database, unit: Callable[..., Appended]) -> None:
    """Where others notify, COMMIT waits for theirs, which may wait for a disk that stands still, or for a standby."""

    def store_one(connection: Connection) -> str:
        unit(connection, [note("b")])
        return str(connection.execute(sa.text("SHOW lock_timeout")).scalar_one())

    await write(database, note("a"))

    assert await database.run(store_one) == store.COMMIT_WAIT


async def test_who_waited_for_a_room_sees_what_was_stored_in_it_meanwhile(
    database: Database, outside: Connection
) -> None:
    found: list[Appended] = []

    async def wait() -> None:
        found.append(await database.run(store.append_waiting, [note("b"), note("c"), note("d")], lock_timeout=30))

    with trio.fail_after(LIMIT):
        await write(database, note("a"))
        outside.execute(sa.text("SELECT * FROM chat_room FOR UPDATE"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            waits = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
            while not await database.read(lambda connection: connection.execute(waits).scalar_one()):
                await trio.sleep(0.01)
            store.append(outside, [note("c"), note("b")])
            outside.commit()

        assert found[0].results == [Stored(3, dup=True), Stored(2, dup=True), Stored(4, dup=False)]
        assert texts(await page_of(database, "lobby")) == [f"text of {id_}" for id_ in "acbd"]
        assert (await page_of(database, "lobby")).head == 4


async def test_a_room_that_gets_free_while_repeats_are_taken_back_waits_for_the_next_batch(
    database: Database, outside: Connection
) -> None:
    """Its own repeats are not known yet: stored with the others, they would keep all rooms where they were."""
    drafts = [note("a", room="one"), note("c", room="one"), note("b", room="two")]
    results: list[Stored | Refusal] = []

    async def append() -> None:
        results.extend((await database.run(store.append, drafts)).results)

    with trio.fail_after(LIMIT):
        await write(database, note("a", room="one"), note("b", room="two"))
        await database.run(wait_at_delete)
        outside.execute(sa.text("SELECT FROM chat_room WHERE name = 'two' FOR UPDATE"))
        outside.execute(sa.text("INSERT INTO gate VALUES (true)"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(append)
            while not await database.read(waits_at_delete):
                await trio.sleep(0.01)
            outside.commit()
        after = await database.run(store.append, [note("d", room="one"), note("b", room="two")])

        assert results == [Stored(1, dup=True), Stored(2, dup=False), Refusal.LOCKED]
        assert after.results == [Stored(3, dup=False), Stored(1, dup=True)]
        assert texts(await page_of(database, "one")) == ["text of a", "text of c", "text of d"]


def wait_at_delete(connection: Connection) -> None:
    connection.execute(sa.text("CREATE TABLE gate (open boolean)"))
    connection.execute(
        sa.text("""
            CREATE FUNCTION wait_for_gate() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                WHILE NOT EXISTS (SELECT FROM gate) LOOP PERFORM pg_sleep(0.01); END LOOP; RETURN NULL;
            END $$""")
    )
    connection.execute(sa.text("CREATE TRIGGER gate BEFORE DELETE ON chat_message EXECUTE FUNCTION wait_for_gate()"))


def waits_at_delete(connection: Connection) -> bool:
    return bool(connection.execute(sa.text("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")).all())


async def test_concurrent_batches_keep_the_order_dense(database: Database) -> None:
    """Eight writers in two rooms: what a writer got as seq is where the message is, and nothing is missing."""
    got: dict[tuple[str, str], int] = {}

    async def write_some(writer: int) -> None:
        for number in range(12):
            drafts = [note(f"{writer}-{number}-{room}", room=room) for room in ("one", "two")]
            while drafts:
                appended = await database.run(store.append, drafts)
                left = []
                for sent, result in zip(drafts, appended.results, strict=True):
                    if isinstance(result, Stored):
                        got[sent.room, sent.id] = result.seq
                    else:
                        left.append(sent)
                drafts = left

    with trio.fail_after(LIMIT):
        await write(database, note("first", room="one"), note("first", room="two"))
        async with trio.open_nursery() as nursery:
            for writer in range(8):
                nursery.start_soon(write_some, writer)

        for room in ("one", "two"):
            page = await page_of(database, room, after=1, limit=1000)
            assert [message.seq for message in page.messages] == list(range(2, 98))
            assert {message.id: message.seq for message in page.messages} == {
                id_: seq for (of, id_), seq in got.items() if of == room
            }


async def test_each_batch_gives_one_hint_for_each_room(database: Database) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("a", room="one"), note("a", room="two"))
        async with database.listen(CHANNEL) as wakeups:
            assert await anext(wakeups) is None

            await database.run(store.append, [note("b", room="one"), note("b", room="two"), note("c", room="two")])

            assert await anext(wakeups) == frozenset({"one:2", "two:3"})


async def test_pages_go_forward_and_back_and_end(database: Database) -> None:
    with trio.fail_after(LIMIT):
        await write(database, *[note(str(number)) for number in range(1, 8)])

        first = await page_of(database, "lobby", limit=3)
        middle = await page_of(database, "lobby", after=3, limit=3)
        last = await pages.read_before(database, "lobby", limit=2)
        before = await pages.read_before(database, "lobby", 3, limit=5)
        beyond = await page_of(database, "lobby", after=7)

        assert [[message.seq for message in page.messages] for page in (first, middle, last, before, beyond)] == [
            [1, 2, 3], [4, 5, 6], [6, 7], [1, 2], [],
        ]  # fmt: skip
        assert {page.head for page in (first, middle, last, before, beyond)} == {7}


async def test_one_query_reads_many_rooms_and_finds_those_that_went_on(database: Database) -> None:
    with trio.fail_after(LIMIT):
        appended = await write(database, note("a", room="one"), note("b", room="one"), note("a", room="two"))

        found = await pages.read_rooms(database, {"one": 1, "two": 1, "unknown": 0}, limit=10)
        epoch, ahead = await pages.read_ahead(database, {"one": 1, "two": 1, "unknown": 0})

        assert [(page.room, page.head, len(page.messages)) for page in found] == [
            ("one", 2, 1),
            ("two", 1, 0),
            ("unknown", 0, 0),
        ]
        assert (epoch, ahead) == (appended.epoch, {"one": 2})


async def test_retention_takes_the_first_messages_and_leaves_head_and_epoch(
    database: Database, outside: Connection
) -> None:
    with trio.fail_after(LIMIT):
        before = await write(database, *[note(str(number)) for number in range(1, 8)])
        age(outside, "lobby", 4, days=31)

        deleted = await database.run(store.delete_old, age=30 * 86_400, after="", **AT_ONCE)
        again = await database.run(store.delete_old, age=30 * 86_400, after="lobby", **AT_ONCE)

        page = await page_of(database, "lobby")
        assert deleted == ("lobby", 4)
        assert again == (None, 0)
        assert (page.oldest, page.head, page.epoch) == (5, 7, before.epoch)
        assert [message.seq for message in page.messages] == [5, 6, 7]


async def test_retention_never_makes_a_hole_whatever_the_clock_said(database: Database, outside: Connection) -> None:
    with trio.fail_after(LIMIT):
        await write(database, *[note(str(number)) for number in range(1, 6)])
        age(outside, "lobby", 4, days=31)
        age(outside, "lobby", 2, days=1)  # the server's clock had been ahead

        assert await database.run(store.delete_old, age=30 * 86_400, after="", **AT_ONCE) == ("lobby", 0)


async def test_retention_of_everything_keeps_the_head(database: Database, outside: Connection) -> None:
    with trio.fail_after(LIMIT):
        await write(database, note("1"), note("2"))
        age(outside, "lobby", 2, days=31)

        await database.run(store.delete_old, age=30 * 86_400, after="", **AT_ONCE)
        appended = await database.run(store.append, [note("3")])

        page = await page_of(database, "lobby")
        assert appended.results == [Stored(3, dup=False)]
        assert (page.oldest, page.head) == (3, 3)


async def test_retention_waits_for_no_writer_and_no_writer_for_it(database: Database, outside: Connection) -> None:
    with trio.fail_after(LIMIT):
        await write(database, *[note(str(number)) for number in range(1, 6)])
        age(outside, "lobby", 3, days=31)
        outside.execute(sa.text("SELECT * FROM chat_room FOR UPDATE"))
        assert await database.run(store.delete_old, age=30 * 86_400, after="", **AT_ONCE) == ("lobby", 3)
        outside.rollback()

        store.delete_old(outside, age=0, after="", **AT_ONCE)  # and leaves its transaction open
        with trio.fail_after(10):
            appended = await database.run(store.append, [note("6")])
            with pytest.raises(DatabaseUnable) as caught:
                await database.run(store.append, [note("5")])

        assert appended.results == [Stored(6, dup=False)]
        assert caught.value.sqlstate == LOCK_NOT_AVAILABLE


async def test_the_epoch_changes_only_when_it_is_renewed(database: Database) -> None:
    with trio.fail_after(LIMIT):
        appended = await write(database, note("a"))
        epoch = await database.run(store.renew_epoch)

        page = await page_of(database, "lobby")
        assert page.epoch == epoch != appended.epoch
        assert page.head == 1
        assert len(epoch) == 32


@pytest.mark.parametrize("limit", [1, 100])
async def test_retention_goes_on_room_by_room(database: Database, outside: Connection, limit: int) -> None:
    with trio.fail_after(LIMIT):
        await write(database, *[note(str(number), room=room) for number in range(3) for room in ("a", "b", "c")])
        for room in "abc":
            age(outside, room, 2, days=31)

        after: str | None = ""
        total = 0
        while after is not None:
            after, deleted = await database.run(store.delete_old, age=30 * 86_400, after=after, rooms=limit, each=100)
            total += deleted

        assert total == 6
