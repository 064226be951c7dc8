"""Notifications come in, coalesced; after every loss of the line the listener is told to catch up."""

import math
import resource
import time
from contextlib import nullcontext

import pytest
import structlog.testing
import trio
import trio.testing
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool
from trio.testing import MockClock

from service.platform.database import Wakeups, open_database
from service.platform.database import notify as notify_after
from service.platform.database.address import Address
from service.platform.database.listen import QUIET, Listener
from service.platform.database.pooled import PooledConnection
from service.platform.database.wire import ANSWER_LIMIT, connect
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import observe
from tests.platform.database.proxy import open_proxy
from tests.platform.database.units import create_table, insert, notify, select_numbers

LISTENERS = 4
LONGEST = "é" * 31 + "x"  # 63 bytes: the longest name of a channel
EMPTY_QUERY = b"Q\x00\x00\x00\x05\x00"  # as PostgreSQL's protocol has it


async def test_the_first_item_says_catch_up_and_then_payloads_come(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database, database.listen("room") as wakeups:
            assert await anext(wakeups) is None

            await database.run(notify, channel="room", payload="lobby:1")
            await database.run(notify, channel="elsewhere", payload="lobby:2")
            assert await anext(wakeups) == frozenset({"lobby:1"})


async def test_payloads_that_wait_come_as_one_item(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database, database.listen("room") as wakeups:
            await anext(wakeups)
            for number in range(50):
                await database.run(notify, channel="room", payload=str(number % 5))
            seen: set[str] = set()
            items = 0
            while len(seen) < 5:
                item = await anext(wakeups)
                assert item is not None
                seen |= item
                items += 1

            assert seen == {"0", "1", "2", "3", "4"}
            assert items <= 2


async def test_listening_begins_before_the_first_item(make_settings: MakeSettings, database_url: str) -> None:
    """What is notified between LISTEN and the catching up is not lost."""
    with trio.fail_after(30):
        async with open_database(make_settings()) as database, database.listen("Odd name;") as wakeups:
            await anext(wakeups)
            await database.run(notify, channel="Odd name;", payload="x")
            await trio.sleep(0.1)  # nobody asks meanwhile

            assert await anext(wakeups) == frozenset({"x"})


async def test_a_listener_runs_no_query_on_its_line(make_settings: MakeSettings, database_url: str) -> None:
    with trio.fail_after(30), observe(database_url) as observer:
        async with open_database(make_settings()) as database, database.listen("room") as wakeups:
            await anext(wakeups)
            await database.run(notify, channel="room", payload="x")
            await anext(wakeups)

            assert observer.ask("SELECT count(*) FROM pg_stat_activity WHERE query = 'LISTEN \"room\"'") == 1
        while observer.sessions():
            await trio.sleep(0.01)


async def test_what_nobody_listens_to_any_more_is_not_heard_any_more(
    make_settings: MakeSettings, database_url: str
) -> None:
    said = "SELECT count(*) FROM pg_stat_activity WHERE query = %s"
    with trio.fail_after(30), observe(database_url) as observer:
        async with open_database(make_settings()) as database:
            async with database.listen("room") as wakeups:
                await anext(wakeups)
                async with database.listen("another") as others:
                    await anext(others)
                while not observer.ask(said, 'UNLISTEN "another"'):
                    await trio.sleep(0.01)
            while observer.ask(said, 'UNLISTEN "another"'):  # its connection is closed
                await trio.sleep(0.01)


@pytest.mark.parametrize("most", [1, pytest.param(0.005, marks=pytest.mark.drill)])
async def test_a_cancelled_listener_ends_at_once(make_settings: MakeSettings, most: float) -> None:
    took: list[float] = []
    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            for _ in range(20):
                async with trio.open_nursery() as nursery:
                    listening = trio.Event()

                    async def listen(ready: trio.Event = listening) -> None:
                        async with database.listen("room") as wakeups:
                            await anext(wakeups)
                            ready.set()
                            await anext(wakeups)

                    nursery.start_soon(listen)
                    await listening.wait()
                    await trio.testing.wait_all_tasks_blocked()
                    started = time.perf_counter()
                    nursery.cancel_scope.cancel()
                took.append(time.perf_counter() - started)
    median = sorted(took)[len(took) // 2]

    print(f"a cancelled listener ended after {median * 1000:.2f} ms")
    assert median < most


async def test_a_listener_that_cannot_connect_can_be_cancelled(one_server: OwnServer) -> None:
    one_server.stop()
    with trio.fail_after(30):
        async with open_database(PlatformSettings(database_url=one_server.url)) as database:
            with trio.move_on_after(0.3) as scope:
                async with database.listen("room") as wakeups:
                    await anext(wakeups)

            assert scope.cancelled_caught


@pytest.mark.parametrize("how", ["fast", "immediate"])
async def test_nothing_is_missed_over_three_restarts(own_server: OwnServer, how: str) -> None:
    """Four listeners catch up by the table whenever they are told to, and by payload otherwise."""
    written: set[int] = set()
    caught_up = [0] * LISTENERS
    seen: list[set[int]] = [set() for _ in range(LISTENERS)]
    settings = PlatformSettings(database_url=own_server.url)
    with trio.fail_after(30):
        async with open_database(settings) as database, trio.open_nursery() as nursery:
            await database.run(create_table)

            async def listen(index: int, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
                async with database.listen("numbers") as wakeups:
                    await follow(index, wakeups, task_status)

            async def follow(index: int, wakeups: Wakeups, task_status: trio.TaskStatus[None]) -> None:
                async for payloads in wakeups:
                    if payloads is None:
                        caught_up[index] += 1
                        if caught_up[index] == 1:
                            task_status.started()
                        seen[index] |= await retry_select()
                    else:
                        seen[index] |= {int(payload) for payload in payloads}

            async def retry_select() -> set[int]:
                while True:
                    try:
                        return await database.read(select_numbers)
                    except Exception:  # the server goes down again meanwhile
                        await trio.sleep(0.01)

            async def write(numbers: range) -> None:
                for number in numbers:
                    try:
                        await database.run(insert_and_notify, number=number)
                    except Exception:  # away: not committed, or unknown
                        await trio.sleep(0.01)
                    else:
                        written.add(number)

            for index in range(LISTENERS):
                await nursery.start(listen, index)
            for round_number in range(3):
                start = round_number * 1000
                await write(range(start, start + 100))
                own_server.restart("immediate" if how == "immediate" else "fast")
                await write(range(start + 100, start + 200))
                while min(caught_up) < round_number + 2:  # else the next restart may come before it is heard of this
                    await trio.sleep(0.01)
            while not all(written <= numbers for numbers in seen):
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    assert len(written) >= 550, "most were written"
    assert all(written <= numbers for numbers in seen)
    assert all(times >= 4 for times in caught_up), "at first and after each restart"


def insert_and_notify(connection: Connection, *, number: int) -> None:
    insert(connection, number=number)
    notify(connection, channel="numbers", payload=str(number))


async def test_all_who_listen_share_one_connection_and_each_hears_its_own(
    make_settings: MakeSettings, database_url: str
) -> None:
    with trio.fail_after(30), observe(database_url) as observer:
        async with open_database(make_settings()) as database, database.listen("one") as one:
            assert await anext(one) is None
            async with database.listen("two") as two, database.listen("one") as again:
                assert (await anext(two), await anext(again)) == (None, None)
                await database.run(notify, channel="one", payload="x")
                await database.run(notify, channel="two", payload="y")

                heard = [await anext(each) for each in (one, two, again)]
                listening = observer.ask("SELECT count(*) FROM pg_stat_activity WHERE starts_with(query, 'LISTEN')")
            await database.run(notify, channel="two", payload="z")
            await database.run(notify, channel="one", payload="z")
            last = await anext(one)
        while observer.sessions():
            await trio.sleep(0.01)

    assert heard == [frozenset({"x"}), frozenset({"y"}), frozenset({"x"})]
    assert listening == 1
    assert last == frozenset({"z"})


async def test_who_listens_hears_what_comes_while_others_come_and_go(one_server: OwnServer) -> None:
    """Who listens changes in each turn of the loop, and the proxy has an answer take several."""

    async def come_and_go() -> None:
        while True:
            async with database.listen("another"):
                await trio.lowlevel.checkpoint()

    with trio.fail_after(30):
        async with (
            open_proxy(one_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
            database.listen("room") as wakeups,
        ):
            assert await anext(wakeups) is None
            async with trio.open_nursery() as nursery:
                nursery.start_soon(come_and_go)
                await database.run(notify, channel="room", payload="x")

                assert await anext(wakeups) == frozenset({"x"})
                nursery.cancel_scope.cancel()


async def test_who_wants_nothing_of_its_own_process_hears_of_others_alone(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with (
            open_database(make_settings()) as database,
            open_database(make_settings()) as another,
            database.listen("room", own=False) as of_others,
            database.listen("room") as of_all,
        ):
            assert (await anext(of_others), await anext(of_all)) == (None, None)
            await database.run(notify, channel="room", payload="own")
            own = await anext(of_all)
            await another.run(notify, channel="room", payload="another's")
            heard = await anext(of_others), await anext(of_all)
            await database.run(end_this_connection)
            await trio.sleep(0.05)
            await database.run(notify, channel="room", payload="own, by a new connection")
            await another.run(notify, channel="room", payload="the last")
            last = await anext(of_others)

    assert own == frozenset({"own"})
    assert heard == (frozenset({"another's"}), frozenset({"another's"}))
    assert last == frozenset({"the last"})


async def test_only_an_open_connection_is_one_of_its_own(make_settings: MakeSettings) -> None:
    """The server gives the number of its process to somebody else's, later."""
    address = Address.pool(make_settings())
    open_pids: set[int] = set()
    pgconn = await connect(address.parameters)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            PooledConnection(pgconn, prepares=True, open_pids=open_pids)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    after_failure = set(open_pids)
    pooled = PooledConnection(pgconn, prepares=True, open_pids=open_pids)
    pid, while_open = pgconn.backend_pid, set(open_pids)
    pooled.close()
    pooled.close()

    assert (after_failure, while_open, open_pids) == (set(), {pid}, set())


def end_this_connection(connection: Connection) -> None:
    """Leave a connection that the server ends, so that the next unit has another."""
    connection.execute(text("SELECT set_config('idle_session_timeout', '1ms', false)"))


async def test_what_a_unit_notifies_goes_out_when_it_is_committed_and_not_when_it_fails(
    make_settings: MakeSettings,
) -> None:
    def unit(connection: Connection, *payloads: str, fails: bool = False) -> None:
        for payload in payloads:
            notify_after(connection, "room", payload)
        if fails:
            raise RuntimeError("it fails")

    with trio.fail_after(30):
        async with open_database(make_settings()) as database, database.listen("room") as wakeups:
            await anext(wakeups)
            with pytest.raises(RuntimeError):
                await database.run(unit, "never", fails=True)
            await database.run(unit, "a", "b", "a")

            assert await anext(wakeups) == frozenset({"a", "b"})
            with pytest.raises(ValueError, match="7999 bytes at most"):
                await database.run(unit, "é" * 4_000)
            await database.run(unit, "é" * 3_999 + "x")
            assert await anext(wakeups) == frozenset({"é" * 3_999 + "x"})


async def test_outside_of_a_unit_a_notification_is_part_of_the_connection_s_transaction(
    make_settings: MakeSettings, database_url: str
) -> None:
    engine = create_engine(database_url, poolclass=NullPool)
    with trio.fail_after(30):
        async with open_database(make_settings()) as database, database.listen("r") as wakeups:
            await anext(wakeups)
            with engine.connect() as connection:
                notify_after(connection, "r", "never")
                connection.rollback()
                notify_after(connection, "r", "a")
                connection.commit()

            assert await anext(wakeups) == frozenset({"a"})


@pytest.mark.parametrize(
    ("channel", "payload"), [("", "x"), ("é" * 32, "x"), ("a\0b", "x"), ("room", "a\0b"), ("room", "x" * 8_000)]
)
async def test_what_cannot_be_sent_is_refused_where_it_is_asked_for_and_takes_nobody_elses_with_it(
    make_settings: MakeSettings, channel: str, payload: str
) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database, database.listen(LONGEST) as wakeups:
            await anext(wakeups)
            with pytest.raises(ValueError, match=r"^(channel|payload): must"):
                await database.run(notify_after, channel, payload)
            await database.run(notify_after, LONGEST, "x")

            assert await anext(wakeups) == frozenset({"x"})
            assert not database.failing_tasks


async def test_no_connection_is_made_while_nobody_listens(make_settings: MakeSettings) -> None:
    made: list[str] = []

    def note() -> nullcontext[None]:
        made.append("a connection")
        return nullcontext()

    listener = Listener(Address.direct(make_settings()), set(), note)
    wakeups = Wakeups("room", own=True)
    listener.add(wakeups)
    listener.remove(wakeups)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.run)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert made == []


async def test_nobody_listens_to_a_name_that_postgresql_would_cut(make_settings: MakeSettings) -> None:
    async with open_database(make_settings()) as database:
        with pytest.raises(ValueError, match="channel: must be 1 to 63 bytes"):
            async with database.listen("x" * 64):
                pass


async def test_one_that_does_not_ask_is_told_to_catch_up_rather_than_kept_everything_for(
    make_settings: MakeSettings,
) -> None:
    def unit(connection: Connection) -> None:
        connection.execute(text("SELECT pg_notify('room', n::text) FROM generate_series(1, 10050) n"))

    with trio.fail_after(30):
        async with (
            open_database(make_settings()) as database,
            database.listen("room") as wakeups,
            database.listen("end") as end,
        ):
            assert (await anext(wakeups), await anext(end)) == (None, None)
            await database.run(unit)
            await database.run(notify, channel="end", payload="x")
            await anext(end)

            assert await anext(wakeups) is None


async def test_who_begins_to_listen_over_a_silent_line_is_heard_over_another(
    one_server: OwnServer, mock_clock: MockClock
) -> None:
    mock_clock.rate = 1
    with trio.fail_after(60):
        async with (
            open_proxy(one_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
            database.listen("room") as first,
        ):
            await anext(first)
            proxy.mute()
            async with database.listen("hall") as second:
                while b"hall" not in proxy.swallowed:
                    await trio.sleep(0.01)
                mock_clock.jump(ANSWER_LIMIT)
                assert await anext(second) is None
                assert await anext(first) is None
                await database.run(notify, channel="hall", payload="x")

                assert await anext(second) == frozenset({"x"})


async def test_a_line_that_falls_silent_while_nobody_says_anything_is_replaced(
    one_server: OwnServer, mock_clock: MockClock
) -> None:
    """Behind a proxy that swallows what is said and keeps the line open: nothing else would ever tell."""
    mock_clock.rate = 1
    with trio.fail_after(40):
        async with (
            open_proxy(one_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
            database.listen("room") as wakeups,
        ):
            await anext(wakeups)
            proxy.mute()
            mock_clock.jump(QUIET)
            while EMPTY_QUERY not in proxy.swallowed:
                await trio.sleep(0.01)
            mock_clock.jump(ANSWER_LIMIT)
            assert await anext(wakeups) is None
            await database.run(notify, channel="room", payload="x")

            assert await anext(wakeups) == frozenset({"x"})


async def test_a_line_that_is_lost_again_and_again_is_opened_after_pauses(one_server: OwnServer) -> None:
    """Else all who listen read their tables dozens of times a second, and each loss is a line in the log."""
    losses = 0
    with trio.fail_after(30):
        async with (
            open_proxy(one_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
            database.listen("room") as wakeups,
        ):
            while await anext(wakeups) is None and "listen.Listener.run" not in database.failing_tasks:
                assert losses < 20
                proxy.cut()
                losses += 1

    assert losses >= 2, "the first is no reason to wait"


async def test_a_listener_that_is_not_let_in_is_not_well_again_in_between(
    one_server: OwnServer, mock_clock: MockClock
) -> None:
    """With the pause, a wait for a server that never answers is longer than an error is held against a task."""
    mock_clock.rate = 1
    with structlog.testing.capture_logs() as logged, trio.fail_after(600):
        async with (
            open_proxy(one_server.port) as proxy,
            open_database(PlatformSettings(database_url=proxy.url())) as database,
            database.listen("room") as wakeups,
        ):
            await anext(wakeups)
            proxy.silent = True
            proxy.cut()
            mock_clock.rate, mock_clock.autojump_threshold = 0, 0.01  # nobody says anything any more
            while "listen.Listener.run" not in database.failing_tasks:
                await trio.sleep(0.1)
            await trio.sleep(40)
            mock_clock.rate, mock_clock.autojump_threshold = 1, math.inf

            told = [line["event"] for line in logged if line.get("task") == "listen.Listener.run"]
            assert told == ["background task failing"]

            proxy.silent = False
            assert await anext(wakeups) is None
