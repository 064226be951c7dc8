"""What the process knows about its database, from memory, and how soon it knows."""

import os
import signal
from itertools import pairwise

import structlog.testing
import trio
import trio.testing

from service.platform.database import CodeSchema, Condition, SchemaState, open_database
from service.platform.database.address import Address, ceilings
from service.platform.database.migrate import migrate
from service.platform.database.watch import Watch
from service.platform.settings import PlatformSettings
from service.platform.testing.fixtures import MakeSettings
from service.platform.testing.own_server import OwnServer
from tests.platform.database.migrations import Release
from tests.platform.database.observer import observe
from tests.platform.database.proxy import open_proxy


async def test_the_condition_is_known_from_the_first_look(make_settings: MakeSettings) -> None:
    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            before = database.condition
            await database.wait_served()

            condition = database.condition
            assert not before.served
            assert condition.reachable
            assert condition.schema is SchemaState.AT
            assert condition.error == ""
            assert 0 < condition.duration < 5
            assert 0 <= condition.age < 5


async def test_the_condition_follows_an_outage_and_keeps_the_schema(one_server: OwnServer, release: Release) -> None:
    settings = PlatformSettings(database_url=one_server.url)
    with structlog.testing.capture_logs() as logged, trio.fail_after(30):
        migrate(settings, migrations=release("one"))
        async with open_database(settings, migrations=release("one")) as database:
            await database.wait_served()
            await database.look()
            one_server.stop()
            while database.condition.reachable:
                await trio.sleep(0.05)
            away = database.condition
            one_server.start()
            assert (await database.look()).reachable

            assert away.served, "the last schema seen"
            assert "No such file or directory" in away.error or "refused" in away.error
            assert "\n" not in away.error

    told = [line["event"] for line in logged]
    ways = [event for event in told if event in {"database away", "database reached"}]
    assert told.count("schema seen") == 1
    assert {"database away", "database reached"} <= {*ways}
    assert ("database reached", "database reached") not in pairwise(ways), "changes alone are told"


async def test_a_look_takes_at_most_a_second_at_a_frozen_server(one_server: OwnServer) -> None:
    with trio.fail_after(30), observe(one_server.url) as observer:
        async with open_database(PlatformSettings(database_url=one_server.url)) as database:
            await database.look()
            watch = observer.ask("SELECT pid FROM pg_stat_activity WHERE position('schema_state' in query) > 0"
                                 " AND pid <> pg_backend_pid()")  # fmt: skip
            os.kill(watch, signal.SIGSTOP)
            started = trio.current_time()
            condition = await database.look()
            lasted = trio.current_time() - started
            os.kill(watch, signal.SIGCONT)

            assert not condition.reachable
            assert lasted < 5  # a second, and a machine that does something else
            assert (await database.look()).reachable, "over a new connection"


async def test_who_asks_during_a_look_hears_of_what_is_so_now(one_server: OwnServer) -> None:
    with trio.fail_after(30):
        async with open_proxy(one_server.port) as proxy:
            proxy.silent = True
            async with open_database(PlatformSettings(database_url=proxy.url())) as database:
                while not proxy.lines:  # its first look is on its way, and will find nothing
                    await trio.sleep(0.01)
                proxy.silent = False

                assert (await database.look()).reachable


async def test_looks_at_the_same_time_are_one(make_settings: MakeSettings) -> None:
    found: list[object] = []
    with trio.fail_after(30):
        async with open_database(make_settings()) as database:
            await database.look()
            async with trio.open_nursery() as nursery:

                async def look() -> None:
                    found.append(await database.look())

                for _ in range(10):
                    nursery.start_soon(look)

    assert len({id(condition) for condition in found}) <= 2  # the first, and one that the others share


async def test_a_look_that_was_cancelled_answers_nobody_else(one_server: OwnServer) -> None:
    found: list[Condition] = []
    with trio.fail_after(30):
        async with open_proxy(one_server.port) as proxy, trio.open_nursery() as nursery:
            settings = PlatformSettings(database_url=proxy.url())
            watch = Watch(Address.pool(settings), CodeSchema(None, frozenset()), ceilings(settings), lambda _: None)
            gone = trio.CancelScope()

            async def look(scope: trio.CancelScope) -> None:
                with scope:
                    found.append(await watch.look())

            proxy.silent = True
            nursery.start_soon(look, trio.CancelScope())
            while proxy.lines < 1:
                await trio.sleep(0.01)
            nursery.start_soon(look, gone)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(look, trio.CancelScope())
            while proxy.lines < 2:  # until the second looks
                await trio.sleep(0.01)
            proxy.silent = False
            gone.cancel()
            while len(found) < 2:
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    assert [condition.reachable for condition in found] == [False, True]


async def test_the_watch_sees_a_migration_by_itself(release: Release, empty_database_url: str) -> None:
    settings = PlatformSettings(database_url=empty_database_url)
    code = release("one")
    with trio.fail_after(30):
        async with open_database(settings, migrations=code) as database:
            while database.condition.schema is None:
                await trio.sleep(0.01)
            before = database.condition.schema
            migrate(settings, migrations=code)
            await database.wait_served()

            assert before is SchemaState.BEHIND
            assert database.condition.schema is SchemaState.AT
            assert (database.condition.revision, database.condition.serves_from) == ("one", "one")
