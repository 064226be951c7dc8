"""A failover: the standby that takes over has been up for long, and its clock went on while nobody could write."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection, text

from service.platform.database import open_database
from service.platform.database.launch import find_binaries
from service.platform.database.migrate import migrate
from service.platform.jobs import enqueue_many, open_jobs
from service.platform.jobs.running import LEASE
from service.platform.settings import PlatformSettings
from service.platform.telemetry import Metrics
from service.platform.testing.own_server import OwnServer
from tests.platform.database.observer import observe
from tests.platform.jobs import kinds
from tests.platform.jobs.test_worker import until
from tests.platform.upgrades import settings_for

JOBS = 5


@pytest.fixture
def pair(clusters: Callable[[Path], Path]) -> Iterator[tuple[OwnServer, OwnServer]]:
    """Yield a primary, migrated, and a standby that follows it."""
    bindir = find_binaries()
    with closing(OwnServer(clusters(bindir), bindir)) as primary:
        primary.start()
        migrate(settings_for(primary.url))
        primary.stop()
        copy = primary.data.with_name(primary.data.name + "-standby")
        shutil.copytree(primary.data, copy)
        with closing(OwnServer(copy, bindir)) as standby:
            followed = f"primary_conninfo = 'host={primary.data} port={primary.port} user=postgres'\n"
            (copy / "postgresql.auto.conf").write_text(followed)
            (copy / "standby.signal").touch()
            primary.start()
            standby.start()
            yield primary, standby


def failures(connection: Connection) -> list[int]:
    return list(connection.execute(text("SELECT failures FROM job ORDER BY id")).scalars())


async def test_a_failover_spends_no_attempt(pair: tuple[OwnServer, OwnServer]) -> None:
    """Who has the database again would find that all leases are over, before those that live can extend theirs."""
    primary, standby = pair
    url = f"postgresql://postgres@/postgres?host=127.0.0.1:{primary.port}&host=127.0.0.1:{standby.port}"
    settings = PlatformSettings(database_url=url, jobs_concurrency=JOBS)
    with trio.fail_after(60):
        async with AsyncExitStack() as stack:
            one, other = [await stack.enter_async_context(open_database(settings)) for _ in range(2)]
            await one.run(kinds.create_tables)
            await stack.enter_async_context(open_jobs(one, (kinds.wait,), settings, Metrics()))
            waits = [{"number": number, "seconds": 50.0} for number in range(JOBS)]
            await one.run(enqueue_many, kinds.wait, waits)
            await until(one, kinds.states, {"running": JOBS})
            await stack.enter_async_context(open_jobs(other, (kinds.wait,), settings, Metrics()))
            with observe(primary.url) as observer:
                while not observer.ask("SELECT replay_lsn = pg_current_wal_lsn() FROM pg_stat_replication"):
                    await trio.sleep(0.01)
            primary.stop("immediate")
            await trio.sleep(LEASE + 1)
            standby.promote()
            await until(one, claims_again, True)

            assert await one.read(failures) == [0] * JOBS


def claims_again(connection: Connection) -> bool:
    query = "SELECT bool_and(claim > 1 AND state = 'running') FROM job"
    return bool(connection.execute(text(query)).scalar())
